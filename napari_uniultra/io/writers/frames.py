"""Formats that have one file per frame, in a folder: palette PNG, and YOLO's polygons."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from scipy.ndimage import binary_fill_holes
from skimage.measure import approximate_polygon, find_contours

from napari_uniultra.core.atomic import atomic_dir, atomic_path
from napari_uniultra.core.masks import Masks
from napari_uniultra.errors import WriteError

_TOLERANCE = 0.3  # pixels by which a polygon may leave the outline


def frame_name(frame: int, suffix: str) -> str:
    """A frame's file name; the number counts from 0."""
    return f"frame_{frame:06d}.{suffix}"


def class_names(masks: Masks) -> list[str]:
    """The different names of the objects, in the order of their first ids."""
    return list(dict.fromkeys(masks.name(object_id) for object_id in masks.ids))


def write_png(path: str | os.PathLike[str], masks: Masks) -> list[Path]:
    """Write a still as one PNG, and a loop as a folder of them, named as ``path`` without its suffix ``.png``.

    Pixel values are the objects' numbers, shown in their colours where they fit into 8 bits. Spacing, times and names
    are in ``meta.json`` in the folder, or ``<name>.json`` beside the single file, where our reader finds them.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    WriteError
        When the folder holds something already, ``<name>.json`` is not one of ours, or the disk refuses.
    """
    path = Path(path)
    if len(masks) == 1 and path.suffix.lower() == ".png":
        _write_still(path, masks)
        return [path]
    folder = _folder(path)
    with atomic_dir(folder) as temporary:
        _write_json(temporary / "meta.json", _description(masks))
        for frame, labels in enumerate(masks.labels):
            _picture(labels, masks).save(temporary / frame_name(frame, "png"))
    return [folder]


def write_yolo(path: str | os.PathLike[str], masks: Masks) -> list[Path]:
    """Write a folder with YOLO's ``data.yaml`` and, for every frame, a text file of polygons.

    A line is a class and the corners of one piece of an object, x and y as shares of the width and height. A class is a
    name. Holes cannot be said in this format and are filled. Frames without objects have an empty file.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    WriteError
        When the folder holds something already, or the disk refuses.
    """
    folder, names = _folder(Path(path)), class_names(masks)
    numbers = {object_id: names.index(masks.name(object_id)) for object_id in masks.ids}
    with atomic_dir(folder) as temporary:
        (temporary / "labels").mkdir()
        for frame, labels in enumerate(masks.labels):
            text = "".join(_polygons(labels, numbers))
            (temporary / "labels" / frame_name(frame, "txt")).write_text(text, encoding="ascii")
        data = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(names))}
        description = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
        (temporary / "data.yaml").write_text(description, encoding="utf-8")
        _write_json(temporary / "meta.json", _description(masks))
    return [folder]


def _write_still(path: Path, masks: Masks) -> None:
    beside = path.with_suffix(".json")
    check_json(beside, _is_description, "the names and the scale of the masks")
    with atomic_path(beside) as description:
        _write_json(description, _description(masks))
        with atomic_path(path) as picture:
            _picture(masks.labels[0], masks).save(picture, format="PNG")


def _folder(path: Path) -> Path:
    folder = path.with_suffix("") if path.suffix.lower() in (".png", ".yolo") else path
    if folder.is_file():
        raise WriteError(f"{folder} exists already", "a folder is to be written there", "Choose another name")
    return folder


def _picture(labels: np.ndarray, masks: Masks) -> Image.Image:
    picture = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        picture.putpalette([channel for object_id in range(256) for channel in masks.colour(object_id)])
    return picture


def _description(masks: Masks) -> dict[str, Any]:
    known: dict[str, Any] = {"objects": {str(object_id): masks.name(object_id) for object_id in masks.ids}}
    if masks.spacing_mm is not None:
        known["spacing_mm"] = list(masks.spacing_mm)
    if masks.frame_times_s is not None and len(masks.labels) > 1:  # beside a still there may be a loop of its name
        known["frame_times_s"] = masks.frame_times_s.tolist()
    return known


def check_json(path: Path, is_ours: Callable[[Any], bool], what: str) -> None:
    """Refuse to replace a JSON file that is not one of ours, such as the side-car of a loop.

    Parameters
    ----------
    is_ours : callable
        Whether what is in a file was written with masks.
    what : str
        What is to be written there.

    Raises
    ------
    WriteError
    """
    if not path.exists():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not is_ours(content):
        why = f"{what} would go into {path.name}, which exists and holds something else"
        raise WriteError("The masks were not written", why, "Choose another name")


def _is_description(content: dict[str, Any]) -> bool:
    """Whether it is what `_description` gives."""
    objects = content.get("objects")
    if not isinstance(objects, dict) or not set(content) <= {"objects", "spacing_mm", "frame_times_s"}:
        return False
    return all(key.isdecimal() and isinstance(name, str) for key, name in objects.items())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _polygons(labels: np.ndarray, numbers: dict[int, int]) -> Iterator[str]:
    height, width = labels.shape
    for object_id in np.unique(labels[labels != 0]).tolist():
        filled = np.pad(binary_fill_holes(labels == object_id), 1).astype(float)
        for contour in find_contours(filled, 0.5):
            corners = approximate_polygon(contour, _TOLERANCE)[:-1, ::-1] - 0.5  # edge based, without the padding
            shares = (corners / (width, height)).clip(0, 1)
            yield f"{numbers[object_id]} {' '.join(f'{value:.7f}' for value in shares.ravel())}\n"
