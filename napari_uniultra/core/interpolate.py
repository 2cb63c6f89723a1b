"""Masks between two others, for stretches in which a structure was outlined at both ends alone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_uniultra.core.distance import signed_distance
from napari_uniultra.core.prompts import box_of_mask


def interpolate_masks(first: np.ndarray, last: np.ndarray, share: float) -> np.ndarray:
    """The mask (H, W) bool that lies ``share`` of the way from ``first`` to ``last``.

    Shape-based interpolation (Raya and Udupa, IEEE Transactions on Medical Imaging 9, 1990): signed distances are
    mixed, here about the masks' centroids, which move on a straight line. So a structure that travels keeps its size.

    Parameters
    ----------
    first, last : ndarray
        (H, W) bool, neither of them empty.
    share : float
        0 gives ``first``, 1 gives ``last``.

    Raises
    ------
    ValueError
        When a mask is empty, or their shapes differ.
    """
    first, last = np.asarray(first, bool), np.asarray(last, bool)
    if first.shape != last.shape or not (first.any() and last.any()):
        raise ValueError("interpolation needs two masks of one shape, neither of them empty")
    centres = [np.array(ndimage.center_of_mass(mask)) for mask in (first, last)]
    centre = (1 - share) * centres[0] + share * centres[1]
    reach = max(_reach(mask, own) for mask, own in zip((first, last), centres, strict=True))
    top, left = np.maximum(np.floor(centre - reach), 0).astype(int)
    bottom, right = np.minimum(np.ceil(centre + reach) + 1, first.shape).astype(int)
    grid = np.mgrid[top:bottom, left:right].astype(np.float64)
    mixed = np.zeros(grid.shape[1:])
    for mask, own, weight in ((first, centres[0], 1 - share), (last, centres[1], share)):
        mixed += weight * _distance_about(mask, grid + (own - centre)[:, None, None], reach)
    result = np.zeros(first.shape, bool)
    result[top:bottom, left:right] = mixed > 0
    return result


def _reach(mask: np.ndarray, centre: np.ndarray) -> float:
    """How far a mask reaches from its centroid, in pixels, along the rows or columns."""
    left, top, right, bottom = box_of_mask(mask)
    return float(max(centre[0] - top, bottom - centre[0], centre[1] - left, right - centre[1])) + 1


def _distance_about(mask: np.ndarray, positions: np.ndarray, reach: float) -> np.ndarray:
    """A mask's signed distance at positions (2, h, w) of (row, column), which may lie outside of the frame."""
    left, top, right, bottom = (int(edge) for edge in box_of_mask(mask))
    margin = int(np.ceil(reach))
    padded = np.pad(mask[top:bottom, left:right], margin)
    shifted = positions - np.array([top - margin, left - margin])[:, None, None]
    return ndimage.map_coordinates(signed_distance(padded), shifted, order=1, mode="nearest")
