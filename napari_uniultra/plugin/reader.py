"""napari's reader: an ultrasound file or folder becomes an image layer in millimetres, decoded as it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from napari_uniultra.core.types import Cine
from napari_uniultra.io.readers import can_read, read_cine
from napari_uniultra.plugin.layers import metadata_of

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """The function that reads ``path`` into layers, or None where that is not for us."""
    if not isinstance(path, (str, PathLike)):
        if len(path) != 1:
            return None
        path = path[0]
    return _read if can_read(path) else None


def _read(path: str | Sequence[str]) -> list[LayerData]:
    path = Path(path if isinstance(path, (str, PathLike)) else path[0])
    name = path.name if path.is_dir() else path.name.split(".")[0]
    return [image_layer(read_cine(path), name or path.name)]


def image_layer(cine: Cine, name: str) -> LayerData:
    """A loop as napari's (data, keyword arguments, type) of an image layer; a loop of one frame as a 2-D image.

    Where the pixel spacing is known the layer is in mm; time stays in frames, so that the slider shows their numbers.
    """
    is_still = len(cine) == 1
    keywords: dict[str, Any] = {
        "name": name,
        "rgb": len(cine.frames.shape) == 4,
        "multiscale": False,
        "contrast_limits": (0, 255),  # given, so that napari need not decode frames to find them
        "axis_labels": ("row", "column") if is_still else ("frame", "row", "column"),
        "metadata": metadata_of(cine),
    }
    if cine.spacing_mm is not None:
        keywords["scale"] = cine.spacing_mm if is_still else (1.0, *cine.spacing_mm)
        keywords["units"] = ("mm", "mm") if is_still else ("pixel", "mm", "mm")
    return cine.frame(0) if is_still else cine.frames, keywords, "image"
