"""Signed distances of masks: what shapes are mixed with, over time and between frames."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_uniultra.core.prompts import box_of_mask


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel of a mask (H, W) bool to its outline, in pixels, float32: above 0 inside.

    The outline runs half-way between the last pixel inside and the first one outside. Of a mask without any pixel, or
    with all of them, the outline is taken to be infinitely far.
    """
    inside = np.asarray(mask, dtype=bool)
    if inside.all() or not inside.any():
        return np.full(inside.shape, np.inf if inside.any() else -np.inf, np.float32)
    outward = ndimage.distance_transform_edt(~inside)
    inward = ndimage.distance_transform_edt(inside)
    return np.where(inside, inward - 0.5, 0.5 - outward).astype(np.float32)


def near_distance(mask: np.ndarray, limit: float) -> np.ndarray:
    """`signed_distance`, cut off at plus and minus ``limit`` pixels; only the mask's surroundings are computed."""
    mask = np.asarray(mask, dtype=bool)
    result = np.full(mask.shape, -limit, np.float32)
    box = box_of_mask(mask)
    if box is None:
        return result
    left, top, right, bottom = (int(edge) for edge in box)
    margin = int(np.ceil(limit)) + 1
    part = np.s_[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin]
    result[part] = np.clip(signed_distance(mask[part]), -limit, limit)
    return result
