"""Files of all kinds to `Cine`: by what is in the file where that tells, else by its suffix."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError

_FAMILIES = {  # family: (function, suffixes); each family's module loads when one of its files is opened
    "dicom": ("read_dicom", (".dcm", ".dicom")),
    "video": ("read_video", (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg")),
    "tiff": ("read_tiff", (".tif", ".tiff")),
    "itk": ("read_itk", (".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz")),
    "images": ("read_still", (".png", ".jpg", ".jpeg", ".bmp", ".webp")),
    "arrays": ("read_array", (".npy", ".npz")),
    "ome_zarr": ("read_zarr", (".zarr",)),
}
SUFFIXES = tuple(suffix for _, suffixes in _FAMILIES.values() for suffix in suffixes)

_MAGIC_BYTES = 132
_STARTS = (
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\x89PNG", "images"),
    (b"\xff\xd8\xff", "images"),
    (b"NRRD0", "itk"),
    (b"\x1a\x45\xdf\xa3", "video"),
    (b"\x30\x26\xb2\x75", "video"),  # ASF: WMV
    (b"\x93NUMPY", "arrays"),
)


def can_read(path: str | os.PathLike[str]) -> bool:
    """Whether `read_cine` would try this file or folder; its content may still turn out to be unreadable."""
    path = Path(path)
    try:
        if path.is_dir():
            return is_zarr(path) or bool(_module("images").image_files(path))
        return _family_by_suffix(path) is not None or _family_by_content(path) is not None
    except (OSError, ValueError, ReadError):  # ValueError: a path with a null character
        return False


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a DICOM file, or may be one: by its content or suffix; unknown kinds count as DICOM."""
    path = Path(path)
    try:
        family = None if path.is_dir() else _family_by_content(path)
        return not path.is_dir() and (family or _family_by_suffix(path) or "dicom") == "dicom"
    except (OSError, ValueError):
        return (_family_by_suffix(path) or "dicom") == "dicom"


def read_cine(
    path: str | os.PathLike[str], *, spacing_mm: tuple[float, float] | None = None, frame_times_s: Any = None
) -> Cine:
    """Open an ultrasound loop or still: DICOM, video, TIFF, NRRD, MHA, NIfTI, Zarr, NumPy, or images in a folder.

    A frame is decoded when it is looked at, so that a long loop opens at once.

    Parameters
    ----------
    path : path
        A file or a folder.
    spacing_mm : (float, float), optional
        Size of a pixel in mm, (row, column), in place of what the file says.
    frame_times_s : array-like, optional
        (T,) seconds from the first frame, in place of what the file says.

    Raises
    ------
    ReadError
        When there is no such file, it is empty, damaged, cut off, or of a kind that cannot be read.
    """
    path = Path(path)
    cine = _reader(path)(path)
    stated = {"spacing_mm": spacing_mm, "frame_times_s": frame_times_s}
    return cine.with_(**{key: value for key, value in stated.items() if value is not None})


def files_of(path: Path) -> list[Path]:
    """The files that a loop or masks are made of, in an order that stays: what may stand beside them included.

    Raises
    ------
    OSError
        When it is not there.
    ReadError
        When a header does not name one data file that is there.
    """
    if path.is_dir():
        inside = path.rglob("*") if is_zarr(path) else path.iterdir()
        files, beside = sorted(file for file in inside if file.is_file()), [path.with_name(f"{path.name}.json")]
    else:
        files, beside = [path], [path.with_suffix(".json"), path.parent / "meta.json", data_file(path)]
    return files + [file for file in dict.fromkeys(beside) if file not in files and file.is_file()]


def data_file(path: Path) -> Path:
    """The file that holds the pixels of a file: mostly itself, and another one where it is only their header.

    Raises
    ------
    OSError
        When it is not there.
    ReadError
        When it does not name one data file that is there.
    """
    is_header = (_family_by_content(path) or _family_by_suffix(path)) == "itk"
    return _module("itk").data_file(path) if is_header else path


def is_zarr(path: Path) -> bool:
    """Whether a path is a Zarr folder: one loop, whatever folders are in it."""
    return _module("ome_zarr").is_zarr(path)


def _reader(path: Path) -> Callable[[Path], Cine]:
    try:
        if path.is_dir():
            return _module("ome_zarr").read_zarr if is_zarr(path) else _module("images").read_folder
        size = path.stat().st_size
        by_content = _family_by_content(path)
    except FileNotFoundError:
        raise ReadError(f"{path.name} does not exist", fix="Check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise ReadError(f"{path.name} cannot be opened", getattr(error, "strerror", "") or "") from error
    if size == 0:
        raise ReadError(f"{path.name} is empty", fix="Copy or export it again")
    family = by_content or _family_by_suffix(path)
    if family is None:
        raise ReadError(
            f"{path.name} is of a kind that cannot be read",
            fix=f"Give one of: {', '.join(SUFFIXES)}, or a folder of images",
        )
    return getattr(_module(family), _FAMILIES[family][0])


def _family_by_content(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(_MAGIC_BYTES)
    if head[128:132] == b"DICM":
        return "dicom"
    if head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "video"
    return next((family for start, family in _STARTS if head.startswith(start)), None)


def _family_by_suffix(path: Path) -> str | None:
    name = path.name.lower()
    return next((family for family, (_, suffixes) in _FAMILIES.items() if name.endswith(suffixes)), None)


def _module(family: str) -> Any:
    return import_module(f"{__name__}.{family}")
