"""Fine-tuning: settings and presets, the network it starts from, the passes of stills and clips, and a whole run."""

from __future__ import annotations

import csv
import itertools
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from napari_uniultra.core.settings import read_file, read_settings, to_dict, write_file
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import LIGHT_MEMORY, ModelConfig, architecture
from napari_uniultra.model.load import load_model, model_at
from napari_uniultra.model.resize import set_image_size
from napari_uniultra.segment.session import CineSession
from napari_uniultra.training import average, export
from napari_uniultra.training.average import average_runs
from napari_uniultra.training.base import changed_config, load_base
from napari_uniultra.training.checkpoints import ADAPTER, CHECKPOINT, MODEL, load_training_checkpoint
from napari_uniultra.training.config import (
    ConfigError,
    FineTuneConfig,
    LossSettings,
    ModelSettings,
    find_config,
)
from napari_uniultra.training.data.samples import Batch
from napari_uniultra.training.data.settings import PromptSettings
from napari_uniultra.training.events import read_events
from napari_uniultra.training.export import export_model
from napari_uniultra.training.finetune import FineTune
from napari_uniultra.training.forward import SegmentationLoss
from napari_uniultra.training.layout import OVERLAYS, SETTINGS
from napari_uniultra.training.memory_start import start_memory_attention
from napari_uniultra.training.optim import is_memory
from napari_uniultra.training.passes import Clips, Stills, encode, recompute_trunk
from napari_uniultra.training.plan import make_plan
from napari_uniultra.training.prompting import Prompter, Prompts, carried
from napari_uniultra.training.trainer import Trainer
from napari_uniultra.training.validation import track

SIDE = 64
CANARY = "CANARY^PATIENT"
TINY = architecture("uniultra-mini", image_size=SIDE, box_prior=True, mask_prior=True)
SCRATCH = {
    "base": None,
    "architecture": "uniultra-mini",
    "image_size": SIDE,
    "box_prior": True,
    "mask_prior": True,
    "light_memory": True,
}
ONLY = dict.fromkeys(("box", "one_point", "three_points", "box_and_point", "mask", "moved_mask", "none"), 0.0)


