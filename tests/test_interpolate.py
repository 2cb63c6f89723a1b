"""Shapes between two others, against discs whose size and place are known; and distances against scipy-free ones."""

from __future__ import annotations

import numpy as np
import pytest

from napari_uniultra.core.distance import near_distance, signed_distance
from napari_uniultra.core.interpolate import interpolate_masks
from napari_uniultra.core.metrics import dice

SHAPE = 96, 128


def disc(row: float, column: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_a_disc_that_travels_and_grows_is_a_disc_between(share: float) -> None:
    found = interpolate_masks(disc(30, 30, 10), disc(60, 90, 20), share)
    expected = disc(30 + 30 * share, 30 + 60 * share, 10 + 10 * share)
    assert dice(found, expected) > 0.97


def test_the_ends_are_the_masks_themselves() -> None:
    first, last = disc(30, 30, 10), disc(60, 90, 20)
    np.testing.assert_array_equal(interpolate_masks(first, last, 0.0), first)
    np.testing.assert_array_equal(interpolate_masks(first, last, 1.0), last)


def test_a_structure_at_the_border_of_the_frame() -> None:
    found = interpolate_masks(disc(0, 60, 15), disc(95, 60, 15), 0.5)
    assert found.any()
    rows, columns = np.nonzero(found)
    assert (rows.mean(), columns.mean()) == pytest.approx((47.5, 60), abs=3)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="neither of them empty"):
        interpolate_masks(disc(30, 30, 10), np.zeros(SHAPE, bool), 0.5)


def test_distances_are_those_to_the_outline() -> None:
    """By hand: the outline of a square runs half-way between pixels."""
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    distance = signed_distance(mask)
    assert distance[5, 10] == 0.5
    assert distance[9, 10] == 4.5
    assert distance[4, 10] == -0.5
    assert distance[0, 10] == -4.5
    np.testing.assert_array_equal(near_distance(mask, 3.0), np.clip(distance, -3, 3))
