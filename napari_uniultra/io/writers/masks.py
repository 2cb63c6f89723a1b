"""Masks as a TIFF stack that ImageJ, napari and our own reader open with the loop's scale."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tifffile

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.errors import WriteError

_IMAGEJ_BYTES = 1 << 32  # a classic TIFF, the only kind that ImageJ opens, addresses no more
_UNEVEN = 1e-3  # relative; time steps that differ by more have no single frame interval


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
    labels = _labels(np.asarray(masks))
    step_s = _even_step(frame_times_s)
    options: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack"}
    if labels.nbytes < _IMAGEJ_BYTES - (1 << 26):
        metadata: dict[str, Any] = {"axes": "TYX"}
        if spacing_mm is not None:
            metadata["unit"] = "mm"
            options["resolution"] = (1 / spacing_mm[1], 1 / spacing_mm[0])
        if step_s:
            metadata |= {"finterval": step_s, "tunit": "sec", "fps": 1 / step_s}
        options |= {"imagej": True, "metadata": metadata}
    else:
        options |= {"ome": True, "bigtiff": True, "metadata": _ome_metadata(spacing_mm, step_s)}
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, labels, **options)


def _labels(masks: np.ndarray) -> np.ndarray:
    if masks.ndim != 3 or not (masks.dtype == bool or np.issubdtype(masks.dtype, np.integer)):
        raise WriteError(
            f"An array of shape {masks.shape} and type {masks.dtype} is not a stack of masks",
            "masks are (T, H, W) whole numbers",
        )
    low, high = (int(masks.min()), int(masks.max())) if masks.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise WriteError(f"Labels from {low} to {high} cannot be saved", "a label is a number from 0 to 65535")
    return masks.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16, copy=False)


def _even_step(frame_times_s: Any) -> float | None:
    if frame_times_s is None or len(frame_times_s) < 2:
        return None
    steps = np.diff(np.asarray(frame_times_s, dtype=float))
    mean = float(steps.mean())
    return mean if mean > 0 and np.ptp(steps) <= _UNEVEN * mean else None


def _ome_metadata(spacing_mm: tuple[float, float] | None, step_s: float | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "TYX"}
    if spacing_mm is not None:
        metadata |= {f"PhysicalSize{axis}": size for axis, size in zip("YX", spacing_mm, strict=True)}
        metadata |= {f"PhysicalSize{axis}Unit": "mm" for axis in "YX"}
    if step_s:
        metadata |= {"TimeIncrement": step_s, "TimeIncrementUnit": "s"}
    return metadata
