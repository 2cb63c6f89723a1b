"""What a mask measures, in mm where the loop's spacing is known and in pixels where it is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napari_uniultra.core.types import Cine, Step

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
        Square millimetres, or pixels when the loop's spacing is unknown.
    predicted_iou : float or None
        The model's own estimate of its mask's IoU, 0 to 1; None for a mask that no model made.
    object_score : float or None
        A logit, above 0 when the model believes that the object is in the frame; None as above.
    """

    frame: int
    time_s: float | None
    object_id: int
    object_name: str
    area: float
    unit: AreaUnit
    predicted_iou: float | None = None
    object_score: float | None = None


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
        Gives spacing and times.
    masks_or_steps : ndarray or iterable of Step
        (T, H, W) integer labels, where 0 is nothing and an absent object gives no row; or the steps of a session,
        where an object that the model finds absent gives a row of area 0.
    names : mapping of int to str, optional
        Object id to name; ``object 3`` where there is none.
    """
    found = _from_labels(masks_or_steps) if hasattr(masks_or_steps, "shape") else _from_steps(masks_or_steps)
    rows = [_row(cine, names or {}, *entry) for entry in found]
    return sorted(rows, key=lambda row: (row.frame, row.object_id))


def _from_labels(labels: Any) -> Iterator[tuple[int, int, int, None, None]]:
    for frame in range(labels.shape[0]):
        ids, counts = np.unique(np.asarray(labels[frame]), return_counts=True)
        for object_id, pixels in zip(ids, counts, strict=True):
            if object_id != 0:
                yield frame, int(object_id), int(pixels), None, None


def _from_steps(steps: Iterable[Step]) -> Iterator[tuple[int, int, int, float | None, float | None]]:
    for step in steps:
        for object_id, mask in step.masks.items():
            scores = step.predicted_iou.get(object_id), step.object_score.get(object_id)
            yield step.frame, object_id, area_px(mask), *scores


def _row(
    cine: Cine,
    names: Mapping[int, str],
    frame: int,
    object_id: int,
    pixels: int,
    predicted_iou: float | None,
    object_score: float | None,
) -> Measurement:
    spacing = cine.spacing_mm
    return Measurement(
        frame=frame,
        time_s=None if cine.frame_times_s is None else float(cine.frame_times_s[frame]),
        object_id=object_id,
        object_name=names.get(object_id) or f"object {object_id}",
        area=float(pixels) if spacing is None else pixels * spacing[0] * spacing[1],
        unit="px" if spacing is None else "mm2",
        predicted_iou=None if predicted_iou is None else float(predicted_iou),
        object_score=None if object_score is None else float(object_score),
    )
