"""napari's writer: a Labels layer becomes a TIFF stack of masks with the loop's scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_uniultra.errors import WriteError
from napari_uniultra.io.writers.masks import write_masks_tiff
from napari_uniultra.plugin.layers import METADATA_KEY

_SUFFIXES = (".tif", ".tiff")


def write_labels(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the masks of one Labels layer, (T, H, W) or (H, W), and return the path written.

    Spacing and times are those of the loop that the masks were drawn on (the layer's metadata).

    Raises
    ------
    WriteError
        For another file format, masks that are none, or a disk that refuses.
    """
    if Path(path).suffix.lower() not in _SUFFIXES:
        raise WriteError(f"Masks cannot be saved as {Path(path).suffix or 'a file without a suffix'}", fix="Use .tif")
    masks = np.asarray(data)
    known = (meta.get("metadata") or {}).get(METADATA_KEY, {})
    write_masks_tiff(
        path,
        masks[None] if masks.ndim == 2 else masks,
        spacing_mm=known.get("spacing_mm"),
        frame_times_s=known.get("frame_times_s"),
    )
    return [path]
