"""napari's reader: an ultrasound file or folder becomes an image layer in millimetres, decoded as it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from napari import current_viewer

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import can_read, read_cine
from napari_uniultra.io.readers.images import is_picture, read_sequence
from napari_uniultra.io.study import find_loops, is_dicomdir
from napari_uniultra.plugin.layers import metadata_of
from napari_uniultra.plugin.playback import follow

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """The function that reads ``path`` into layers, or None where that is not for us.

    Several images are one loop. A study with several loops is left to the list of studies, where there is a viewer.
    """
    paths = _paths(path)
    if len(paths) > 1:
        return _read if all(is_picture(p) for p in paths) else None
    if not is_study(paths[0]):
        return _read if can_read(paths[0]) else None
    found = find_loops(paths[0], limit=2)
    return _read if len(found) == 1 or (found and current_viewer() is None) else None


def is_study(path: Path) -> bool:
    """Whether loops are to be looked for in a path, which is no loop itself."""
    return is_dicomdir(path) or (path.is_dir() and not can_read(path))


def _paths(path: str | Sequence[str]) -> list[Path]:
    return [Path(path)] if isinstance(path, (str, PathLike)) else [Path(p) for p in path]


def _read(path: str | Sequence[str]) -> list[LayerData]:
    paths = _paths(path)
    if len(paths) > 1:
        return shown(read_sequence(paths), _name(paths[0]))
    loop = _only_loop(paths[0]) if is_study(paths[0]) else paths[0]
    return shown(read_cine(loop), _name(paths[0]))


def _only_loop(study: Path) -> Path:
    found = find_loops(study)
    if len(found) != 1:
        raise ReadError(f"{study.name} holds {len(found)} loops", fix="Open one of them")
    return found[0]


def _name(path: Path) -> str:
    return (path.name if path.is_dir() else path.name.split(".")[0]) or path.name


def shown(cine: Cine, name: str) -> list[LayerData]:
    """A loop as layers of the viewer that is open, which will play it at its real speed."""
    viewer = current_viewer()
    if viewer is not None:
        follow(viewer)
    return [image_layer(cine, name)]


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
