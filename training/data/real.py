"""Reading a folder of annotated ultrasound: stills, loops and the split that says which of them may be trained on.

Layout: ``splits.json`` lists cases under ``train`` and ``val``; a still is ``still/<set>/images/<name>`` with its mask
under ``masks/``; a loop is ``cine/<name>`` with ``frames/`` (or ``video.mp4``) and ``masks/``, one file a frame. In a
palette mask every label is a class, whose connected parts are structures of their own; in a grey one everything above
127 is one structure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_uniultra.errors import ReadError

_MIN_PIXELS = 60  # smaller connected parts are the annotator's slips


@dataclass(frozen=True)
class Annotated:
    """A frame with its structures.

    Attributes
    ----------
    name : str
        The case, relative to the folder.
    image : (H, W) uint8
    masks : (K, H, W) bool
    """

    name: str
    image: np.ndarray
    masks: np.ndarray


def read_split(folder: str | Path, part: str) -> list[str]:
    """The cases of ``train`` or ``val``.

    Raises
    ------
    ReadError
        If the split cannot be read, or holds a case in both parts.
    """
    path = Path(folder) / "splits.json"
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        chosen = list(splits[part])
    except (OSError, ValueError, KeyError) as error:
        raise ReadError(f"The split {path} cannot be read", str(error), "Name a folder with a splits.json") from error
    both = set(splits.get("train", ())) & set(splits.get("val", ()))
    if both:
        raise ReadError(
            f"{path} lists {sorted(both)[0]} for training and for validation", fix="Keep each case in one part"
        )
    return chosen


def load_still(folder: str | Path, case: str, side: int | None = None) -> Annotated:
    """One still of the split. ``side`` stretches it to a square of that many pixels, as the network will."""
    image_path = Path(folder) / case
    mask_path = image_path.parent.parent / "masks" / image_path.name
    return _annotated(case, image_path, mask_path, side)


def load_loop(folder: str | Path, case: str, side: int | None = None) -> list[Annotated]:
    """The annotated frames of a loop that is stored as one file a frame, in order."""
    frames = sorted((Path(folder) / case / "frames").glob("*.png"))
    if not frames:
        raise ReadError(f"The loop {case} has no frames/*.png")
    return [_annotated(f"{case}/{path.stem}", path, Path(folder) / case / "masks" / path.name, side) for path in frames]


def structures(labels: np.ndarray, is_palette: bool) -> np.ndarray:
    """A label image (H, W) as one mask a structure, (K, H, W) bool."""
    if not is_palette:
        return (labels > 127)[None] if (labels > 127).any() else np.zeros((0, *labels.shape), bool)
    masks = []
    for label in np.unique(labels[labels > 0]):
        parts, count = ndimage.label(labels == label)
        masks += [parts == part for part in range(1, count + 1)]
    masks = [mask for mask in masks if mask.sum() >= _MIN_PIXELS]
    return np.stack(masks) if masks else np.zeros((0, *labels.shape), bool)


def _annotated(name: str, image_path: Path, mask_path: Path, side: int | None) -> Annotated:
    try:
        with Image.open(image_path) as image, Image.open(mask_path) as mask:
            is_palette = mask.mode == "P"
            labels = np.asarray(mask if is_palette else mask.convert("L"))
            grey = image.convert("L")
            pixels = np.asarray(grey if side is None else grey.resize((side, side), Image.Resampling.BOX))
    except OSError as error:
        raise ReadError(f"The training case {name} cannot be read", str(error)) from error
    masks = structures(labels, is_palette)
    if side is not None:
        masks = [np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST)) for mask in masks]
        masks = np.stack(masks) if len(masks) else np.zeros((0, side, side), bool)
    return Annotated(name, pixels, masks)
