"""What napari notes of a stroke in a label image: which frames it concerns, and what they were before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from napari_uniultra.core.masks import stack_of


def frames_before(stroke: Sequence[Any], labels: np.ndarray) -> Mapping[int, np.ndarray | None]:
    """The frames from the first to the last that a stroke changed, (H, W) each, as they were before it.

    Parameters
    ----------
    stroke : sequence of tuple
        The value of a Labels layer's ``paint`` event: for each touch of the brush an index into the layer's data and
        the labels that were there. Since napari 0.9 the index of most is a box of slices, with a mask of the pixels in
        it, or None for all of them; before, and still for some, it is a tuple of arrays.
    labels : ndarray
        (T, H, W), or (H, W), as they are now. napari tells of some strokes before, of others after it makes them.

    Returns
    -------
    mapping of int to ndarray
        Where napari notes strokes in yet another way: all frames, each with None.
    """
    stack = stack_of(labels)
    try:
        touches = [_Touch.read(own, labels.ndim) for own in stroke]
        reach = [frame for touch in touches for frame in touch.reach]
        first, end = min(reach, default=0), max(reach, default=-1) + 1
        before = stack[first:end].copy()
        for touch in reversed(touches):
            touch.take_back(before, first)
    except (AttributeError, IndexError, TypeError, ValueError):
        return dict.fromkeys(range(len(stack)))
    return dict(enumerate(before, first))


class _Touch(NamedTuple):
    """One touch of the brush: an index into (T, H, W), which of its pixels, and the labels that were there."""

    frames: Any
    place: tuple[Any, ...]
    mask: np.ndarray | None
    old: np.ndarray

    @classmethod
    def read(cls, noted: Any, ndim: int) -> _Touch:
        is_box = hasattr(noted, "slice_key")
        index, mask, old = (noted.slice_key, noted.mask, noted.old_values) if is_box else (noted[0], None, noted[1])
        frames, *place = index if ndim == 3 else (slice(0, 1), *index)
        return cls(frames, tuple(place), mask, old)

    @property
    def reach(self) -> tuple[int, int]:
        """The first and last frame."""
        frames = self.frames
        return (frames.start, frames.stop - 1) if isinstance(frames, slice) else (int(frames.min()), int(frames.max()))

    def take_back(self, labels: np.ndarray, first: int) -> None:
        """Put the old labels back into frames (N, H, W) that begin with the frame ``first``."""
        frames, is_box = self.frames, isinstance(self.frames, slice)
        own = slice(frames.start - first, frames.stop - first) if is_box else frames - first
        if self.mask is None:
            labels[own, *self.place] = self.old
        else:
            region = labels[own, *self.place]  # a view
            region[self.mask.reshape(region.shape)] = self.old
