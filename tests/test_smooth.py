"""Smoothing of mask logits, against SciPy's Gaussian and in the bundled model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_uniultra.core.types import Cine
from napari_uniultra.model.load import load_model
from napari_uniultra.segment.predictor import NO_OBJECT_LOGIT
from napari_uniultra.segment.session import CineSession
from napari_uniultra.segment.smooth import smoothed


@pytest.mark.parametrize("sigma", [0.5, 1.2, 3.0])
def test_it_is_a_gaussian(sigma: float) -> None:
    logits = np.random.default_rng(0).normal(0, 5, (2, 1, 24, 32)).clip(-20, 20).astype(np.float32)
    expected = [ndimage.gaussian_filter(each[0], sigma, mode="nearest", radius=round(3 * sigma)) for each in logits]
    np.testing.assert_allclose(smoothed(torch.from_numpy(logits), sigma)[:, 0], np.stack(expected), atol=1e-5)


def test_without_a_width_nothing_changes_and_no_object_stays_none() -> None:
    logits = torch.randn(1, 1, 16, 16)
    assert smoothed(logits, 0.0) is logits
    assert (smoothed(torch.full((1, 1, 16, 16), NO_OBJECT_LOGIT), 1.2) < 0).all()


def test_outlines_of_a_session_are_smooth_if_its_model_says_so() -> None:
    model = load_model("uniultra-mini", device="cpu")
    speckle = np.random.default_rng(1).gamma(2.0, 40.0, (2, 120, 160)).clip(0, 255).astype(np.uint8)  # ragged masks

    def masks(sigma: float) -> list[np.ndarray]:
        session = CineSession(Cine(speckle), replace(model, config=model.config.with_(smooth=sigma, solid=False)))
        session.add_box(1, 0, (20.0, 20.0, 140.0, 100.0))
        return [session.step(0).masks[1], *(step.masks[1] for step in session.propagate() if step.frame)]

    for ragged, smooth in zip(masks(0.0), masks(1.5), strict=True):
        assert 0.8 < smooth.sum() / ragged.sum() < 1.25
        assert outline_length(smooth) < 0.95 * outline_length(ragged)


def outline_length(mask: np.ndarray) -> int:
    """Sides of pixels between inside and outside."""
    padded = np.pad(mask, 1).astype(int)
    return int(np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum())
