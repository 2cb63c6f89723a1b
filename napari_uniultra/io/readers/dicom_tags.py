"""What a DICOM header says about scale, scan area and time.

No element that is looked at here names a patient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pydicom

GEOMETRY_ELEMENTS = ["PixelSpacing", "SequenceOfUltrasoundRegions", "SharedFunctionalGroupsSequence"]
TIME_ELEMENTS = ["FrameTimeVector", "FrameTime", "CineRate", "RecommendedDisplayFrameRate"]

_BOX = "RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1"
_SPATIAL_2D, _TISSUE, _CENTIMETRE = 1, 1, 3  # PS3.3 C.8.5.5: RegionSpatialFormat, RegionDataType, PhysicalUnits...
_STEP_RANGE_S = 1e-6, 3600.0  # no loop has less or more between two frames


def geometry(
    header: pydicom.Dataset, shape_hw: tuple[int, int]
) -> tuple[tuple[float, float] | None, np.ndarray | None, str]:
    """Spacing in mm (row, column), the scan area (H, W) bool, and a remark on the spacing; None, None, "" if unknown.

    Of several ultrasound regions the largest one that shows tissue in two dimensions and in centimetres counts. A
    delta may be negative, where an axis runs upwards: its size is the spacing.
    """
    regions = [region for region in value_of(header, "SequenceOfUltrasoundRegions") or () if _is_measured(region)]
    if not regions:
        return _pixel_spacing(header), None, ""
    tissue = [region for region in regions if value_of(region, "RegionDataType") == _TISSUE] or regions
    region = max(tissue, key=lambda r: np.prod(np.diff(_box(r).reshape(2, 2), axis=0)))
    x0, y0, x1, y1 = _box(region)
    if x1 > shape_hw[1] or y1 > shape_hw[0] or x0 < 0 or y0 < 0:
        # Such a picture was resized or cropped after the region was described. If it was resized, the region's
        # spacing is wrong by that factor, and nothing in the file tells which of the two happened.
        words = "unknown: the file describes a scan area larger than its picture, so the picture was changed"
        return _pixel_spacing(header), None, words
    spacing = _region_spacing(region)
    others = any(not np.allclose(_region_spacing(other), spacing) for other in tissue)
    remark = "of the largest of several scan areas, which differ in scale" if others else ""
    return spacing, _region_mask(region, shape_hw), remark


def _is_measured(region: pydicom.Dataset) -> bool:
    keys = "RegionSpatialFormat", "PhysicalUnitsXDirection", "PhysicalUnitsYDirection"
    deltas = [numbers_of(region, f"PhysicalDelta{axis}") for axis in "XY"]
    if [value_of(region, key) for key in keys] != [_SPATIAL_2D, _CENTIMETRE, _CENTIMETRE]:
        return False
    if not all(len(delta) == 1 and delta[0] != 0 for delta in deltas):
        return False
    if not all(len(numbers_of(region, key)) == 1 for key in _BOX):
        return False
    x0, y0, x1, y1 = _box(region)
    return bool(x1 > x0 and y1 > y0)


def _box(region: pydicom.Dataset) -> np.ndarray:
    """(x0, y0, x1, y1) of a region in pixels. Its last column and row are taken as exclusive, as most scanners do."""
    return np.array([int(numbers_of(region, key)[0]) for key in _BOX])


def _region_spacing(region: pydicom.Dataset) -> tuple[float, float]:
    return abs(float(region.PhysicalDeltaY)) * 10, abs(float(region.PhysicalDeltaX)) * 10


def _region_mask(region: pydicom.Dataset, shape_hw: tuple[int, int]) -> np.ndarray | None:
    x0, y0, x1, y1 = _box(region)
    mask = np.zeros(shape_hw, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return None if mask.all() else mask


def _pixel_spacing(header: pydicom.Dataset) -> tuple[float, float] | None:
    for holder in (header, _pixel_measures(header)):
        spacing = numbers_of(holder, "PixelSpacing")
        if len(spacing) == 2 and (spacing > 0).all():
            return float(spacing[0]), float(spacing[1])
    return None


def _pixel_measures(header: pydicom.Dataset) -> pydicom.Dataset:
    """Where the enhanced objects keep their spacing, when it is the same for all frames."""
    found = header
    for key in ("SharedFunctionalGroupsSequence", "PixelMeasuresSequence"):
        items = value_of(found, key)
        if not isinstance(items, pydicom.Sequence) or not items:
            return pydicom.Dataset()
        found = items[0]
    return found


def frame_times(header: pydicom.Dataset, frames: int) -> tuple[np.ndarray | None, str]:
    """Seconds from the first frame, and a remark when what the file says cannot be; None for a still.

    The most exact element that is usable counts: FrameTimeVector, FrameTime, CineRate, RecommendedDisplayFrameRate.
    """
    if frames < 2:
        return None, ""
    vector_ms = numbers_of(header, "FrameTimeVector")
    if len(vector_ms) == frames and (vector_ms[1:] >= 0).all() and _is_step(vector_ms[1:].mean() / 1000):
        return np.concatenate([[0.0], np.cumsum(vector_ms[1:])]) / 1000, ""
    step_ms = numbers_of(header, "FrameTime")
    if len(step_ms) == 1 and _is_step(step_ms[0] / 1000):
        return np.arange(frames) * step_ms[0] / 1000, ""
    for key in ("CineRate", "RecommendedDisplayFrameRate"):
        rate = numbers_of(header, key)
        if len(rate) == 1 and rate[0] > 0 and _is_step(1 / rate[0]):
            return np.arange(frames) / rate[0], ""
    stated = any(value_of(header, key) is not None for key in TIME_ELEMENTS)
    return None, "unknown: the file states a time between frames that cannot be" if stated else ""


def _is_step(seconds: float) -> bool:
    return bool(_STEP_RANGE_S[0] <= seconds <= _STEP_RANGE_S[1])


def numbers_of(dataset: pydicom.Dataset, key: str) -> np.ndarray:
    """All finite values of an element, or none of them."""
    value = value_of(dataset, key)
    try:
        values = np.atleast_1d(np.array([] if value is None else value, dtype=float))
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)
    return values if values.ndim == 1 and np.isfinite(values).all() else np.empty(0)


def value_of(dataset: pydicom.Dataset, key: str) -> Any:
    """The value of an element; None when it is missing or damaged."""
    try:
        return dataset.get(key)
    except Exception:  # pydicom parses a value when it is asked for, and raises all kinds of errors
        return None
