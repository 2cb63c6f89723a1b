"""Distillation: what is tapped, Eq. 4, and a student that learns, is resumed and loads in the viewer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import ModelConfig, architecture
from napari_uniultra.model.trunk import attend
from napari_uniultra.training.distillation.match import Distiller, match_losses, weighted_sum
from napari_uniultra.training.distillation.settings import MatchSettings, StudentSettings, TeacherSettings
from napari_uniultra.training.distillation.student import build_student, load_teacher, student_config
from napari_uniultra.training.distillation.taps import STAGES, TERMS, encode, feature_names, feature_width
from napari_uniultra.training.settings import ConfigError

SIZE = 64
ALL = feature_names(tuple(TERMS), STAGES, STAGES)


def tiny(**changes: object) -> ModelConfig:
    return architecture("uniultra-mini", image_size=SIZE, **changes)


def random_network(config: ModelConfig, seed: int) -> nn.Module:
    """With adapters that do something: untrained ones give zero."""
    torch.manual_seed(seed)
    network = build_network(config)
    for name, parameter in network.image_encoder.named_parameters():
        if ".adapter." in name:
            nn.init.normal_(parameter, std=0.2)
    return network


@pytest.fixture(scope="module")
def student() -> nn.Module:
    return random_network(tiny(), 0)


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    """Wider, so that the necks have something to do."""
    return random_network(tiny(embed_dim=24), 1)


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory, teacher: nn.Module) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_checkpoint(path, teacher, tiny(embed_dim=24, box_prior=True), {})
    return path


def images(count: int = 2, seed: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


# Taps


@torch.no_grad()
def by_hand(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every feature of a trunk and its neck, written out."""
    trunk, found = network.image_encoder.trunk, {}
    x = trunk.patch_embed(x)
    x = x + trunk._get_pos_embed(x.shape[1:3])
    patches = trunk.patch_mixer(x)
    stage, outputs = 1, []
    for index, block in enumerate(trunk.blocks):
        edges = trunk.edge_filter(patches).permute(0, 2, 3, 1)
        attended = attend(block, x)
        normed = block.norm2(attended)
        hiera = attended + block.mlp(normed)
        adapter = block.adapter(normed, edges)
        x = hiera + 0.5 * adapter
        if index in trunk.stage_ends:
            for name, value in (("D1", x), ("D2", hiera), ("D3", adapter)):
                found[f"{name}_{stage}"] = value.permute(0, 3, 1, 2)
            outputs.append(x.permute(0, 3, 1, 2))
            patches, stage = F.max_pool2d(patches, 2), stage + 1
    maps, _ = network.image_encoder.neck(outputs)
    return found | {f"fpn_{level}": value for level, value in zip(STAGES, maps, strict=True)}


def test_taps_give_what_a_forward_written_by_hand_gives(student: nn.Module) -> None:
    expected = by_hand(student, images())
    found = encode(student.image_encoder, images(), ALL)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-5), name
        assert value.shape[1] == feature_width(student.image_encoder, name)
    assert found["D3_2"].abs().max() > 0.01
    assert [found[f"fpn_{level}"].shape[-1] for level in STAGES] == [16, 8, 4, 2]


def test_taps_leave_no_hook_behind(student: nn.Module) -> None:
    encode(student.image_encoder, images(), ALL)
    plain = build_network(architecture("sam2-tiny", image_size=SIZE, embed_dim=16))
    with pytest.raises(CheckpointError, match=r"match\.adapter"):
        encode(plain.image_encoder, images(), ("D1_1", "D3_1"))
    for network in (student, plain):
        assert not any(module._forward_hooks for module in network.modules())


# Eq. 4


