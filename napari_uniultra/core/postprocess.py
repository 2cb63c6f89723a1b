"""Tidying masks after the model: holes, crumbs and ragged edges."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def tidy_mask(
    mask: np.ndarray,
    *,
    largest_piece: bool = False,
    fill_holes: bool = False,
    smooth_px: float = 0.0,
    smallest_px: int = 0,
) -> np.ndarray:
    """A mask (H, W) bool after the steps that were asked for, in the order of the parameters below.

    Parameters
    ----------
    mask : ndarray
        (H, W) bool; it is not changed.
    smooth_px : float
        Smooth the outline: the mask is blurred with a Gaussian of this standard deviation, in pixels, and cut at one
        half. 0 leaves it.
    fill_holes : bool
        Fill what is enclosed.
    smallest_px : int
        Remove pieces of fewer pixels.
    largest_piece : bool
        Keep the largest piece alone; of equal ones the first from the top.

    Pieces hang together by sides, not by corners.
    """
    result = np.array(mask, dtype=bool)
    if smooth_px > 0 and result.any():
        result = ndimage.gaussian_filter(result.astype(np.float32), smooth_px, mode="nearest") > 0.5
    if fill_holes:
        result = ndimage.binary_fill_holes(result)
    if not (largest_piece or smallest_px > 1):
        return result
    pieces, count = ndimage.label(result)
    if not count:
        return result
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    keep = sizes >= max(smallest_px, 1)
    if largest_piece:
        keep &= np.arange(len(sizes)) == sizes.argmax()
    return keep[pieces]
