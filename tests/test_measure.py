"""Areas by hand, in the unit that is known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_uniultra.core.measure import Measurement, area_mm2, area_px, measurement_rows
from napari_uniultra.core.types import Cine, Step


def square(side: int) -> np.ndarray:
    mask = np.zeros((10, 12), bool)
    mask[:side, :side] = True
    return mask


def test_area_by_hand() -> None:
    assert area_px(square(4)) == 16
    assert area_mm2(square(4), (0.5, 0.25)) == 2.0
    assert area_mm2(square(0), (0.5, 0.25)) == 0.0


def test_disc_in_anisotropic_pixels() -> None:
    y, x = np.ogrid[:400, :800]
    mask = ((y + 0.5) * 0.2 - 40) ** 2 + ((x + 0.5) * 0.1 - 40) ** 2 < 30**2  # radius 30 mm
    assert area_mm2(mask, (0.2, 0.1)) == pytest.approx(np.pi * 30**2, rel=2e-3)


def test_rows_of_steps() -> None:
    cine = Cine(np.zeros((3, 10, 12), np.uint8), spacing_mm=(0.5, 0.25), frame_times_s=[0, 0.04, 0.1])
    steps = [
        Step(2, {2: square(2), 1: square(0)}, {1: 0.2, 2: 0.9}, {1: -4.0, 2: 5.0}),
        Step(0, {1: square(4)}, {1: 0.8}, {}),
    ]
    assert measurement_rows(cine, iter(steps), {1: "lumen"}) == [
        Measurement(0, 0.0, 1, "lumen", 2.0, "mm2", 0.8, None),
        Measurement(2, 0.1, 1, "lumen", 0.0, "mm2", 0.2, -4.0),
        Measurement(2, 0.1, 2, "object 2", 0.5, "mm2", 0.9, 5.0),
    ]


def test_rows_of_labels_without_spacing_or_times() -> None:
    labels = np.stack([square(3) * 2, square(0) * 1, square(1) * 1])
    labels[0, 9, 9:] = 1
    assert measurement_rows(Cine(np.zeros((3, 10, 12), np.uint8)), labels) == [
        Measurement(0, None, 1, "object 1", 3.0, "px"),
        Measurement(0, None, 2, "object 2", 9.0, "px"),
        Measurement(2, None, 1, "object 1", 1.0, "px"),
    ]