def test_the_loss_is_equation_4_worked_by_hand() -> None:
    student = {
        "D1_1": torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]),
        "D3_2": torch.tensor([[[[2.0]], [[0.0]]]]),
        "fpn_1": torch.tensor([[[[1.0]]]]),
    }
    teacher = {
        "D1_1": torch.tensor([[[[0.0, 2.0], [3.0, 7.0]]]]),
        "D3_2": torch.tensor([[[[1.0]], [[1.0]]]]),
        "fpn_1": torch.tensor([[[[4.0]]]]),
    }
    losses = match_losses(student, teacher)
    assert {name: float(loss) for name, loss in losses.items()} == {"D1_1": 10 / 4, "D3_2": 1.0, "fpn_1": 9.0}
    assert float(weighted_sum(losses, 2.0, 0.5)) == pytest.approx(2 * 3.5 + 0.5 * 9)
    relative = match_losses(student, teacher, normalise=True)
    assert float(relative["D1_1"]) == pytest.approx(2.5 / (62 / 4))
    assert float(relative["fpn_1"]) == pytest.approx(9 / 16)


def test_a_teacher_at_another_input_size_is_resized() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    same = torch.tensor([[[[0.5, 2.5], [0.5, 2.5]]]])
    assert float(match_losses({"D1_1": same}, {"D1_1": ramp})["D1_1"]) == 0


def gradients(settings: MatchSettings, student: nn.Module, teacher: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    distiller = Distiller(student, teacher.image_encoder, ALL)
    distiller.names = settings.names
    with torch.no_grad():
        goal = encode(teacher.image_encoder, images(), ALL)
    loss = weighted_sum(match_losses(distiller(images()), goal), settings.stage_weight, settings.fpn_weight)
    distiller.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in distiller.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


def test_what_is_switched_off_gives_no_gradient(student: nn.Module, teacher: nn.Module) -> None:
    only_first = gradients(MatchSettings(hiera=False, adapter=False, stages=(1,), fpn_levels=()), student, teacher)
    assert {name.split(".")[1] for name in only_first if name.startswith("necks")} == {"D1_1"}
    end = student.image_encoder.trunk.stage_ends
    touched = {int(name.split("blocks.")[1].split(".")[0]) for name in only_first if "blocks." in name}
    assert touched == set(range(end[0] + 1))
    assert not any(".neck." in name for name in only_first)

    without_adapter = gradients(
        MatchSettings(integration=False, adapter=False, stages=(1,), fpn_levels=()), student, teacher
    )
    assert not any(f"blocks.{end[0]}.adapter" in name for name in without_adapter)
    assert any(f"blocks.{end[0]}.adapter" in name for name in only_first)

    of_neck = gradients(MatchSettings(stages=(), fpn_levels=(3, 4)), student, teacher)
    assert not any(name.startswith("necks") for name in of_neck)
    assert any("blocks.11." in name for name in of_neck)
    assert (
        gradients(MatchSettings(fpn_levels=(1,), fpn_weight=0.0), student, teacher).keys()
        == gradients(MatchSettings(fpn_levels=()), student, teacher).keys()
    )


def test_a_configuration_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="Nothing is to be matched"):
        MatchSettings(stages=(), fpn_levels=())


# Student


def test_the_student_keeps_the_teachers_decoder_and_memory(teacher_file: Path) -> None:
    teacher = load_teacher(TeacherSettings(str(teacher_file)))
    settings = StudentSettings(width=192, image_size=128)
    config = student_config(settings, teacher.config)
    assert (config.embed_dim, config.image_size, config.box_prior) == (24, 128, True)
    student = build_student(
        config, StudentSettings(width=192, image_size=128, start=str(teacher_file)), teacher.network
    )
    assert all(torch.equal(value, teacher.network.state_dict()[name]) for name, value in student.state_dict().items())

    config = student_config(StudentSettings(image_size=128), teacher.config)
    student = build_student(config, StudentSettings(image_size=128), teacher.network)
    own, theirs = student.state_dict(), teacher.network.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own if not name.startswith("image_encoder."))
    with pytest.raises(CheckpointError, match=r"student\.width"):
        build_student(config, StudentSettings(image_size=128, start=str(teacher_file)), teacher.network)


@pytest.mark.parametrize("width", (640, 512, 384, 256, 192, 128))
def test_the_widths_of_figure_5(width: int) -> None:
    config = student_config(StudentSettings(width=width), tiny())
    assert config.trunk_channels[0] == width


def test_a_width_that_hiera_cannot_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 8"):
        StudentSettings(width=130)
