"""Masks in files: label images of any kind, the structures that they mark, and the images that they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import SUFFIXES

MASK_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".gz", ".mha", ".mhd", ".nrrd", ".npy")
_SUFFIXES = sorted({*SUFFIXES, *MASK_SUFFIXES, ".nii.gz"}, key=len, reverse=True)  # ".nii.gz" before ".gz"
_MASK_MARK = re.compile(r"(?<=.)[ _-](masks?|gt|labels?|seg|segmentation|annotation)$")
_ITK = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
_LARGEST_LABEL = 64  # a mask whose values all lie below is a label image; else it is black and white
_MIN_PIXELS = 60  # smaller connected parts are the annotator's slips


def stem_of(path: Path) -> str:
    """A name without a suffix that is known; another dot, as in the number of a DICOM file, is part of the name."""
    suffix = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def masks_by_name(masks: Iterable[Path]) -> dict[str, list[Path]]:
    """Masks by the name of what they belong to: ``_mask`` and the like at its end do not count, nor does case."""
    found: dict[str, list[Path]] = {}
    for mask in masks:
        found.setdefault(_plain_name(mask), []).append(mask)
    return found


def masks_by_image(images: Iterable[Path], masks: Iterable[Path]) -> dict[Path, list[Path]]:
    """The masks of each image, file of a loop or folder of frames that has some, by its name.

    A mask that is named just as an image is that one's. Of the others ``_mask`` and the like at the end do not count.
    """
    exact: dict[str, list[Path]] = {}
    plain: dict[str, list[Path]] = {}
    for image in images:
        exact.setdefault(stem_of(image).lower(), []).append(image)
        plain.setdefault(_plain_name(image), []).append(image)
    found: dict[Path, list[Path]] = {}
    for mask in masks:
        name = _plain_name(mask)
        for image in exact.get(stem_of(mask).lower()) or exact.get(name) or plain.get(name, ()):
            found.setdefault(image, []).append(mask)
    return found


def only_mask(owner: str, masks: Sequence[Path]) -> Path | None:
    """The one mask there is of something, or None.

    Raises
    ------
    ReadError
        When there are several.
    """
    if len(masks) > 1:
        names = " and ".join(mask.name for mask in masks)
        raise ReadError(f"The mask of {owner} is not clear", f"{names} have its name", "Keep one, rename the others")
    return masks[0] if masks else None


def read_labels(path: Path) -> np.ndarray:
    """A mask file as label images (T, H, W) of integers: the stored values, palette indices included.

    Of a coloured mask each pixel has the value of its brightest channel: red is as much a mark as white is.

    Raises
    ------
    ReadError
        Naming the file when it cannot be read, or holds numbers that are not whole, such as probabilities.
    """
    name = path.name.lower()
    try:
        if name.endswith(_ITK):
            import SimpleITK as sitk

            labels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        elif name.endswith((".tif", ".tiff")):
            import tifffile

            labels = tifffile.imread(path)
        elif name.endswith(".npy"):
            labels = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                is_stored = image.mode in ("P", "I;16", "I")
                labels = np.asarray(image if is_stored else image.convert(Image.getmodebase(image.mode)))
    except (OSError, ValueError, RuntimeError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ReadError(
            f"The mask {path.name} cannot be read", "it is damaged, cut off, or not an image", "Copy or export it again"
        ) from error
    labels = labels[..., :3].max(axis=-1) if labels.ndim in (3, 4) and labels.shape[-1] in (3, 4) else labels
    labels = labels.astype(np.uint8) if labels.dtype == bool else labels
    if labels.ndim == 2:
        labels = labels[None]
    if labels.ndim != 3:
        raise ReadError(f"The mask {path.name} has the shape {labels.shape}", fix="Give (H, W) or (T, H, W)")
    if np.issubdtype(labels.dtype, np.inexact):
        labels = _whole_numbers(labels, path)
    labels.setflags(write=False)
    return labels


def structures(
    labels: np.ndarray, names: Mapping[int, str] | None = None, separate: bool = False
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The structures of a label image.

    Parameters
    ----------
    labels : (H, W)
        Where all values lie below 65, each is a structure; else it is black and white with noise, as a JPEG is, and
        everything in the upper half of the range is one structure.
    names : mapping of int to str, optional
        Take these values only, under these names.
    separate : bool
        Every connected part is a structure of its own; specks are dropped.

    Returns
    -------
    masks : (K, H, W) bool
        None of them empty.
    objects : tuple of K str
        The names; a label's number where it has none.
    """
    if names:
        found = [(str(name), labels == value) for value, name in names.items()]
    elif labels.size and labels.max() > _LARGEST_LABEL:
        found = [("object", labels > (127 if labels.dtype == np.uint8 else labels.max() / 2))]
    else:
        found = [(str(value), labels == value) for value in np.unique(labels) if value > 0]
    if separate:
        found = [(name, part) for name, mask in found for part in _parts(mask)]
    found = [(name, mask) for name, mask in found if mask.any()]
    masks = np.stack([mask for _, mask in found]) if found else np.zeros((0, *labels.shape), bool)
    return masks, tuple(name for name, _ in found)


def _whole_numbers(labels: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(labels).all() or (labels != np.round(labels)).any():
        raise ReadError(
            f"The mask {path.name} holds no labels",
            "its numbers are not whole: they may be probabilities",
            "Write 0 and 255, or a whole number for each structure",
        )
    return labels.astype(np.int32)


def _parts(mask: np.ndarray) -> list[np.ndarray]:
    numbered, count = ndimage.label(mask)
    parts = [numbered == number for number in range(1, count + 1)]
    return [part for part in parts if part.sum() >= _MIN_PIXELS]


def _plain_name(path: Path) -> str:
    return _MASK_MARK.sub("", stem_of(path).lower())