def disc(size: int = SIDE, centre: tuple[int, int] = (30, 24), radius: int = 11) -> Tensor:
    y, x = np.mgrid[0:size, 0:size]
    return torch.from_numpy((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2)


def batch(clips: int = 2, frames: int = 1, size: int = SIDE) -> Batch:
    """Bright discs that move to the right."""
    masks = torch.stack([disc(size, (size // 2, size // 3 + 3 * t), size // 6) for t in range(frames)])
    noise = torch.randint(0, 60, masks.shape, generator=torch.Generator().manual_seed(0))
    images = (noise + 150 * masks).to(torch.uint8)
    return Batch(images.repeat(clips, 1, 1, 1), masks.repeat(clips, 1, 1, 1))


def tiny_network(config: ModelConfig = TINY) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(config)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Settings


def test_settings_come_back_from_their_own_description() -> None:
    config = read_settings(
        FineTuneConfig, {"output": "x", "model": SCRATCH, "optimiser": {"rates": {"memory": 3}, "learning_rate": 1}}
    )
    assert read_settings(FineTuneConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("group", "values", "words"),
    [
        ("optimiser", {"lerning_rate": 1}, "learning_rate"),
        ("model", {"image_size": 100}, "multiple of 32"),
        ("model", {"base": None}, "Name one of them"),
        ("loss", {"mask": "focal"}, "focal_dice"),
        ("optimiser", {"rates": {"memory": "fast"}}, "rates.memory"),
        ("run", {"early_stopping": 3}, "validate_every"),
        ("data", {"clip_frames": [6, 3]}, r"Write \[3, 6\]"),
        ("data", {"image_sizes": [96, 100]}, "image_sizes has 100. Choose multiples of 32"),
        ("run", {"precision": "fp8"}, "fp16|fp32|bf16"),
        ("run", {"steps": 0}, "out of range"),
    ],
)
def test_settings_that_cannot_be_are_named(group: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_settings(FineTuneConfig, {"output": "x", group: values})


@pytest.mark.parametrize("name", ["quick", "video", "paper", *(f"mini_bundled_{stage}" for stage in "abcdefghijklm")])
def test_presets_can_be_read(name: str) -> None:
    config = read_file(FineTuneConfig, find_config(name))
    assert config.run.steps > 0
    base = config.model.base
    means = {"f": "de", "m": "jl"}  # of stages before
    if mean := means.get(name.removeprefix("mini_bundled_")):
        assert base == f"runs/mini_bundled/{mean}"
    elif base and base.startswith("runs/"):  # a stage goes on from the output of the one before
        before = read_file(FineTuneConfig, find_config(f"{name[:-1]}{chr(ord(name[-1]) - 1)}"))
        assert before.output == base


# A mean has the configuration of the last run in it: that of g and "de" the one of e.
@pytest.mark.parametrize(("stages", "model"), [("abcde", "uniultra-mini-full"), ("abcdehijklm", "uniultra-mini")])
def test_the_stages_give_the_bundled_models_configuration(stages: str, model: str) -> None:
    config = architecture("uniultra-mini")
    for stage in stages:
        config = changed_config(config, read_file(FineTuneConfig, find_config(f"mini_bundled_{stage}")).model)
    assert config.with_(image_size=512) == load_model(model, device="cpu").config


def test_the_papers_preset_is_the_papers() -> None:
    config = read_file(FineTuneConfig, find_config("paper"))
    assert (config.optimiser.name, config.optimiser.learning_rate, config.optimiser.decay) == ("adam", 1e-4, 0.98)
    assert (config.data.batch, config.model.image_size, config.loss.mask) == (4, 1024, "focal_dice")
    assert config.prompts.jitter * 1024 == 20
    assert config.run.steps == 200 * config.optimiser.decay_every


def test_an_unknown_preset_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'papper'.*paper.*quick") as caught:
        find_config("papper")
    assert "distill" not in str(caught.value)
    assert "card" not in str(caught.value)
    with pytest.raises(ConfigError, match="that is a preset for `uniultra distill`"):
        find_config("distill")


def test_memory_that_no_clip_trains_is_told(tmp_path: Path, manifest: Path) -> None:
    config = settings_of(tmp_path, manifest, SCRATCH, data={"clip_share": 0.0}, run={"steps": 1})
    task, trainer = fit(config)
    (notice,) = (event["text"] for event in read_events(tmp_path) if event["event"] == "notice")
    assert "only clips train the memory" in notice
    assert notice in make_plan(trainer).warnings
    untrained = load_base(config.model, config.run.seed).network.state_dict()
    assert all(torch.equal(v, untrained[n]) for n, v in task.network.state_dict().items() if is_memory(n))
    assert not settings_of(tmp_path, manifest, SCRATCH).warnings


# The network to start from


def test_a_base_keeps_its_weights_at_another_size_and_its_priors(tmp_path: Path) -> None:
    network = tiny_network()
    path = tmp_path / "tiny.safetensors"
    sha256 = save_checkpoint(path, network, TINY, {"licence": "Apache-2.0"})
    base = load_base(ModelSettings(base=str(path), image_size=96))
    assert base.config == TINY.with_(image_size=96)
    assert base.sha256 == sha256
    assert all(torch.equal(value, base.network.state_dict()[name]) for name, value in network.state_dict().items())


def test_adapters_that_the_base_lacks_are_new_and_change_nothing_yet(tmp_path: Path) -> None:
    config = TINY.with_(adapter=None, architecture="plain")
    plain = tiny_network(config)
    save_checkpoint(tmp_path / "plain.safetensors", plain, config, {})
    base = load_base(ModelSettings(base=str(tmp_path / "plain.safetensors"), architecture="uniultra-mini"))
    assert base.config == TINY
    images = batch().images
    with torch.inference_mode():
        torch.testing.assert_close(encode(base.network, images).features, encode(plain, images).features)


def test_a_light_memory_is_a_part_of_the_full_one(tmp_path: Path) -> None:
    full = tiny_network()
    save_checkpoint(tmp_path / "full.safetensors", full, TINY, {})
    base = load_base(ModelSettings(base=str(tmp_path / "full.safetensors"), light_memory=True))
    assert base.config == TINY.with_(memory=LIGHT_MEMORY)
    assert base.sha256 == ""  # an adapter could not be put on the full one
    own, last = base.network.memory_attention.layers[-1], full.memory_attention.layers[-1]
    assert torch.equal(own.self_attn.q_proj.weight, last.self_attn.q_proj.weight)
    light = SegmentationLoss(base.config, PromptSettings(), LossSettings())(base.network, batch(1, 3), generator(), 0.0)
    assert torch.isfinite(light.loss)


def test_random_weights_follow_from_the_seed_and_nothing_else() -> None:
    settings = ModelSettings(base=None, architecture="uniultra-mini", image_size=64, width=8)
    state = torch.get_rng_state()
    one, same, other = (load_base(settings, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.config.embed_dim == 8
    names = [name for name, value in one.network.named_parameters() if value.numel() > 1 and value.std() > 0]
    assert all(torch.equal(one.network.get_parameter(n), same.network.get_parameter(n)) for n in names)
    assert not torch.equal(one.network.get_parameter(names[0]), other.network.get_parameter(names[0]))


def test_a_missing_base_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="no model or file"):
        load_base(ModelSettings(base="nowhere"))


@pytest.mark.parametrize("rotary_grid", [None, 4])
def test_a_network_of_another_size_computes_what_one_built_for_it_does(rotary_grid: int | None) -> None:
    small = tiny_network(TINY.with_(rotary_grid=rotary_grid))
    large = build_network(TINY.with_(image_size=96, rotary_grid=rotary_grid))
    large.load_state_dict(small.state_dict())
    clip = batch(1, 3, 96)
    set_image_size(small, 96)
    box = Prompter(PromptSettings(), TINY).boxes(torch.tensor([[20.0, 30, 50, 60]]), 96, True)
    with torch.inference_mode():
        expected, got = (track_logits(network, clip.images, box) for network in (large, small))
    torch.testing.assert_close(got, expected)


def track_logits(network: nn.Module, images: Tensor, prompts: Prompts) -> Tensor:
    encoded, clips, logits = encode(network, images), Clips(network), []
    for frame in range(images.shape[1]):
        answer = clips.ask(frame, encoded.at(frame), prompts if frame == 0 else None, first=frame == 0)
        clips.keep(frame, encoded.at(frame), answer, prompts if frame == 0 else None, conditions=frame == 0)
        logits.append(answer.best)
    return torch.cat(logits)


# Passes: what training computes is what the viewer computes


@pytest.mark.parametrize("with_prior", [False, True])
def test_tracking_equals_the_viewers(with_prior: bool, tmp_path: Path) -> None:
    config = TINY.with_(mask_prior=with_prior)
    save_checkpoint(tmp_path / "tiny.safetensors", tiny_network(config), config, {})
    model = load_model(tmp_path / "tiny.safetensors", "cpu")
    with torch.no_grad():  # so that an untrained network sees the object, in one piece
        model.network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    images = batch(1, 4).images[0]
    if with_prior:  # the viewer also follows motion, drops crumbs, looks closely and smooths: there is none of that
        model, images = model_at("uniultra-mini", "cpu", 256), batch(1, 1, 256).images[0].repeat(4, 1, 1)
        model = replace(model, config=model.config.with_(close_views=False, smooth=0.0))
    side = images.shape[-1]
    box = tuple(side * share for share in (0.19, 0.3, 0.5, 0.7))
    session = CineSession(Cine(images.numpy()), model)
    session.add_box(1, 0, box)
    expected = [session.masks[0] == 1, *(step.masks[1] for step in session.propagate("forward") if step.frame > 0)]
    prompts = Prompter(PromptSettings(), model.config).boxes(torch.tensor([box]), side, True)
    with torch.inference_mode():
        masks = track(model.network, images, prompts, with_prior)
    assert 0 < masks.mean() < 1
    differing = [(ours != np.asarray(theirs)).mean() for ours, theirs in zip(masks, expected, strict=True)]
    assert max(differing) < 0.002  # the viewer keeps its memory in bfloat16


@pytest.mark.parametrize("frames", [1, 3])
def test_recomputing_the_trunk_gives_the_same_gradients(frames: int) -> None:
    loss = SegmentationLoss(TINY, PromptSettings(), LossSettings())
    gradients = []
    for recompute in (False, True):
        network = tiny_network().train()
        if recompute:
            recompute_trunk(network)
        torch.manual_seed(0)
        loss(network, batch(1, frames), generator(), 0.0).loss.backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_stills_train_no_memory_and_clips_do() -> None:
    loss = SegmentationLoss(TINY, PromptSettings(**{**ONLY, "box": 1.0}), LossSettings())
    trained = {}
    for frames in (1, 3):
        network = tiny_network().train()
        loss(network, batch(1, frames), generator(), 0.0).loss.backward()
        trained[frames] = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert not any(name.startswith(("memory_", "maskmem")) for name in trained[1])
    assert any(name.startswith("memory_attention") for name in trained[3])
    assert any(name.startswith("memory_encoder") for name in trained[3])
    assert "sam_mask_decoder.iou_prediction_head.layers.0.weight" in trained[1] & trained[3]


def test_the_same_seed_gives_the_same_loss() -> None:
    network = tiny_network()
    loss = SegmentationLoss(TINY, PromptSettings(conditioning_frames=2, clip_corrections=0.5), LossSettings())
    for frames in (1, 4):
        first, again, other = (loss(network, batch(2, frames), generator(seed), 0.5) for seed in (1, 1, 2))
        assert first.loss.item() == again.loss.item() != other.loss.item()
        assert first.dice == again.dice


def test_corrections_and_conditioning_frames_are_drawn_as_asked() -> None:
    network = tiny_network()
    prompts = {**ONLY, "box": 1.0, "prior_start": 0.0, "prior_end": 0.0}

    def names(frames: int, **changes: Any) -> list[set[str]]:
        loss = SegmentationLoss(TINY, PromptSettings(**{**prompts, **changes}), LossSettings())
        with torch.no_grad():
            return [set(loss(network, batch(1, frames), generator(seed), 0.0).dice) for seed in range(6)]

    assert names(1, corrections=0.0) == [{"box"}] * 6
    assert names(1, corrections=1.0) == [{"box", "correction"}] * 6
    assert all("first box" in found for found in names(3, clip_corrections=0.0))
    assert all(any("corrected" in name for name in found) for found in names(3, clip_corrections=1.0))
    loss = SegmentationLoss(TINY, PromptSettings(**prompts, conditioning_frames=3), LossSettings())
    masks = batch(2, 5).masks.clone()
    masks[1, 3] = False  # an object that is out of sight cannot be prompted
    drawn = [tuple(loss._conditioning(masks, generator(seed))) for seed in range(60)]
    assert {len(frames) for frames in drawn} == {1, 2, 3}
    assert set(itertools.chain(*drawn)) == {0, 1, 2, 4}
    assert all(frames[0] == 0 for frames in drawn)


# Prompts by weight


def test_kinds_are_drawn_by_weight_without_repeats() -> None:
    prompter = Prompter(PromptSettings(**{**ONLY, "box": 3.0, "one_point": 1.0, "none": 1.0}), TINY)
    drawn = [prompter.for_stills(disc()[None], generator(seed), 0.0) for seed in range(300)]
    names = [[prompts.name for prompts in pair] for pair in drawn]
    assert all(len(set(pair)) == 2 for pair in names)
    first = [pair[0] for pair in names]
    assert first.count("box+prior") / len(first) == pytest.approx(0.6, abs=0.08)
    only = Prompter(PromptSettings(**{**ONLY, "three_points": 1.0}), TINY).for_stills(disc()[None], generator(), 0.0)
    assert [prompts.name for prompts in only] == ["3 clicks"]
    assert only[0].points.shape == (1, 3, 2)


def test_the_box_prior_fades_and_is_never_given_to_a_network_that_does_not_know_it() -> None:
    settings = PromptSettings(prior_start=1.0, prior_end=0.4, prior_fade=0.5)
    prompter = Prompter(settings, TINY)
    assert [prompter.prior_share(progress) for progress in (0, 0.25, 0.5, 1)] == pytest.approx([1, 0.7, 0.4, 0.4])
    plain = Prompter(settings, TINY.with_(box_prior=False))
    assert prompter.box(disc()[None], generator(), 0.0).dense is not None
    assert plain.box(disc()[None], generator(), 0.0).dense is None


def test_a_clip_without_a_mask_prior_is_not_given_one() -> None:
    loss = SegmentationLoss(TINY.with_(mask_prior=False), PromptSettings(), LossSettings())
    with torch.no_grad():
        found = [set(loss(tiny_network(), batch(1, 3), generator(seed), 0.0).dice) for seed in range(4)]
    assert not any("tracked, carried" in names for names in found)
    assert carried(torch.zeros(2, 1, 16, 16)).labels.tolist() == [[-1], [-1]]


# The memory's start


def test_the_memorys_start_attends_to_the_same_place() -> None:
    network = tiny_network()
    images = torch.randn(4, 3, SIDE, SIDE, generator=generator())
    start_memory_attention(network, images)
    with torch.inference_mode():
        encoded = encode(network, batch(1, 2).images)
        coarse, position = encoded.at(0).features[-1], encoded.at(0).positions[-1]
        memory = torch.zeros(16, 1, 64)
        out = network.memory_attention(curr=coarse, curr_pos=position, memory=memory, memory_pos=memory)
    wanted = (coarse + network.no_mem_embed).flatten()
    assert torch.corrcoef(torch.stack([out.flatten(), wanted]))[0, 1] > 0.8


# A whole run


def write_data(folder: Path) -> Path:
    """A manifest of stills and two short loops, with patients' names in the files' names."""
    rng = np.random.default_rng(0)
    rows = []

    def write(stem: str, masks_stem: str, x: int) -> None:
        mask = disc(64, (30, x), 11).numpy()
        image = np.clip(rng.normal(60, 20, mask.shape) + 90 * mask, 0, 255).astype(np.uint8)
        for name, pixels in ((stem, image), (masks_stem, mask.astype(np.uint8) * 255)):
            path = folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)

    for number in range(6):
        write(f"images/{CANARY}_{number}", f"masks/{CANARY}_{number}", int(rng.integers(20, 44)))
        part = "train" if number < 4 else "val"
        names = (f"images/{CANARY}_{number}.png", f"masks/{CANARY}_{number}.png")
        rows.append((*names, f"s{number}", "stills", part))
    for number, part in enumerate(("train", "val")):
        for frame in range(4):
            write(f"loop{number}/frames/{frame}", f"loop{number}/masks/{frame}", 20 + 4 * frame)
        rows.append((f"loop{number}/frames", f"loop{number}/masks", f"l{number}", "loops", part))
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("frames", "masks", "subject", "source", "part"), *rows])
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(path, tiny_network(), TINY, {"licence": "Apache-2.0", "training_data": ["Nothing"]})
    return str(path)


def settings_of(output: Path, manifest: Path, model: Mapping[str, Any], **changes: Mapping[str, Any]) -> FineTuneConfig:
    values: dict[str, Any] = {
        "output": str(output),
        "model": model,
        "method": {"name": "full", "memory": "trained"},
        "data": {"manifests": [str(manifest)], "batch": 2, "workers": 0, "clip_share": 0.5, "clip_frames": [2, 2]},
        "optimiser": {"learning_rate": 1e-3},
        "run": {"steps": 4, "device": "cpu", "log_every": 1},
    }
    for group, own in changes.items():
        values[group] = {**values.get(group, {}), **own}
    return read_settings(FineTuneConfig, values)


def fit(config: FineTuneConfig) -> tuple[FineTune, Trainer]:
    task = FineTune(config)
    trainer = Trainer(config, task)
    trainer.fit()
    return task, trainer


def test_a_resumed_fine_tuning_equals_an_uninterrupted_one(tmp_path: Path, manifest: Path) -> None:
    whole = settings_of(tmp_path / "whole", manifest, SCRATCH)
    part = settings_of(tmp_path / "part", manifest, SCRATCH)
    fit(whole)
    trainer = Trainer(part, FineTune(part), listeners=[lambda event: stop_at_two(event, tmp_path / "part")])
    assert trainer.fit() == "stop file"
    fit(part)
    states = [load_training_checkpoint(tmp_path / name / CHECKPOINT) for name in ("whole", "part")]
    assert [state["step"] for state in states] == [4, 4]
    for kind in ("network", "average"):
        assert all(torch.equal(value, states[1][kind][name]) for name, value in states[0][kind].items())


def stop_at_two(event: Mapping[str, Any], folder: Path) -> None:
    if event["event"] == "step" and event["step"] == 1:
        (folder / "STOP").touch()


@pytest.mark.parametrize("method", ["ch_adapter", "lora", "vpt"])
def test_a_run_learns_validates_and_exports_what_the_viewer_opens(
    tmp_path: Path, manifest: Path, tiny_model: str, method: str
) -> None:
    run: dict[str, Any] = {"steps": 2, "validate_every": 1, "validation_frames": 4, "overlays": 2, "keep": "last"}
    run["activation_checkpointing"] = method == "lora"
    config = settings_of(
        tmp_path / "run",
        manifest,
        {"base": tiny_model},
        method={"name": method, "memory": "frozen"},
        run=run,
        optimiser={"ema_decay": 0.0},
    )
    before = load_model(tiny_model, "cpu").network.state_dict()
    task, trainer = fit(config)
    assert (tmp_path / "run" / MODEL).exists() == task.method.can_merge
    (tmp_path / "run" / "base.safetensors").symlink_to(tiny_model)
    exported = load_model(tmp_path / "run" / (MODEL if task.method.can_merge else ADAPTER), "cpu")
    adapted = load_model(tmp_path / "run" / ADAPTER, "cpu")
    images = batch().images
    trainer.network.eval()
    prompts = Prompter(PromptSettings(), TINY).boxes(torch.tensor([[12.0, 18, 36, 44]] * 2), SIDE, True)
    with torch.inference_mode():
        answers = [
            Stills(network, encode(network, images)).ask(prompts, multimask=False).best
            for network in (trainer.network, exported.network, adapted.network)
        ]
    torch.testing.assert_close(answers[1], answers[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(answers[2], answers[0], atol=1e-4, rtol=1e-4)
    after = trainer.network.state_dict()
    assert any(not torch.equal(value, after[name]) for name, value in before.items() if name in after)
    assert all(torch.equal(value, after[name]) for name, value in before.items() if is_memory(name))
    found = [event for event in read_events(tmp_path / "run") if event["event"] == "validation"]
    assert [event["step"] for event in found] == [0, 1, 2]
    assert {"dice", "iou", "iou_error", "dice/stills", "dice/loops", "tracked_dice"} == set(found[0]["metrics"])
    assert all(0 <= value <= 1 for value in found[0]["metrics"].values())
    assert exported.card["training_data"] == ["Nothing", "loops: 1 case", "stills: 4 cases"]
    for path in (tmp_path / "run").rglob("*"):
        assert CANARY not in path.name
        assert path.is_symlink() or not path.is_file() or CANARY.encode() not in path.read_bytes()
    assert len(list((tmp_path / "run" / "overlays").iterdir())) == 6


def test_a_method_that_could_not_be_saved_is_refused_at_once(tmp_path: Path, manifest: Path) -> None:
    config = settings_of(tmp_path / "run", manifest, SCRATCH, method={"name": "vpt", "memory": "frozen"})
    with pytest.raises(ConfigError, match="could not be saved"):
        FineTune(config)


def test_stages_go_on_from_each_other_and_end_as_a_model(tmp_path: Path, manifest: Path) -> None:
    fit(settings_of(tmp_path / "a", manifest, SCRATCH, run={"steps": 1}))
    stages = []
    for name, seed in (("b", 2), ("c", 3)):
        model = {"base": str(tmp_path / "a"), "weights": "network", "start_memory": name == "b"}
        sizes = {"image_sizes": [64, 96]}
        stages.append(settings_of(tmp_path / name, manifest, model, run={"steps": 2, "seed": seed}, data=sizes))
        fit(stages[-1])
    average_runs([tmp_path / "b", tmp_path / "c"], tmp_path / "mean")
    one, other, mean = (load_training_checkpoint(tmp_path / run / CHECKPOINT)["average"] for run in ("b", "c", "mean"))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    for name, value in mean.items():
        torch.testing.assert_close(value, (one[name] + other[name]) / 2)
    average_runs([tmp_path / "b", tmp_path / "c", tmp_path / "c"], tmp_path / "weighted")  # named twice, counts twice
    for name, value in load_training_checkpoint(tmp_path / "weighted" / CHECKPOINT)["average"].items():
        torch.testing.assert_close(value, (one[name] + 2 * other[name]) / 3)
    export_model(tmp_path / "mean", {"licence": "Apache-2.0"}, tmp_path / "packed", 96)
    packed = load_model(tmp_path / "packed", "cpu")
    assert packed.config == TINY.with_(image_size=96, memory=LIGHT_MEMORY)
    for name, value in packed.network.state_dict().items():
        torch.testing.assert_close(value, mean[name], atol=2e-3, rtol=2e-3)  # stored as fp16


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", [MODEL, SETTINGS, f"{OVERLAYS}/figure.png"])
def test_files_that_no_run_made_are_neither_deleted_nor_replaced(
    name: str, restart: bool, tmp_path: Path, manifest: Path, tiny_model: str
) -> None:
    theirs = tmp_path / "run" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"somebody's")
    config = settings_of(tmp_path / "run", manifest, {"base": tiny_model})
    with pytest.raises(ConfigError, match=rf"holds {name.split('/')[0]}.*no training made it there"):
        Trainer(config, FineTune(config), restart=restart)
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == [theirs.name]
    assert theirs.read_bytes() == b"somebody's"


def test_what_a_run_begins_with_is_neither_deleted_nor_replaced(
    tmp_path: Path, manifest: Path, tiny_model: str
) -> None:
    inside = tmp_path / "run" / MODEL
    inside.parent.mkdir()
    inside.write_bytes(Path(tiny_model).read_bytes())
    config = settings_of(tmp_path / "run", manifest, {"base": str(inside)})
    with pytest.raises(ConfigError, match=f"{MODEL} lies in the output folder"):
        Trainer(config, FineTune(config), restart=True)
    assert inside.read_bytes() == Path(tiny_model).read_bytes()
    beside = settings_of(tmp_path / "run" / "next", manifest, {"base": str(inside)})
    assert Trainer(beside, FineTune(beside)).step == 0


def test_a_card_says_what_the_run_before_learnt_from_and_not_where_it_lies(
    tmp_path: Path, manifest: Path, tiny_model: str
) -> None:
    fit(settings_of(tmp_path / "first", manifest, {"base": tiny_model}, run={"steps": 1}))
    fit(
        settings_of(
            tmp_path / "second",
            manifest,
            {"base": str(tmp_path / "first")},
            data={"simulated_share": 0.5, "simulated_stills": 1, "simulated_clips": 1},
            run={"steps": 1},
        )
    )
    card = load_model(tmp_path / "second" / MODEL, "cpu").card
    assert card["description"] == f"{TINY.architecture}, fine-tuned by full from first"
    assert card["licence"] == "Apache-2.0"
    simulated = "Simulated ultrasound, made by this package's simulator"
    assert card["training_data"] == ["Nothing", "loops: 1 case", "stills: 4 cases", simulated]


def test_a_manifest_that_is_edited_meanwhile_spoils_no_export(tmp_path: Path) -> None:
    manifest = write_data(tmp_path / "data")
    task = FineTune(settings_of(tmp_path / "run", manifest, SCRATCH))
    manifest.write_text("neither here nor there")
    (tmp_path / "run").mkdir()
    task.export(task.network.state_dict(), tmp_path / "run")
    assert "stills: 4 cases" in load_model(tmp_path / "run" / MODEL, "cpu").card["training_data"]


def test_a_run_whose_method_adds_parts_is_gone_on_from_by_what_it_exported(
    tmp_path: Path, manifest: Path, tiny_model: str
) -> None:
    method = {"name": "lora", "memory": "frozen"}
    fit(settings_of(tmp_path / "run", manifest, {"base": tiny_model}, method=method, run={"steps": 1}))
    base = load_base(ModelSettings(base=str(tmp_path / "run")))
    exported = load_model(tmp_path / "run" / MODEL, "cpu")
    assert base.sha256 == exported.sha256
    for name, value in exported.network.state_dict().items():
        assert torch.equal(base.network.state_dict()[name], value)
    for name in (MODEL, ADAPTER):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(CheckpointError, match="has exported nothing yet"):
        load_base(ModelSettings(base=str(tmp_path / "run")))


def test_the_programs_for_runs_say_what_is_wrong_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "card.yaml"
    card.write_text("licence: Apache-2.0")
    for program, arguments, words in (
        (average.main, [], "usage: python -m napari_uniultra.training.average RUN"),
        (average.main, ["none", "none", str(tmp_path / "out")], "no training checkpoint none"),
        (export.main, ["none"], "usage: python -m napari_uniultra.training.export RUN"),
        (export.main, ["none", str(card), str(tmp_path / "out"), "large"], "The input size is 'large'"),
        (export.main, ["none", str(tmp_path / "no.yaml"), str(tmp_path / "out")], "no.yaml cannot be read"),
        (export.main, ["none", str(card), str(tmp_path / "out")], "no training checkpoint none"),
    ):
        assert program(arguments) == 2
        told = capsys.readouterr().err
        assert words in told
        assert told.count("\n") == 1


@pytest.mark.slow
def test_the_documented_example_runs_as_a_script(tmp_path: Path, manifest: Path, repo_root: Path) -> None:
    write_file(settings_of(tmp_path / "run", manifest, SCRATCH, data={"workers": 1}), tmp_path / "my.yaml")
    example = re.search(r"## From Python\n\n((?: {4}.*\n|\n)+)", (repo_root / "docs" / "training.md").read_text())[1]
    (tmp_path / "example.py").write_text(textwrap.dedent(example).replace("500", "1"))
    ended = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / MODEL).is_file()


def test_a_trained_network_segments_what_it_has_seen(tmp_path: Path) -> None:
    """Forty steps on one picture: the loss must reach the weights, and the prompt the masks."""
    network = tiny_network().train()
    loss = SegmentationLoss(TINY, PromptSettings(**{**ONLY, "box": 1.0}, corrections=0.0), LossSettings())
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    own = batch(2)
    dice = []
    for step in range(40):
        torch.manual_seed(step)
        outcome = loss(network, own, generator(step), 0.0)
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        dice.append(float(np.mean(outcome.dice["box+prior"])))
    assert np.mean(dice[-5:]) > 0.85 > 0.5 > np.mean(dice[:3])
