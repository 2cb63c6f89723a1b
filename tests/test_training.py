"""Training: configuration, data, prompts, and a run that is stopped and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_uniultra.errors import ReadError
from napari_uniultra.training.average import average_runs
from napari_uniultra.training.config import ConfigError, TrainConfig
from napari_uniultra.training.data import prompts
from napari_uniultra.training.data.augment import GreyChange, random_affine, view
from napari_uniultra.training.data.real import load_still, read_split, structures
from napari_uniultra.training.data.samples import Samples
from napari_uniultra.training.trainer import CHECKPOINT, STOP, Trainer, load_training_checkpoint

DATA = Path(__file__).parents[2] / "shared" / "data"
PRESETS = Path(__file__).parents[1] / "training" / "presets"


def disc(size: int = 64, centre: tuple[int, int] = (30, 20), radius: int = 9) -> torch.Tensor:
    y, x = np.mgrid[0:size, 0:size]
    return torch.from_numpy((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2)[None]


# Configuration


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        TrainConfig.from_dict({"output": "x", "simulated_share": 1.0, "lerning_rate": 1})


def test_real_data_must_be_named() -> None:
    with pytest.raises(ConfigError, match="simulated_share"):
        TrainConfig(output="x", simulated_share=0.5)


@pytest.mark.parametrize("path", sorted(PRESETS.glob("mini_bundled_?.yaml")), ids=lambda path: path.stem)
def test_presets_can_be_read(path: Path) -> None:
    assert TrainConfig.from_yaml(path).steps > 0


def test_a_small_input_holds_more_frames_for_the_same_cost() -> None:
    config = TrainConfig(output="x", simulated_share=1.0, image_size=256, batch=8)
    assert [config.frames_at(size) for size in (256, 512, 128)] == [8, 2, 32]


# Data


def test_palette_labels_fall_into_connected_structures_and_specks_are_dropped() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[2:12, 2:12], labels[2:12, 30:40], labels[20:30, 2:12], labels[35, 35] = 1, 1, 2, 1
    masks = structures(labels, is_palette=True)
    assert sorted(mask.sum() for mask in masks) == [100, 100, 100]


def test_a_case_in_both_parts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["a", "b"], "val": ["b"]}))
    with pytest.raises(ReadError, match="b for training and for validation"):
        read_split(tmp_path, "train")


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
def test_the_shared_split_keeps_loops_whole() -> None:
    train, val = (read_split(DATA, part) for part in ("train", "val"))
    assert not set(train) & set(val)
    assert not any("muscle" in case for case in train)
    still = load_still(DATA, next(case for case in train if "usgra" in case))
    assert len(still.masks) >= 1
    assert still.masks.shape[1:] == still.image.shape


def write_data(folder: Path) -> Path:
    """A little data folder: two stills and a loop to train on."""
    rng = np.random.default_rng(0)
    cases = ["still/a/images/0.png", "still/a/images/1.png", "cine/loop"]
    files = [*cases[:2], *(f"cine/loop/frames/{t}.png" for t in range(4))]
    for name in files:
        mask = disc(60)[0, :48].numpy() * np.uint8(255)
        mask_name = name.replace("images", "masks").replace("frames", "masks")
        for path, pixels in (
            (folder / name, rng.integers(0, 255, (48, 60), dtype=np.uint8)),
            (folder / mask_name, mask),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (folder / "splits.json").write_text(json.dumps({"train": cases, "val": []}))
    return folder


def test_a_step_always_gives_the_same_batch(tmp_path: Path) -> None:
    config = TrainConfig(
        output="x", data=str(write_data(tmp_path)), image_size=64, batch=6, clip_share=0.5, steps=8, clip_frames=(2, 3),
        simulated_share=0.0,
    )  # fmt: skip
    for step in range(8):
        first, again = Samples(config)[step], Samples(config)[step]
        assert torch.equal(first.images, again.images)
        assert torch.equal(first.masks, again.masks)
        assert first.images.dtype == torch.uint8
        assert first.masks[:, 0].any(dim=(1, 2)).all() or first.masks.shape[1] == 1


def test_a_view_keeps_image_and_mask_together() -> None:
    mask = disc(64)[0].numpy()
    image = mask.astype(np.uint8) * 255
    for seed in range(20):
        rng = np.random.default_rng(seed)
        seen, masks = view(image, mask[None], random_affine(rng, mask), 64)
        assert masks[0].sum() > 20
        assert ((seen > 0.5) != masks[0]).sum() <= 2


def test_the_black_around_the_sector_stays_black() -> None:
    image = np.zeros((32, 32), np.float32)
    image[8:24, 8:24] = 0.5
    for seed in range(30):
        rng = np.random.default_rng(seed)
        change = GreyChange.draw(rng)
        if change.mark is None:
            assert (change.apply(rng, image)[:8] == 0).all()


# Prompts


def test_tight_boxes_lie_on_pixel_edges() -> None:
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, 3:7, 5:11] = True
    assert prompts.tight_boxes(masks).tolist() == [[5, 3, 11, 7], [0, 0, 0, 0]]


def test_outward_jitter_stays_within_its_bounds() -> None:
    masks = disc(128, (60, 60), 20).repeat(200, 1, 1)
    tight = prompts.tight_boxes(masks)
    jittered = prompts.jittered_boxes(masks, torch.Generator().manual_seed(0))
    moved = (jittered - tight) * torch.tensor([-1, -1, 1, 1])
    assert moved.min() >= 0
    assert moved.max() <= 128 * 20 / 1024
    assert moved.max() > 0.8 * 128 * 20 / 1024


def test_inward_jitter_never_closes_a_box() -> None:
    masks = disc(128, (60, 60), 3).repeat(200, 1, 1)
    boxes = prompts.jittered_boxes(masks, torch.Generator().manual_seed(0), outwards=0.0)
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 0.7 * 7).all()


def test_clicks_lie_inside() -> None:
    masks = disc().repeat(50, 1, 1)
    points, labels = prompts.positive_clicks(masks, torch.Generator().manual_seed(1), 3)
    x, y = points[..., 0].long(), points[..., 1].long()
    assert labels.shape == (50, 3)
    assert masks[torch.arange(50)[:, None], y, x].all()


def test_corrections_click_on_errors() -> None:
    truth, missed_half = disc(), disc().clone()
    missed_half[:, :, :20] = False
    point, label = prompts.correction_clicks(truth, missed_half, torch.Generator().manual_seed(0))
    assert label.tolist() == [[1]]
    assert point[0, 0, 0] < 20
    point, label = prompts.correction_clicks(missed_half, truth, torch.Generator().manual_seed(0))
    assert label.tolist() == [[0]]
    _, label = prompts.correction_clicks(truth, truth, torch.Generator().manual_seed(0))
    assert label.tolist() == [[1]]


def test_a_rough_mask_resembles_its_truth() -> None:
    masks = disc(128, (60, 50), 25).repeat(8, 1, 1)
    rough = prompts.degraded_masks(masks, torch.Generator().manual_seed(0))
    overlap = (rough & masks).sum((1, 2)) / (rough | masks).sum((1, 2))
    assert (overlap > 0.5).all()
    assert (overlap < 1).all()


# Running


def tiny(folder: Path, **changes) -> TrainConfig:
    return TrainConfig(
        output=str(folder), simulated_share=1.0, simulated_stills=3, simulated_clips=2, simulated_ahead=3,
        simulated_pool=str(folder.parent / "pool"), image_size=64, batch=2, clip_share=0.5, clip_frames=(2, 2),
        steps=4, warmup=1, save_every=100, log_every=1, workers=0, **changes,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _small_simulations(monkeypatch) -> None:
    monkeypatch.setattr("napari_uniultra.training.data.pool.STILL_SIDE", 64)
    monkeypatch.setattr("napari_uniultra.training.data.pool.CLIP_SIDE", 64)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = Trainer(tiny(tmp_path / "whole"))
    whole.run()
    Trainer(tiny(tmp_path / "parts")).run(until=2)
    resumed = Trainer(tiny(tmp_path / "parts"))
    assert resumed.step == 2
    resumed.run()
    expected, got = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert all(torch.equal(whole.average[name], resumed.average[name]) for name in expected)
    logs = [(tmp_path / part / "log.jsonl").read_text().splitlines() for part in ("whole", "parts")]
    assert [json.loads(line)["loss"] for line in logs[0]] == [json.loads(line)["loss"] for line in logs[1]]


def test_the_mean_of_two_runs_lies_between_them(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("other", 2)):
        Trainer(tiny(tmp_path / name, seed=seed)).run(until=1)
    average_runs(tmp_path / "one", tmp_path / "other", tmp_path / "mean")
    one, other, mean = (
        load_training_checkpoint(tmp_path / run / CHECKPOINT)["average"] for run in ("one", "other", "mean")
    )
    assert any(not torch.equal(one[name], other[name]) for name in one)
    for name, value in mean.items():
        torch.testing.assert_close(value, (one[name] + other[name]) / 2)


def test_a_stop_file_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer(tiny(tmp_path / "run"))
    (tmp_path / "run" / STOP).touch()
    trainer.run()
    assert trainer.step == 1
    (tmp_path / "run" / STOP).unlink()
    assert Trainer(tiny(tmp_path / "run")).step == 1


def test_networks_of_several_sizes_share_their_weights(tmp_path: Path) -> None:
    trainer = Trainer(tiny(tmp_path / "run", image_sizes=(64, 96)))
    trainer.run()
    own = dict(trainer.network.named_parameters())
    for network in trainer._sized.values():
        assert all(parameter is own[name] for name, parameter in network.named_parameters())
