"""Distillation: what is tapped, Eq. 4, and a student that learns, is resumed and loads in the viewer."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import nn

from napari_uniultra.cli import main
from napari_uniultra.core.settings import ConfigError, read_file, read_settings, to_dict, write_file
from napari_uniultra.core.stop_file import STOP
from napari_uniultra.core.types import Prompt
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import ModelConfig, architecture
from napari_uniultra.model.load import load_model
from napari_uniultra.model.trunk import attend
from napari_uniultra.segment.predictor import Predictor
from napari_uniultra.training.checkpoints import CHECKPOINT, load_training_checkpoint
from napari_uniultra.training.config import FineTuneConfig, find_config
from napari_uniultra.training.data.samples import Batch
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.training.distillation.match import Distiller, match_losses, weighted_sum
from napari_uniultra.training.distillation.run import distil
from napari_uniultra.training.distillation.settings import MatchSettings, StudentSettings, TeacherSettings
from napari_uniultra.training.distillation.student import build_student, load_teacher, student_config
from napari_uniultra.training.distillation.taps import STAGES, TERMS, encode, feature_names, feature_width
from napari_uniultra.training.distillation.task import MATCHED, STUDENT, Distill
from napari_uniultra.training.events import read_events
from napari_uniultra.training.layout import JOINT

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
    settings = StudentSettings(embedding=192, image_size=128)
    config = student_config(settings, teacher.config)
    assert (config.embed_dim, config.image_size, config.box_prior) == (24, 128, True)
    student = build_student(
        config, StudentSettings(embedding=192, image_size=128, start=str(teacher_file)), teacher.network
    )
    assert all(torch.equal(value, teacher.network.state_dict()[name]) for name, value in student.state_dict().items())

    config = student_config(StudentSettings(image_size=128), teacher.config)
    student = build_student(config, StudentSettings(image_size=128), teacher.network)
    own, theirs = student.state_dict(), teacher.network.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own if not name.startswith("image_encoder."))
    with pytest.raises(CheckpointError, match=r"student\.embedding"):
        build_student(config, StudentSettings(image_size=128, start=str(teacher_file)), teacher.network)


@pytest.mark.parametrize("width", (640, 512, 384, 256, 192, 128))
def test_the_widths_of_figure_5(width: int) -> None:
    config = student_config(StudentSettings(embedding=width), tiny())
    assert config.trunk_channels[0] == width


def test_a_width_that_hiera_cannot_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 8"):
        StudentSettings(embedding=130)


# Runs


def write_data(folder: Path, count: int = 6) -> Path:
    """Bright discs, with a manifest."""
    lines = ["frames,masks,source,part,name"]
    y, x = np.mgrid[0:72, 0:80]
    rng = np.random.default_rng(0)
    for number in range(count):
        mask = (y - 24 - 4 * number) ** 2 + (x - 40) ** 2 < (10 + number) ** 2
        image = np.clip(60 + 90 * mask + rng.normal(0, 12, mask.shape), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"image_{number}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"mask_{number}.png")
        part = "val" if number == 0 else "train"
        lines.append(f"image_{number}.png,mask_{number}.png,discs,{part},disc {number}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def settings_for(output: Path, teacher_file: Path, manifest: Path, steps: int, **changes: object) -> DistillConfig:
    values = {
        "output": str(output),
        "teacher": {"checkpoint": str(teacher_file)},
        "student": {"image_size": SIZE},
        "data": {"manifests": [str(manifest)], "batch": 2, "workers": 0},
        "optimiser": {"learning_rate": 2e-3, "ema_decay": 0.5},
        "run": {"steps": steps, "device": "cpu", "log_every": 1, "save_every": 100, "validate_every": steps},
        **changes,
    }
    return read_settings(DistillConfig, values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, teacher_file: Path, manifest: Path) -> Path:
    """A run of both stages."""
    output = tmp_path_factory.mktemp("run")
    settings = settings_for(output, teacher_file, manifest, 20, match={"normalise": True}, joint={"steps": 2})
    assert distil(settings).is_complete
    return output


def test_distilling_reduces_every_loss(finished: Path) -> None:
    lines = [line for line in read_events(finished) if line["event"] == "step"]
    first, last = (
        {name: np.mean([line["terms"][name] for line in part]) for name in ALL if name in lines[0]["terms"]}
        for part in (lines[:3], lines[-3:])
    )
    assert len(first) == 13
    assert all(last[name] < first[name] for name in first)
    assert sum(last.values()) < 0.6 * sum(first.values())


def test_the_exported_student_is_the_trained_network_and_segments(finished: Path, teacher_file: Path) -> None:
    matched = load_model(finished / MATCHED, "cpu")
    average = load_training_checkpoint(finished / CHECKPOINT)["average"]
    assert any(name.startswith("necks.") for name in average)
    state = matched.network.state_dict()
    assert state.keys() == {name[len("student.") :] for name in average if name.startswith("student.")}
    assert all(torch.equal(value, average[f"student.{name}"]) for name, value in state.items())
    decoder = load_model(teacher_file, "cpu").network.state_dict()
    assert all(torch.equal(state[name], decoder[name]) for name in state if not name.startswith("image_encoder."))

    student = load_model(finished / STUDENT, "cpu")
    assert student.config == matched.config
    tuned = student.network.state_dict()
    assert not torch.equal(tuned["sam_mask_decoder.iou_token.weight"], state["sam_mask_decoder.iou_token.weight"])
    predictor = Predictor(student)
    embedding = predictor.embed(np.zeros((72, 80), np.uint8))
    answer = predictor.predict(embedding, predictor.unconditioned(embedding), Prompt(box=(10, 10, 50, 40)), (72, 80))
    assert torch.isfinite(answer.logits).all()


def test_a_resumed_distillation_equals_an_uninterrupted_one(tmp_path: Path, teacher_file: Path, manifest: Path) -> None:
    whole = settings_for(tmp_path / "whole", teacher_file, manifest, 4)
    parts = replace(whole, output=str(tmp_path / "parts"))
    distil(whole)

    def stop(event: Mapping[str, object]) -> None:
        if event["event"] == "step" and event["step"] == 2:
            (tmp_path / "parts" / STOP).touch()

    assert distil(parts, [stop]).reason == "stop file"
    assert distil(parts).reason == "done"
    states = [load_training_checkpoint(tmp_path / name / CHECKPOINT) for name in ("whole", "parts")]
    assert states[1]["step"] == 4
    for part in ("network", "average"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())


def joint_settings(output: Path, teacher_file: Path, manifest: Path, steps: int = 2, **run: object) -> DistillConfig:
    settings = settings_for(output, teacher_file, manifest, steps, joint={"steps": 3})
    return replace(settings, run=replace(settings.run, validate_every=0, **run))


def stop_at(folder: Path, step: int, event_name: str = "step") -> Callable[[Mapping[str, object]], None]:
    def stop(event: Mapping[str, object]) -> None:
        is_that = event["event"] == event_name and event["step"] == step and event.get("kind") != "state"
        if is_that and folder.exists():
            (folder / STOP).touch()

    return stop


def test_what_is_begun_anew_ends_as_a_new_student(tmp_path: Path, teacher_file: Path, manifest: Path) -> None:
    settings = joint_settings(tmp_path, teacher_file, manifest)
    assert distil(settings).is_complete
    old = (tmp_path / STUDENT).read_bytes()
    other = replace(settings, optimiser=replace(settings.optimiser, learning_rate=0.01))
    assert distil(other, [stop_at(tmp_path, 1)], restart=True).reason == "stop file"
    assert not any((tmp_path / name).exists() for name in (STUDENT, JOINT))
    assert distil(other).is_complete
    assert (tmp_path / STUDENT).read_bytes() != old


def test_a_joint_stage_begins_anew_with_another_match_and_goes_on_with_the_same(
    tmp_path: Path, teacher_file: Path, manifest: Path
) -> None:
    settings = joint_settings(tmp_path, teacher_file, manifest)
    joint = tmp_path / JOINT
    assert distil(settings, [stop_at(joint, 1)]).trainer.folder == joint
    (tmp_path / STOP).touch()
    ended = distil(settings)  # its match is done already, and says so
    assert (ended.reason, ended.trainer.folder) == ("stop file", tmp_path)
    assert distil(settings).is_complete
    started = [event["step"] for event in read_events(joint) if event["event"] == "start"]
    assert started == [0, 2]
    longer = replace(settings, run=replace(settings.run, steps=3))
    old = (tmp_path / STUDENT).read_bytes()
    assert distil(longer).is_complete
    assert [event["step"] for event in read_events(joint) if event["event"] == "start"] == [0]
    assert (tmp_path / STUDENT).read_bytes() != old


def test_a_stop_between_the_stages_is_heard(tmp_path: Path, teacher_file: Path, manifest: Path) -> None:
    settings = joint_settings(tmp_path, teacher_file, manifest)
    ended = distil(settings, [stop_at(tmp_path, 2, "checkpoint")])
    assert (ended.reason, ended.is_complete) == ("stop file", False)
    assert not (tmp_path / JOINT).exists()
    assert not (tmp_path / STOP).exists()
    assert distil(settings).is_complete


def test_the_joint_stage_has_the_time_that_is_left(tmp_path: Path, teacher_file: Path, manifest: Path) -> None:
    settings = joint_settings(tmp_path, teacher_file, manifest, max_minutes=6 / 60)

    def dawdle(event: Mapping[str, object]) -> None:
        if event["event"] == "step" and event["step"] == 2:
            time.sleep(6)

    ended = distil(settings, [dawdle])
    assert (ended.reason, ended.is_complete) == ("time", False)
    assert not (tmp_path / JOINT).exists()
    assert distil(replace(settings, run=replace(settings.run, max_minutes=5.0))).is_complete
    assert 0 < read_file(FineTuneConfig, tmp_path / JOINT / "settings.yaml").run.max_minutes < 5


def test_the_students_card_says_what_it_learnt_from(finished: Path, manifest: Path, teacher_file: Path) -> None:
    for name in (MATCHED, STUDENT):
        card = load_model(finished / name, "cpu").card
        assert card["training_data"] == ["discs: 5 cases"]
        assert str(manifest.parent) not in str(card)


def test_memory_that_no_clip_trains_is_refused(tmp_path: Path, teacher_file: Path, manifest: Path) -> None:
    with pytest.raises(ConfigError, match=r"joint\.memory is trained, and data\.clip_share is 0"):
        settings_for(tmp_path, teacher_file, manifest, 1, joint={"steps": 1, "memory": "trained"})


def test_the_teacher_stays_as_it_is_and_may_see_larger_images(
    teacher_file: Path, manifest: Path, tmp_path: Path
) -> None:
    settings = settings_for(
        tmp_path, teacher_file, manifest, 1, teacher={"checkpoint": str(teacher_file), "image_size": 128}
    )
    task = Distill(settings)
    before = {name: value.clone() for name, value in task._teacher.state_dict().items()}
    batch = Batch(torch.zeros(2, 1, SIZE, SIZE, dtype=torch.uint8), torch.ones(2, 1, SIZE, SIZE, dtype=torch.bool))
    assert task._goal(batch.images[:, 0])["D1_1"].shape[-1] == 128 // 4
    task.loss(batch, torch.Generator(), 0.0).loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in task._teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in task._teacher.parameters())
    assert not any("teacher" in name for name in task.network.state_dict())


@pytest.mark.slow
def test_the_documented_example_runs_as_a_script(
    tmp_path: Path, teacher_file: Path, manifest: Path, repo_root: Path
) -> None:
    settings = settings_for(tmp_path / "run", teacher_file, manifest, 1)
    write_file(replace(settings, data=replace(settings.data, workers=1)), tmp_path / "distill.yaml")
    page = (repo_root / "docs" / "distillation.md").read_text()
    (tmp_path / "example.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    ended = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / STUDENT).is_file()


def test_the_command_distils(
    tmp_path: Path, teacher_file: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "distill.yaml"
    settings = settings_for(tmp_path / "out", teacher_file, manifest, 5)
    file.write_text(yaml.safe_dump(to_dict(settings)))
    arguments = ["distill", str(file), "--set", "run.steps=1", "--set", "run.validate_every=0"]
    assert main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "dropped afterwards" in printed
    assert "D3_3" in printed
    assert not (tmp_path / "out" / STUDENT).exists()
    assert main(arguments) == 0
    assert STUDENT in capsys.readouterr().out
    assert load_model(tmp_path / "out" / STUDENT, "cpu").config.image_size == SIZE
    assert main([*arguments, "--set", "match.hierra=false"]) == 2
    assert "Did you mean 'hiera'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ("distill", "distill_quick"))
def test_presets_can_be_read(name: str) -> None:
    assert read_file(DistillConfig, find_config(name, DistillConfig)).match.names
