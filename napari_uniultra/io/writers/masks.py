"""Masks as a TIFF stack that ImageJ, napari and our own reader open with the loop's scale."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tifffile

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.masks import Masks
from napari_uniultra.errors import WriteError

_IMAGEJ_BYTES = 1 << 32  # a classic TIFF, the only kind that ImageJ opens, addresses no more


def write_masks_tiff(
    path: str | os.PathLike[str],
    masks: Any,
    spacing_mm: tuple[float, float] | None = None,
    frame_times_s: Any = None,
) -> None:
    """Write labels as a zlib-compressed ImageJ TIFF; above 4 GiB as OME-TIFF, which is not limited.

    Parameters
    ----------
    path : path
    masks : ndarray
        (T, H, W) bool or integer labels, 0 to 65535. Saved as uint8 where that is enough, else as uint16.
    spacing_mm : (float, float), optional
        Size of a pixel in mm, (row, column).
    frame_times_s : array-like, optional
        (T,) seconds. The format knows one interval only, so times that are not evenly spaced are left out.

    Raises
    ------
    WriteError
        When the masks are no labels, or the disk refuses.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise WriteError(f"An array of shape {masks.shape} is not a stack of masks", "masks are (T, H, W)")
    write_tiff(path, Masks(masks, {}, spacing_mm, frame_times_s))


def write_tiff(path: str | os.PathLike[str], masks: Masks) -> None:
    """As `write_masks_tiff`."""
    labels, step_s = masks.labels, masks.frame_interval_s
    options: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack"}
    if labels.nbytes < _IMAGEJ_BYTES - (1 << 26):
        metadata: dict[str, Any] = {"axes": "TYX"}
        if masks.spacing_mm is not None:
            metadata["unit"] = "mm"
            options["resolution"] = (1 / masks.spacing_mm[1], 1 / masks.spacing_mm[0])
        if step_s:
            metadata |= {"finterval": step_s, "tunit": "sec", "fps": 1 / step_s}
        options |= {"imagej": True, "metadata": metadata}
    else:
        options |= {"ome": True, "bigtiff": True, "metadata": _ome_metadata(masks.spacing_mm, step_s)}
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, labels, **options)


def _ome_metadata(spacing_mm: tuple[float, float] | None, step_s: float | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "TYX"}
    if spacing_mm is not None:
        metadata |= {f"PhysicalSize{axis}": size for axis, size in zip("YX", spacing_mm, strict=True)}
        metadata |= {f"PhysicalSize{axis}Unit": "mm" for axis in "YX"}
    if step_s:
        metadata |= {"TimeIncrement": step_s, "TimeIncrementUnit": "s"}
    return metadata
