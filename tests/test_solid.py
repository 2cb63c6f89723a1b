"""Small holes and pieces of masks, by hand and from the bundled model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.model.load import load_model
from napari_uniultra.segment.session import CineSession
from napari_uniultra.segment.solid import solid_mask

HOLE, SPECK, OTHER = (30, 30), (5, 60), (60, 62)  # (row, column) of pixels within them


def structure() -> np.ndarray:
    """A square of 40 x 40 with a hole of 9 pixels and a large one, a speck of 4, and a piece of 100."""
    mask = np.zeros((80, 90), bool)
    mask[10:50, 10:50] = True
    mask[29:32, 29:32] = False
    mask[12:24, 12:24] = False
    mask[5:7, 60:62] = True
    mask[60:70, 60:70] = True
    return mask


def click(place: tuple[int, int], label: int) -> Prompt:
    return Prompt(points=((place[1] + 0.5, place[0] + 0.5),), labels=(label,))


def test_what_is_small_goes_and_what_is_large_stays() -> None:
    mask = structure()
    expected = mask.copy()
    expected[29:32, 29:32] = True
    expected[5:7, 60:62] = False
    before = mask.copy()
    assert np.array_equal(solid_mask(mask), expected)
    assert np.array_equal(mask, before)
    assert np.array_equal(solid_mask(expected), expected)


@pytest.mark.parametrize(
    ("place", "label", "stays"),
    [(HOLE, 0, True), (HOLE, 1, False), (SPECK, 1, True), (SPECK, 0, False), ((79, 89), 1, False), ((0, 0), 0, False)],
)
def test_what_was_clicked_stays(place: tuple[int, int], label: int, stays: bool) -> None:
    mask, found = structure(), solid_mask(structure(), click(place, label))
    changed = HOLE if place == HOLE else SPECK
    assert (found[changed] == mask[changed]) == stays
    assert found[OTHER]


@pytest.mark.parametrize("mask", [np.zeros((9, 9), bool), np.ones((9, 9), bool), np.eye(9, dtype=bool)])
def test_masks_with_nothing_small(mask: np.ndarray) -> None:
    assert np.array_equal(solid_mask(mask), mask)


def test_holes_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    mask = ndimage.gaussian_filter(rng.normal(size=(60, 70)), 2) > 0
    largest = np.bincount(ndimage.label(mask)[0][mask]).max()
    holes, _ = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    small = np.isin(holes, [i for i, size in enumerate(np.bincount(holes.ravel())) if i and size < largest / 20])
    assert small.any()
    assert solid_mask(mask)[small].all()


@pytest.mark.parametrize("solid", [False, True])
def test_a_session_does_so_if_its_model_knows_solid_structures(checkpoint: Path, solid: bool) -> None:
    model = load_model(checkpoint, device="cpu")  # random weights: ragged masks
    model = replace(model, config=model.config.with_(solid=solid))
    speckle = np.random.default_rng(1).gamma(2.0, 40.0, (2, 120, 160)).clip(0, 255).astype(np.uint8)
    session = CineSession(Cine(speckle), model)
    session.add_box(1, 0, (20.0, 20.0, 140.0, 100.0))
    found = [session.step(0).masks[1], *(step.masks[1] for step in session.propagate() if step.frame)]
    assert all(mask.any() for mask in found)
    assert all(np.array_equal(mask, solid_mask(mask)) for mask in found) == solid
