"""Masks of models that know solid structures alone: without holes and specks that nobody asked for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Prompt

_SMALL = 0.05  # of the largest piece's pixels


def solid_mask(mask: np.ndarray, prompt: Prompt | None = None) -> np.ndarray:
    """A mask whose small holes are filled, and then without its small pieces, but for those that were clicked.

    Parameters
    ----------
    mask : (H, W) bool
        It is not changed itself.
    prompt : Prompt, optional
        A hole stays where it has a click that removes, a piece where it has one that adds. In the mask's pixels.
    """
    box = box_of_mask(mask)
    if box is None:
        return mask
    left, top, right, bottom = map(int, box)
    part = mask[top:bottom, left:right]
    pieces, count = ndimage.label(part)
    holes = _enclosed(part)
    if count == 1 and not holes.any():
        return mask
    clicks = () if prompt is None else zip(prompt.points, prompt.labels, strict=True)
    moved = [((x - left, y - top), label) for (x, y), label in clicks]
    limit = _SMALL * np.bincount(pieces[part]).max()
    part = part | _small(holes, limit, (xy for xy, label in moved if not label))
    result = np.zeros_like(mask)
    result[top:bottom, left:right] = part & ~_small(part, limit, (xy for xy, label in moved if label))
    return result


def _enclosed(part: np.ndarray) -> np.ndarray:
    """What a mask (h, w) bool encloses; much faster than SciPy's ``binary_fill_holes``."""
    pieces, _ = ndimage.label(~np.pad(part, 1))
    return ((pieces > 0) & (pieces != pieces[0, 0]))[1:-1, 1:-1]


def _small(part: np.ndarray, limit: float, clicks: Iterable[tuple[float, float]]) -> np.ndarray:
    """The pieces of ``part`` (h, w) bool of fewer than ``limit`` pixels that have none of the clicks (x, y)."""
    pieces, _ = ndimage.label(part)
    is_small = np.bincount(pieces.ravel()) < limit
    is_small[0] = False
    for x, y in clicks:
        if 0 <= x < part.shape[1] and 0 <= y < part.shape[0]:
            is_small[pieces[int(y), int(x)]] = False
    return is_small[pieces]
