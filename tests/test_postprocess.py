"""Tidying of masks, on shapes small enough to count."""

from __future__ import annotations

import numpy as np
import pytest

from napari_uniultra.core.postprocess import TidySettings, tidy_mask, tidy_masks


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


SHAPE = mask_of(
    "#.......",
    "..####..",
    "..#..#..",
    "..####..",
    "......##",
    "......##",
)


@pytest.mark.parametrize(
    "options, pixels",
    [
        ({}, 15),
        ({"fill_holes": True}, 17),
        ({"largest_piece": True}, 10),
        ({"largest_piece": True, "fill_holes": True}, 12),
        ({"smallest_px": 4}, 14),
        ({"smallest_px": 5}, 10),
        ({"smallest_px": 99}, 0),
        ({"smallest_px": 99, "largest_piece": True}, 0),
    ],
)
def test_steps_count_what_they_should(options: dict, pixels: int) -> None:
    before = SHAPE.copy()
    assert tidy_mask(SHAPE, TidySettings(**options)).sum() == pixels
    np.testing.assert_array_equal(SHAPE, before)


def test_a_straight_edge_stays_where_it_is_and_a_spike_goes() -> None:
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    np.testing.assert_array_equal(tidy_mask(mask, TidySettings(smooth_px=2)), mask)
    spiky = mask.copy()
    spiky[20, 20:30] = True
    smooth = tidy_mask(spiky, TidySettings(smooth_px=2))
    assert not smooth[:, 21:].any()  # a pixel may stay at its foot
    np.testing.assert_array_equal(smooth[:, :20], mask[:, :20])


@pytest.mark.parametrize("value", [False, True])
def test_nothing_and_everything_stay(value: bool) -> None:
    mask = np.full((8, 8), value)
    tidied = tidy_mask(mask, TidySettings(largest_piece=True, fill_holes=True, smooth_px=1, smallest_px=2))
    np.testing.assert_array_equal(tidied, mask)


def disc(row: float, column: float, radius: float, shape: tuple[int, int] = (80, 100)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def over_time(masks: list[np.ndarray], **options: float) -> list[np.ndarray]:
    return [mask for _, mask in tidy_masks(masks.__getitem__, range(len(masks)), TidySettings(**options))]


def test_smoothing_over_time_evens_out_what_trembles() -> None:
    """Radii 20 and 22 in turn become the radius between, but for the ends; the centre stays."""
    smooth = over_time([disc(40, 50, 20 + 2 * (t % 2)) for t in range(12)], smooth_frames=2)
    radii = [np.sqrt(mask.sum() / np.pi) for mask in smooth[3:-3]]
    np.testing.assert_allclose(radii, 21, atol=0.35)
    rows, columns = np.nonzero(smooth[6])
    assert (rows.mean(), columns.mean()) == pytest.approx((40, 50), abs=0.1)


def test_smoothing_over_time_leaves_what_is_steady_and_bridges_a_dropout() -> None:
    steady = [disc(40, 50, 20)] * 9
    for mask in over_time(steady, smooth_frames=1.5):
        np.testing.assert_array_equal(mask, steady[0])
    bridged = over_time([*steady[:4], np.zeros((80, 100), bool), *steady[5:]], smooth_frames=1.5)
    # Its own weight is 0.27: the outline retreats by 0.27 / 0.73 of the 5 px that an absent mask counts as.
    assert np.sqrt(bridged[4].sum() / np.pi) == pytest.approx(20 - 1.8, abs=0.6)
    assert bridged[0].sum() == pytest.approx(steady[0].sum(), rel=0.05)


def test_frames_far_apart_do_not_touch_each_other() -> None:
    masks = {0: disc(40, 50, 20), 50: disc(20, 30, 10)}
    tidied = dict(tidy_masks(masks.__getitem__, sorted(masks), TidySettings(smooth_frames=2)))
    for frame, mask in masks.items():
        np.testing.assert_array_equal(tidied[frame], mask)
