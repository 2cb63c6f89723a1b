"""The size of a pixel from a line that somebody drew over the depth scale of a picture."""

from __future__ import annotations

import math

import numpy as np

from napari_uniultra.errors import PromptError

_MIN_LINE_PX = 10.0  # the ends of a shorter line cannot be placed well enough
_RANGE_MM = 1e-3, 10.0  # no ultrasound picture has smaller or larger pixels


def spacing_from_line(
    start_xy: tuple[float, float],
    end_xy: tuple[float, float],
    length_mm: float,
    aspect: float = 1.0,
) -> tuple[float, float]:
    """The spacing (row, column) in mm with which a line has the length that was typed.

    Parameters
    ----------
    start_xy, end_xy : (float, float)
        The ends of the line in pixels.
    length_mm : float
        What the scale says of it.
    aspect : float
        Height of a pixel over its width. 1 for the pictures of nearly every scanner; of a loop whose spacing was known,
        what that says, since a line in one direction tells nothing about the other.

    Raises
    ------
    PromptError
        When the line is too short to be exact, or the result is the size of no ultrasound pixel.
    """
    values = np.array([*start_xy, *end_xy, length_mm, aspect], dtype=float)
    if not np.isfinite(values).all() or length_mm <= 0 or aspect <= 0:
        raise PromptError("The length of the scale is not above zero", fix="Type what the scale says, in mm")
    dx, dy = end_xy[0] - start_xy[0], end_xy[1] - start_xy[1]
    if math.hypot(dx, dy) < _MIN_LINE_PX:
        raise PromptError("The line is too short to be exact", fix="Draw it over as much of the scale as there is")
    column = length_mm / math.hypot(dx, dy * aspect)
    row = column * aspect
    if not (_RANGE_MM[0] <= min(row, column) and max(row, column) <= _RANGE_MM[1]):
        raise PromptError(
            f"Pixels of {row:.4g} x {column:.4g} mm are not those of an ultrasound picture",
            "the length does not fit the line",
            "Check its unit: it is typed in mm",
        )
    return row, column
