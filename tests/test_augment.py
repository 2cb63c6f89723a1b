"""Augmentation: image and mask stay together, a loop is changed as one, and every change does what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_uniultra.training.data.augment import change_grey, draw_grey_change, draw_view, look, view

NEUTRAL = replace(
    draw_grey_change(np.random.default_rng(0), 0.0), gamma=1, gain=1, offset=0, side_gain=0, blur=0, noise=0
)


def disc(size: int = 64, x: float = 20, y: float = 30, radius: float = 9) -> torch.Tensor:
    rows, columns = np.mgrid[0:size, 0:size]
    return torch.from_numpy((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# The view


def test_a_view_keeps_image_and_mask_together() -> None:
    mask = disc(128, 40, 60, 18)
    images, masks = (mask * 255).to(torch.uint8)[None, None].repeat(20, 1, 1, 1), mask[None, None].repeat(20, 1, 1, 1)
    box = np.array([22, 42, 59, 79]) / 128
    views = np.stack([draw_view(np.random.default_rng(seed), box) for seed in range(20)])
    seen, found = view(images, masks, views, 64)
    assert (found.sum(dim=(2, 3)) > 20).all()
    assert ((seen > 0.5) != found).sum(dim=(2, 3)).max() <= 2


def test_close_views_show_all_of_a_structure_or_a_part_alone() -> None:
    mask = disc(256, 128, 120, 30)
    box = np.array([98, 90, 159, 151]) / 256
    views = np.stack([draw_view(np.random.default_rng(seed), box, 0.0, is_close=True) for seed in range(200)])
    images, masks = torch.zeros(200, 1, 256, 256, dtype=torch.uint8), mask.expand(200, 1, 256, 256)
    _, found = view(images, masks, views, 128)
    sides = np.sqrt(np.linalg.det(views[:, :, :2]))  # of the frame's
    seen = found.sum(dim=(1, 2, 3)).numpy() * (2 * sides) ** 2 / int(mask.sum())
    is_close = sides > 1.5 * 61 / 256
    assert (seen[is_close] > 0.95).all()
    assert (seen[~is_close] < 0.95).mean() > 0.8  # the rest is just as large as the view
    assert 0.25 < 1 - is_close.mean() < 0.45


def test_a_view_is_what_its_matrix_says() -> None:
    image = torch.arange(64, dtype=torch.uint8).expand(1, 1, 64, 64)
    zoomed = np.array([[[0.5, 0, 0.25], [0, 0.5, 0]]])  # half of the frame, a quarter of its half-width to the right
    seen, _ = view(image, torch.zeros(1, 1, 64, 64, dtype=torch.bool), zoomed, 32)
    assert torch.allclose(seen[0, 0, 0] * 255, torch.arange(32.0) + 24, atol=1e-3)  # pixel for pixel, from column 24


def test_shrinking_averages_speckle() -> None:
    noise = torch.randint(0, 256, (1, 1, 256, 256), generator=generator(), dtype=torch.uint8)
    whole = np.eye(2, 3)[None]
    seen, _ = view(noise, torch.zeros_like(noise, dtype=torch.bool), whole, 64)
    expected = noise[0, 0].float().view(64, 4, 64, 4).mean(dim=(1, 3)) / 255
    assert torch.allclose(seen[0, 0], expected, atol=0.02)


def test_the_structure_stays_in_sight() -> None:
    masks = torch.stack([disc(96, x, y, 4) for x in (6, 48, 90) for y in (6, 48, 90)])[:, None]
    images = torch.full((9, 1, 96, 96), 100, dtype=torch.uint8)
    for seed in range(15):
        _, found = look(np.random.default_rng(seed), images, masks, 64)
        assert (found.sum(dim=(2, 3)) > 10).all()


def test_without_strength_only_the_size_changes() -> None:
    mask = disc(64)[None, None]
    images = torch.randint(0, 256, (1, 1, 64, 64), generator=generator(), dtype=torch.uint8)
    seen, found = look(np.random.default_rng(0), images, mask, 64, strength=0.0)
    assert torch.equal(found, mask)
    assert (seen.int() - images.int()).abs().max() <= 1


def test_all_frames_of_a_loop_get_the_same() -> None:
    image, mask = torch.randint(1, 200, (64, 64), generator=generator()).to(torch.uint8), disc(64)
    images, masks = image.expand(2, 5, 64, 64), mask.expand(2, 5, 64, 64)
    for seed in range(10):
        _, found = look(np.random.default_rng(seed), images, masks, 48)
        assert (found == found[:, :1]).all()
    # All but the noise of the electronics and of speckle, which differ from frame to frame.
    changes = [replace(draw_grey_change(np.random.default_rng(seed)), noise=0, speckle=0) for seed in (3, 4)]
    seen = change_grey(images / 255, changes, generator())
    assert (seen == seen[:, :1]).all()
    assert (seen[0] != seen[1]).any()  # the two loops get different ones


def test_the_same_generator_gives_the_same() -> None:
    images, masks = torch.full((2, 2, 64, 64), 90, dtype=torch.uint8), disc(64).expand(2, 2, 64, 64)
    first, again, other = (look(np.random.default_rng(seed), images, masks, 64) for seed in (5, 5, 6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


# The grey values


def changed(image: torch.Tensor, **settings) -> torch.Tensor:
    return change_grey(image[None, None], [replace(NEUTRAL, **settings)], generator())[0, 0]


def test_nothing_changes_without_settings() -> None:
    image = torch.rand(32, 32, generator=generator())
    assert torch.allclose(changed(image), image, atol=1e-6)


def test_gain_and_gamma() -> None:
    image = torch.full((32, 32), 0.25)
    assert torch.allclose(changed(image, gain=2.0), torch.full((32, 32), 0.5))
    assert torch.allclose(changed(image, gamma=0.5), torch.full((32, 32), 0.5))


def test_time_gain_compensation_depends_on_depth_alone() -> None:
    tgc = np.array([[-1], [-0.5], [0], [0], [0.5], [0.5]], np.float32)
    made = changed(torch.full((64, 64), 0.3), tgc=tgc)
    assert torch.allclose(made, made[:, :1].expand(64, 64))
    assert made[0, 0] == pytest.approx(0.3 * np.exp(-1), rel=1e-3)
    assert made[-1, 0] == pytest.approx(0.3 * np.exp(0.5), rel=1e-3)


def test_a_shadow_darkens_a_column() -> None:
    made = changed(torch.full((64, 64), 0.5), shadow=(0.25, 0.05, 0.8))
    assert made[:, 16].max() < 0.15
    assert made[:, 48].min() > 0.499


def test_haze_brightens_most_near_the_probe() -> None:
    made = changed(torch.full((64, 64), 0.2), haze=0.3, haze_grid=np.zeros((6, 6), np.float32))
    assert (made > 0.2).all()
    assert made[0, 0] > made[-1, 0] + 0.05


def test_speckle_multiplies_with_the_stated_strength_and_differs_from_frame_to_frame() -> None:
    image = torch.full((1, 2, 128, 128), 0.5)
    made = change_grey(image, [replace(NEUTRAL, speckle=0.2, speckle_size=1.0)], generator())
    assert float(made.std() / made.mean()) == pytest.approx(0.2, rel=0.1)
    correlation = torch.corrcoef(made[0].flatten(1))[0, 1]
    assert abs(float(correlation)) < 0.1
    neighbours = torch.corrcoef(torch.stack([made[0, 0, :, 1:].flatten(), made[0, 0, :, :-1].flatten()]))[0, 1]
    assert float(neighbours) > 0.5  # grains, not single pixels


def test_the_black_around_the_scan_stays_black() -> None:
    image = torch.zeros(20, 1, 32, 32)
    image[..., 8:24, 8:24] = 0.5
    changes = [replace(draw_grey_change(np.random.default_rng(seed)), mark=(0,) * 5) for seed in range(20)]
    made = change_grey(image, changes, generator())
    assert not made[..., :8, :].any()
    assert not made[..., :8].any()


def test_rare_changes_are_rare() -> None:
    drawn = [draw_grey_change(np.random.default_rng(seed)) for seed in range(1000)]
    shares = [np.mean([bool(value(change)) for change in drawn]) for value in (
        lambda c: c.shadow[2], lambda c: c.haze, lambda c: c.speckle, lambda c: c.mark[3]
    )]  # fmt: skip
    assert shares == pytest.approx([0.2, 0.1, 0.15, 0.15], abs=0.04)
