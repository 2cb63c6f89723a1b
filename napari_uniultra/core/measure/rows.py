"""Measurements of a whole loop: one row per frame and object, in mm where the spacing is known, else in pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.ndimage import find_objects

from napari_uniultra.core.measure.geometry import MaskShape, measure_shape
from napari_uniultra.core.types import PIXELS, Cine, Step, default_name

AreaUnit = Literal["mm2", "px"]


@dataclass(frozen=True)
class Measurement:
    """One object on one frame.

    Attributes
    ----------
    frame : int
    time_s : float or None
        Seconds from the first frame; None when the loop's times are unknown.
    object_id : int
    object_name : str
    area : float
        In ``unit``; 0 for an object that is not in the frame.
    unit : {"mm2", "px"}
        Square millimetres, or pixels when the loop's spacing is unknown. Lengths are in mm or pixels accordingly.
    predicted_iou : float or None
        The model's own estimate of its mask's IoU, 0 to 1; None for a mask that no model made.
    object_score : float or None
        A logit, above 0 when the model believes that the object is in the frame; None as above.
    shape : MaskShape or None
        Lengths; None for an object that is not in the frame.
    area_change : float or None
        (area - first area) / first area, of the first frame on which the object is; None up to there.
    """

    frame: int
    time_s: float | None
    object_id: int
    object_name: str
    area: float
    unit: AreaUnit
    predicted_iou: float | None = None
    object_score: float | None = None
    shape: MaskShape | None = None
    area_change: float | None = None


def area_px(mask: np.ndarray) -> int:
    """The number of pixels of a mask (H, W), bool."""
    return int(np.count_nonzero(mask))


def area_mm2(mask: np.ndarray, spacing_mm: tuple[float, float]) -> float:
    """The area of a mask (H, W), bool, in mm2, for pixels of ``spacing_mm`` (row, column)."""
    row, column = spacing_mm
    return area_px(mask) * row * column


def measurement_rows(
    cine: Cine, masks_or_steps: np.ndarray | Iterable[Step], names: Mapping[int, str] | None = None
) -> list[Measurement]:
    """Measure every object on every frame, ordered by frame, then object.

    Parameters
    ----------
    cine : Cine
        Gives spacing, times and the scan area.
    masks_or_steps : ndarray or iterable of Step
        (T, H, W) integer labels, where 0 is nothing and an absent object gives no row; or the steps of a session,
        where an object that the model finds absent gives a row of area 0.
    names : mapping of int to str, optional
        Object id to name; ``object 3`` where there is none.
    """
    names = names or {}
    if hasattr(masks_or_steps, "shape"):
        frames = range(masks_or_steps.shape[0])
        rows = [row for frame in frames for row in measure_labels(cine, frame, masks_or_steps[frame], names)]
    else:
        rows = [row for step in masks_or_steps for row in _rows_of_step(cine, step, names)]
    return with_area_change(sorted(rows, key=lambda row: (row.frame, row.object_id)))


def measure_labels(cine: Cine, frame: int, labels: Any, names: Mapping[int, str] | None = None) -> list[Measurement]:
    """Measure the objects of one frame's label image (H, W) integer, without their change over time."""
    labels = np.asarray(labels)
    found = find_objects(labels if labels.dtype.kind in "iu" else labels.astype(np.uint8))
    ids = [index + 1 for index, place in enumerate(found) if place is not None]
    return [_row(cine, names or {}, frame, object_id, labels == object_id) for object_id in ids]


def with_area_change(rows: Sequence[Measurement]) -> list[Measurement]:
    """Rows, ordered by frame, with ``area_change`` filled in."""
    first: dict[int, float] = {}
    result = []
    for row in rows:
        if row.area > 0:
            first.setdefault(row.object_id, row.area)
        reference = first.get(row.object_id)
        result.append(replace(row, area_change=None if reference is None else (row.area - reference) / reference))
    return result


def area_curve(rows: Iterable[Measurement], object_id: int, frames: int) -> np.ndarray:
    """(T,) area of one object over the frames of a loop; NaN where it is not: no row of it, or one of area 0."""
    curve = np.full(frames, np.nan)
    for row in rows:
        if row.object_id == object_id and row.area > 0:
            curve[row.frame] = row.area
    return curve


def _rows_of_step(cine: Cine, step: Step, names: Mapping[int, str]) -> Iterator[Measurement]:
    for object_id, mask in step.masks.items():
        row = _row(cine, names, step.frame, object_id, mask)
        scores = step.predicted_iou.get(object_id), step.object_score.get(object_id)
        iou, score = (None if value is None else float(value) for value in scores)
        yield replace(row, predicted_iou=iou, object_score=score)


def _row(cine: Cine, names: Mapping[int, str], frame: int, object_id: int, mask: np.ndarray) -> Measurement:
    spacing = cine.spacing_mm
    return Measurement(
        frame=frame,
        time_s=None if cine.frame_times_s is None else float(cine.frame_times_s[frame]),
        object_id=object_id,
        object_name=names.get(object_id) or default_name(object_id),
        area=float(area_px(mask)) if spacing is None else area_mm2(mask, spacing),
        unit="px" if spacing is None else "mm2",
        shape=measure_shape(mask, spacing or PIXELS, cine.sector),
    )
