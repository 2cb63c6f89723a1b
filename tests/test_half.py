"""Half precision, on the processor, where it is slow but the same rounding; full precision is the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_uniultra.benchmarks.loops import SyntheticLoop, boxes
from napari_uniultra.core.metrics import dice
from napari_uniultra.core.types import Cine
from napari_uniultra.model.load import load_model
from napari_uniultra.model.loaded import Model
from napari_uniultra.segment.session import CineSession


def track(model: Model, **options) -> tuple[CineSession, list[np.ndarray]]:
    """A box, a click beside its structure, and masks of all frames."""
    shape_hw = 192, 256
    session = CineSession(Cine(SyntheticLoop(6, shape_hw)), model, **options)
    session.add_box(1, 0, boxes(1, shape_hw)[0])
    session.add_points(1, 0, [(2.0, 2.0)], [0])
    return session, [step.masks[1] for step in session.propagate()]


@pytest.mark.parametrize("close_views", [False, True])
def test_half_precision_keeps_the_masks(close_views: bool) -> None:
    model = load_model("uniultra-mini", "cpu", half=True)
    model = replace(model, config=model.config.with_(close_views=close_views))
    session, found = track(model)
    full_session, expected = track(replace(model, half=False))
    assert all(dice(own, full) >= 0.999 for own, full in zip(found, expected, strict=True))
    assert session.model.half
    assert not np.array_equal(session.logits(1, 0), full_session.logits(1, 0))  # it was half indeed


def test_models_compute_in_full_unless_told() -> None:
    assert not load_model("uniultra-mini", "cpu").half
    assert load_model("uniultra-mini", "cpu", half=True).half


def test_too_large_numbers_are_computed_again_in_full() -> None:
    model = load_model("uniultra-mini", "cpu", half=True)
    for head in model.network.sam_mask_decoder.output_hypernetworks_mlps:
        head.layers[-1].weight.data *= 1e5
    said: list[str] = []
    session, found = track(model, on_notice=said.append)
    _, expected = track(replace(model, half=False))
    assert not session.model.half
    assert len(said) == 1
    assert "full precision" in said[0]
    assert all(np.array_equal(own, full) for own, full in zip(found, expected, strict=True))


def test_a_given_mask_is_remembered_by_finite_numbers() -> None:
    model = load_model("uniultra-mini", "cpu", half=True).at(128)
    for layer in model.network.obj_ptr_proj.layers:
        layer.weight.data *= 300
    mask = np.zeros((96, 128), bool)
    mask[20:50, 20:50] = True
    found = []
    for own in (model, replace(model, half=False)):
        session = CineSession(Cine(SyntheticLoop(3, mask.shape)), own)
        session.add_mask(1, 0, mask)
        found.append([step.masks[1] for step in session.propagate()])
        assert not session.model.half
    assert np.array_equal(*found)
