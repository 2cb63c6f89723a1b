"""Tidying of masks, on shapes small enough to count."""

from __future__ import annotations

import numpy as np
import pytest

from napari_uniultra.core.postprocess import tidy_mask


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
    assert tidy_mask(SHAPE, **options).sum() == pixels
    np.testing.assert_array_equal(SHAPE, before)


def test_a_straight_edge_stays_where_it_is_and_a_spike_goes() -> None:
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    np.testing.assert_array_equal(tidy_mask(mask, smooth_px=2), mask)
    spiky = mask.copy()
    spiky[20, 20:30] = True
    smooth = tidy_mask(spiky, smooth_px=2)
    assert not smooth[:, 21:].any()  # a pixel may stay at its foot
    np.testing.assert_array_equal(smooth[:, :20], mask[:, :20])


@pytest.mark.parametrize("value", [False, True])
def test_nothing_and_everything_stay(value: bool) -> None:
    mask = np.full((8, 8), value)
    tidied = tidy_mask(mask, largest_piece=True, fill_holes=True, smooth_px=1, smallest_px=2)
    np.testing.assert_array_equal(tidied, mask)
