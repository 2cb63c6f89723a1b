"""Prompts between people, files and the model: the one place where (row, column) becomes model (x, y) and back.

Three coordinate systems meet here.

- Frame coordinates, used by every public function: pixels, x to the right, y down, measured at pixel edges.
- Array indices (row, column), as in napari, where pixel centres lie on whole numbers: x = column + 0.5.
- Model coordinates: the frame stretched to a square of ``image_size`` pixels, as SAM2 does, x' = x * image_size / W.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from napari_uniultra.core.types import Box
from napari_uniultra.errors import PromptError

BOX_LABELS = (2, 3)  # SAM2's point labels for a box's first and last corner


def xy_from_rowcol(rowcol: Sequence[float] | np.ndarray) -> np.ndarray:
    """Array positions (..., 2) as (row, column), pixel centres on whole numbers, to frame coordinates (x, y)."""
    return np.asarray(rowcol, dtype=float)[..., ::-1] + 0.5


def rowcol_from_xy(xy: Sequence[float] | np.ndarray) -> np.ndarray:
    """The inverse of `xy_from_rowcol`."""
    return np.asarray(xy, dtype=float)[..., ::-1] - 0.5


def model_xy(xy: np.ndarray, shape_hw: tuple[int, int], image_size: int) -> np.ndarray:
    """Frame coordinates (N, 2) to model coordinates (N, 2), float32, as the official SAM2 predictors scale them."""
    height, width = shape_hw
    return (np.asarray(xy, dtype=np.float64) / (width, height) * image_size).astype(np.float32)


def normalise_box(box: Sequence[float], shape_hw: tuple[int, int]) -> Box:
    """A box drawn in any direction as (x0, y0, x1, y1) with x0 < x1, y0 < y1, clipped to the frame.

    Raises
    ------
    PromptError
        If it is not four finite numbers, lies outside the frame, or has no area within it.
    """
    values = np.asarray(box, dtype=float).ravel()
    if values.size != 4 or not np.isfinite(values).all():
        raise PromptError(f"{tuple(box)} is not a box", fix="Give four numbers x0, y0, x1, y1 in pixels")
    height, width = shape_hw
    x0, x1 = np.clip(np.sort(values[[0, 2]]), 0, width)
    y0, y1 = np.clip(np.sort(values[[1, 3]]), 0, height)
    if x1 - x0 <= 0 or y1 - y0 <= 0:
        raise PromptError(
            f"The box {tuple(float(v) for v in values)} covers no pixel of the frame",
            f"the frame is {width} wide and {height} high",
            "Draw the box over the structure",
        )
    return float(x0), float(y0), float(x1), float(y1)


def checked_points(points: Iterable[Sequence[float]], shape_hw: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Points as ((x, y), ...), each within the frame.

    Raises
    ------
    PromptError
        If a point is not two finite numbers or lies outside the frame.
    """
    height, width = shape_hw
    result = []
    for point in points:
        values = np.asarray(point, dtype=float).ravel()
        if values.size != 2 or not np.isfinite(values).all():
            raise PromptError(f"{point} is not a point", fix="Give x and y in pixels")
        x, y = values
        if not (0 <= x <= width and 0 <= y <= height):
            raise PromptError(
                f"The point ({x:g}, {y:g}) lies outside the frame",
                f"the frame is {width} wide and {height} high",
                "Click inside the image",
            )
        result.append((float(x), float(y)))
    return tuple(result)


def checked_mask(mask: np.ndarray, shape_hw: tuple[int, int], *, may_be_empty: bool = False) -> np.ndarray:
    """A mask prompt as a read-only (H, W) bool array.

    Raises
    ------
    PromptError
        If its shape is not the frame's, or it is empty and may not be.
    """
    array = np.asarray(mask)
    if array.shape != tuple(shape_hw):
        what = f"The mask has shape {array.shape} but the frame is {tuple(shape_hw)}"
        raise PromptError(what, fix="Give a mask of the frame's size")
    array = np.array(array, dtype=bool)
    if not (may_be_empty or array.any()):
        raise PromptError("The mask is empty", fix="Paint the structure, or remove the prompt instead")
    array.setflags(write=False)
    return array


def box_of_mask(mask: np.ndarray) -> Box | None:
    """The tight box (x0, y0, x1, y1) of a mask (H, W) at pixel edges, or None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def ellipse_in_box(box: Box, shape_hw: tuple[int, int]) -> np.ndarray:
    """The filled ellipse inscribed in a box, (H, W) bool, sampled at pixel centres.

    It is the baseline that a segmentation from a box has to beat, and the prior of models with ``box_prior``.
    """
    x0, y0, x1, y1 = box
    y, x = np.ogrid[: shape_hw[0], : shape_hw[1]]
    u = (x + 0.5 - (x0 + x1) / 2) / max((x1 - x0) / 2, 1e-9)
    v = (y + 0.5 - (y0 + y1) / 2) / max((y1 - y0) / 2, 1e-9)
    return u**2 + v**2 <= 1
