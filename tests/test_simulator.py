"""The ultrasound simulator: shapes, determinism, variety."""

from __future__ import annotations

import numpy as np
import pytest

from napari_uniultra.training.data.pool import SimulatedPool
from napari_uniultra.training.data.simulate import motion, simulate_clip, simulate_still, warp


@pytest.mark.parametrize("seed", range(12))
def test_a_still_has_structures_of_some_size(seed: int) -> None:
    image, masks = simulate_still(seed, size=96)
    assert image.shape == (96, 96)
    assert image.dtype == np.uint8
    assert masks.dtype == bool
    assert masks.shape[1:] == (96, 96)
    assert all(mask.mean() > 0.001 for mask in masks)
    assert image.std() > 3


def test_the_seed_decides_everything() -> None:
    first, again, other = (simulate_clip(seed, frames=3, size=64) for seed in (7, 7, 8))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_a_still_is_the_first_frame_of_its_clip() -> None:
    image, masks = simulate_still(5, size=64)
    images, clip_masks = simulate_clip(5, frames=1, size=64)
    assert np.array_equal(image, images[0])
    assert np.array_equal(masks, clip_masks[0])


def test_frames_of_a_clip_differ_and_keep_the_number_of_structures() -> None:
    images, masks = simulate_clip(3, frames=4, size=64)
    assert images.shape == (4, 64, 64)
    assert masks.shape[0] == 4
    assert masks[0].any(axis=(1, 2)).all()
    assert all((images[0] != frame).mean() > 0.2 for frame in images[1:])


def test_a_mask_moves_with_its_tissue() -> None:
    ramp = np.tile(np.arange(32, dtype=np.float32), (32, 1))
    moved = warp(ramp[None], np.stack([np.zeros((32, 32)), np.full((32, 32), 3.0)]).astype(np.float32))[0]
    assert moved[:, 5].tolist() == pytest.approx([8.0] * 32, abs=1e-3)  # displacement points to where it comes from


def test_motion_starts_at_rest() -> None:
    fields = motion(np.random.default_rng(0), 32, 5)
    assert fields.shape == (5, 2, 32, 32)
    assert np.abs(fields[0]).max() < np.abs(fields[4]).max() + 32 * 0.2


def test_the_pool_gives_the_same_from_disk_and_repairs_damage(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("napari_uniultra.training.data.pool.STILL_SIDE", 64)
    made = SimulatedPool(tmp_path).still(4)
    stored = SimulatedPool(tmp_path).still(4)
    assert np.array_equal(made[0], stored[0])
    assert np.array_equal(made[1], stored[1])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    repaired = SimulatedPool(tmp_path).still(4)
    assert np.array_equal(made[1], repaired[1])
