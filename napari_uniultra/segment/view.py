"""Parts of frames as the network sees them: where to look for a structure, cut it out, and put a mask back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Box, Prompt

MARGIN, CLICK_MARGIN = 1.0, 0.5  # around a structure, and around what clicks gave in the whole frame
_STEP = 64  # pixels of the network's input: every pooling of memories divides it
_SMALLEST_PX = 48  # of the frame; fewer would only show speckle
_STEADY = 0.8, 1.25  # a view keeps its side while the one wished for is so many times as long


class View(NamedTuple):
    """A rectangle of a frame, stretched to the network's square input; beyond the frame it is black.

    Attributes
    ----------
    top, left, height, width : int
        In pixels of the frame.
    size : int
        Side of the network's input in pixels.
    """

    top: int
    left: int
    height: int
    width: int
    size: int

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Its size in pixels of the frame."""
        return self.height, self.width

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """What is seen of a frame (H, W[, 3]) or a mask, (height, width[, 3])."""
        if (self.top, self.left, *self.shape_hw) == (0, 0, *frame.shape[:2]):
            return frame
        part = np.zeros((*self.shape_hw, *frame.shape[2:]), frame.dtype)
        of_frame, of_part = self._common(frame.shape)
        part[of_part] = frame[of_frame]
        return part

    def put(self, part: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
        """The inverse of `cut`, into an empty frame (H, W)."""
        if (self.top, self.left, *self.shape_hw) == (0, 0, *shape_hw):
            return part
        frame = np.zeros(shape_hw, part.dtype)
        of_frame, of_part = self._common(shape_hw)
        frame[of_frame] = part[of_part]
        return frame

    def prompt(self, prompt: Prompt) -> Prompt | None:
        """Box and points of a prompt in pixels of this view; None if one of them lies outside."""
        corners = [] if prompt.box is None else [prompt.box[:2], prompt.box[2:]]
        moved = np.array([*corners, *prompt.points], float).reshape(-1, 2) - (self.left, self.top)
        if (moved < 0).any() or (moved > (self.width, self.height)).any():
            return None
        xy = [tuple(map(float, own)) for own in moved]
        box = None if prompt.box is None else (*xy[0], *xy[1])
        return replace(prompt, box=box, points=tuple(xy[len(corners) :]))

    def _common(self, shape: Sequence[int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where frame and view overlap: in the frame, and in the view."""
        spans = [
            (max(0, start), max(0, min(side, start + length)), start)
            for start, length, side in zip((self.top, self.left), self.shape_hw, shape[:2], strict=True)
        ]
        of_frame = tuple(slice(low, max(low, high)) for low, high, _ in spans)
        of_part = tuple(slice(low - start, max(low, high) - start) for low, high, start in spans)
        return of_frame, of_part


def whole_view(shape_hw: tuple[int, int], size: int) -> View:
    """All of a frame at the model's own input size."""
    return View(0, 0, *shape_hw, size)


def checked_view(numbers: Sequence[int]) -> View:
    """A view from its numbers. Raises ValueError or TypeError for what is none."""
    view = View(*map(int, numbers))
    if not (0 < view.height < 1 << 16 and 0 < view.width < 1 << 16 and 0 < view.size <= 4096) or view.size % 32:
        raise ValueError("a view is no part of a frame")
    return view


def close_view(
    box: Box,
    shape_hw: tuple[int, int],
    image_size: int,
    *,
    margin: float = MARGIN,
    shift: Sequence[float] = (0.0, 0.0),
    before: View | None = None,
) -> View | None:
    """A square around a structure, at half the model's own input size.

    Of larger structures it shows less detail than the whole frame would; models that look closely were found to do
    better even so, as long as the square is no longer than the frame.

    Parameters
    ----------
    box : (x0, y0, x1, y1)
        Around the structure where it was seen last, in pixels of the frame.
    shape_hw : (int, int)
        The frame's size.
    image_size : int
        The model's own input size, which shows the whole frame.
    margin : float
        How much around the box is seen on each side, of its longer side.
    shift : (float, float)
        How far the structure has moved since, (rows, columns) in pixels.
    before : View, optional
        The view before this one; its side is kept while it is about right.

    Returns
    -------
    View or None
        None where it would be longer than the frame.
    """
    x0, y0, x1, y1 = box
    side = max(_SMALLEST_PX, round(max(y1 - y0, x1 - x0) * (1 + 2 * margin)))
    if before is not None and before.height == before.width and _STEADY[0] < side / before.height < _STEADY[1]:
        side = before.height
    if side > max(shape_hw):
        return None
    return _around(((y0 + y1) / 2, (x0 + x1) / 2), shift, side, close_size(image_size))


def memory_view(mask: np.ndarray, size: int, like: View) -> View:
    """The view from which a structure is remembered that was not seen closely: as long as ``like``, around it."""
    box = box_of_mask(mask)
    if box is None:
        return like
    left, top, right, bottom = box
    return _around(((top + bottom) / 2, (left + right) / 2), (0.0, 0.0), like.height, size)


def close_size(image_size: int) -> int:
    """The input size of close views, in pixels."""
    return max(1, round(image_size / 2 / _STEP)) * _STEP


def _around(centre: tuple[float, float], shift: Sequence[float], side: int, size: int) -> View:
    top, left = (round(middle + moved - side / 2) for middle, moved in zip(centre, shift, strict=True))
    return View(top, left, side, side, size)
