"""Tidying masks after the model: holes, crumbs, ragged edges, and outlines that tremble from frame to frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_uniultra.core.distance import near_distance
from napari_uniultra.core.settings import setting

_STEADY_PX = 5.0  # a frame's outline pulls at its neighbours' no more than this: one that is lost must not drag them
_SIGMAS = 2.5  # how far smoothing over time looks


@dataclass(frozen=True)
class TidySettings:
    """How masks are tidied. What a person painted or accepted stays as it is."""

    largest_piece: bool = setting(False, help="Keep the largest piece of an object alone.")
    fill_holes: bool = setting(False, help="Fill what a mask encloses.")
    smooth_px: float = setting(0.0, low=0, high=50, help="Smooth outlines with a Gaussian of this many px.")
    smallest_px: int = setting(0, low=0, help="Remove pieces of fewer px.")
    smooth_frames: float = setting(
        0.0, low=0, high=20, help="Smooth outlines over time with a Gaussian of this many frames."
    )

    @property
    def reach_frames(self) -> int:
        """How many frames before and after one its tidied mask depends on."""
        return int(np.ceil(_SIGMAS * self.smooth_frames))


def tidy_mask(mask: np.ndarray, settings: TidySettings) -> np.ndarray:
    """A mask (H, W) bool after the steps that concern one frame, in this order; it is not changed itself.

    1. The outline is smoothed: the mask is blurred, and cut at one half.
    2. What is enclosed is filled.
    3. Pieces that are too small go, and all but the largest one; of equal ones the first from the top stays.

    Pieces hang together by sides, not by corners.
    """
    result = np.array(mask, dtype=bool)
    if settings.smooth_px > 0 and result.any():
        result = ndimage.gaussian_filter(result.astype(np.float32), settings.smooth_px, mode="nearest") > 0.5
    if settings.fill_holes:
        result = ndimage.binary_fill_holes(result)
    if not (settings.largest_piece or settings.smallest_px > 1):
        return result
    pieces, count = ndimage.label(result)
    if not count:
        return result
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    keep = sizes >= max(settings.smallest_px, 1)
    if settings.largest_piece:
        keep &= np.arange(len(sizes)) == sizes.argmax()
    return keep[pieces]


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool with its largest piece alone, as `tidy_mask` keeps it."""
    return tidy_mask(mask, TidySettings(largest_piece=True))


def tidy_masks(
    mask_of: Callable[[int], np.ndarray], frames: Sequence[int], settings: TidySettings
) -> Iterator[tuple[int, np.ndarray]]:
    """Tidy the masks of one object, frame by frame and then over time.

    Smoothing over time mixes the signed distances of neighbouring frames with Gaussian weights. Only a window of frames
    is held at a time.

    Parameters
    ----------
    mask_of : callable
        Frame to its mask, (H, W) bool.
    frames : sequence of int
        In order; those that lie too far apart do not touch each other.

    Yields
    ------
    (int, ndarray)
        Frame and tidied mask, (H, W) bool, in order.
    """
    reach = settings.reach_frames
    tidied = ((frame, tidy_mask(mask_of(frame), settings)) for frame in frames)
    if not reach:
        yield from tidied
        return
    window: deque[tuple[int, np.ndarray]] = deque()
    coming = ((frame, near_distance(mask, _STEADY_PX)) for frame, mask in tidied)
    ahead = next(coming, None)
    for frame in frames:
        while ahead is not None and ahead[0] <= frame + reach:
            window.append(ahead)
            ahead = next(coming, None)
        while window[0][0] < frame - reach:
            window.popleft()
        weights = np.exp([-0.5 * ((other - frame) / settings.smooth_frames) ** 2 for other, _ in window])
        yield frame, sum(weight * distance for weight, (_, distance) in zip(weights, window, strict=True)) > 0
