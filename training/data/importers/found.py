"""What importers share: what they found, pairs of images and masks by name, and masks that they write."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.csv_table import decimal, read_table
from napari_uniultra.core.types import checked_spacing
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.images import SUFFIXES
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.labels import masks_by_image, only_mask, stem_of

_IMAGE_SUFFIXES = (*SUFFIXES, ".mha", ".mhd", ".nii", ".nrrd", ".dcm")


@dataclass(frozen=True)
class Found:
    """What an importer made of a folder.

    Attributes
    ----------
    cases : tuple of Case
    left_out : tuple of (str, str)
        What cannot be used, and why.
    """

    cases: tuple[Case, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def subfolder(folder: Path, *names: str) -> Path:
    """The folder of one of these names, within ``folder`` or ``folder`` itself.

    Raises
    ------
    ReadError
    """
    for name in names:
        if folder.name.lower() == name.lower():
            return folder
        found = next((path for path in sorted(folder.glob("*")) if path.name.lower() == name.lower()), None)
        if found and found.is_dir():
            return found
    raise ReadError(
        f"{folder} does not look as expected",
        f"it has no folder {' or '.join(names)}",
        "Name the folder that the data set was unpacked into",
    )


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, by name, hidden files left out."""
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in _IMAGE_SUFFIXES)


def pairs(entries: Iterable[Path], masks: Iterable[Path]) -> tuple[list[tuple[Path, Path]], list[tuple[str, str]]]:
    """What has a mask of the same name (with or without ``_mask``) with its mask, and what has none or several."""
    entries = list(entries)
    of_images = masks_by_image(entries, masks)
    found, left_out = [], []
    for entry in entries:
        try:
            mask = only_mask(entry.name, of_images.get(entry, ()))
        except ReadError as error:
            left_out.append((entry.name, f"{error.why}. {error.fix}"))
            continue
        if mask is None:
            left_out.append((entry.name, "there is no mask of this name"))
        else:
            found.append((entry, mask))
    return found, left_out


def paired_cases(source: str, images: Path, masks: Path, part: str = "", prefix: str = "", **facts) -> Found:
    """A case for each image that has a mask.

    Parameters
    ----------
    prefix : str
        Before the image's name, for the case's.
    facts
        Further attributes of `Case`, the same for all.
    """
    found, left_out = pairs(image_files(images), image_files(masks))
    cases = (
        Case(f"{source}/{prefix}{stem_of(image)}", image, (mask,), source=source, part=part, **facts)
        for image, mask in found
    )
    return Found(tuple(cases), tuple(left_out))


def pixel_sizes(table: Path, name: str, size: str) -> dict[str, float]:
    """Millimetres per pixel by file name, of a CSV file with such columns; lines without one of them are left out.

    Raises
    ------
    ReadError
        When the file cannot be read, or a size is none.
    """
    sizes: dict[str, float] = {}
    for row in read_table(table).values():
        if not (row.get(name) and row.get(size)):
            continue
        try:
            sizes[row[name]] = checked_spacing([decimal(row[size])] * 2)[0]
        except (ReadError, ValueError) as error:
            why = f"{size} of {row[name]} is {row[size]!r}"
            raise ReadError(f"The table {table} cannot be used", why, "Write mm, or leave it empty") from error
    return sizes


def joined(parts: Iterable[Found]) -> Found:
    """Several as one."""
    parts = list(parts)
    return Found(
        tuple(case for part in parts for case in part.cases), tuple(item for part in parts for item in part.left_out)
    )


def write_mask(labels: np.ndarray, out: Path | None, image: Path) -> Path:
    """Write a label image (H, W) uint8 under ``out`` as ``masks/<name>.png``, and return its path.

    Raises
    ------
    ReadError
        When no folder to write to was given.
    WriteError
    """
    if out is None:
        raise ReadError(
            f"The annotation of {image.name} has to be converted first", fix="Import it with 'uniultra data import'"
        )
    # Names repeat from folder to folder: the path tells them apart.
    path = out / "masks" / f"{image.stem}_{hashlib.sha256(str(image.parent).encode()).hexdigest()[:8]}.png"
    with atomic_path(path) as temporary:
        Image.fromarray(labels).save(temporary)
    return path
