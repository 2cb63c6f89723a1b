"""NRRD, MetaImage (MHA, MHD) and NIfTI, through SimpleITK."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.lazy import check_size

_MAX_BYTES = 8 << 30
_MAX_DEFLATION = 1100  # zlib cannot pack tighter, so a smaller file cannot hold what its header states
_HEADER_BYTES = 1 << 16
_NIFTI_HEADER_BYTES = 348
_SPACING_WORDS = {
    "NrrdImageIO": (b"spacings:", b"space directions:"),
    "MetaImageIO": (b"ElementSpacing", b"ElementSize"),
}
_DETACHED = (".mhd", ".nhdr", ".hdr")


def read_itk(path: Path) -> Cine:
    """Read an image, or a stack of images along its last axis, as a loop.

    These formats hold plain arrays, often compressed as one piece, so the loop is read as a whole.

    Raises
    ------
    ReadError
        When it is damaged or cut off, has more than one axis besides rows and columns, or would not fit into memory.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.SetImageIO(reader.GetImageIOFromFileName(str(path)))
        reader.ReadImageInformation()
    except (RuntimeError, MemoryError) as error:
        raise _unreadable(path, "it is damaged, or not of the kind its name says") from error
    size = reader.GetSize()
    loop_axes = [axis for axis in range(2, len(size)) if size[axis] > 1]
    if len(size) < 2 or len(loop_axes) > 1:
        raise ReadError(
            f"{path.name} is not one ultrasound loop",
            f"it has {' x '.join(map(str, size))} pixels",
            "Save one slice or volume of it as a stack",
        )
    frames = size[loop_axes[0]] if loop_axes else 1
    check_size(path.name, frames, size[1], size[0])
    _check_memory(path, reader, size)
    try:
        pixels = sitk.GetArrayFromImage(reader.Execute())
    except (RuntimeError, MemoryError, ValueError) as error:
        raise _unreadable(path, "it is damaged or cut off") from error
    channels = pixels.shape[len(size) :]
    return Cine(
        frames=pixels.reshape(frames, size[1], size[0], *channels),
        spacing_mm=_spacing(path, reader),
        frame_times_s=_times(reader, loop_axes, frames),
        source=str(path),
        details={"format": reader.GetImageIO().removesuffix("ImageIO")},
    )


def _check_memory(path: Path, reader: sitk.ImageFileReader, size: tuple[int, ...]) -> None:
    values = int(np.prod(size, dtype=object)) * reader.GetNumberOfComponents()
    item = sitk.Image([1] * len(size), reader.GetPixelID(), reader.GetNumberOfComponents()).GetSizeOfPixelComponent()
    needed = values * item
    if needed > _MAX_BYTES:
        raise _unreadable(path, f"it would take {needed / 2**30:.0f} GiB of memory")
    if reader.GetImageIO() == "NiftiImageIO" and path.suffix.lower() not in _DETACHED:
        _check_nifti_length(path, needed)
    elif path.suffix.lower() not in _DETACHED and needed > path.stat().st_size * _MAX_DEFLATION:
        raise _unreadable(path, "it is far too small for the size that it states")


def _check_nifti_length(path: Path, needed: int) -> None:
    """ITK fills up a cut NIfTI with zeros and does not tell, so its length is looked at first."""
    held = path.stat().st_size
    if path.suffix.lower() == ".gz":
        try:
            with gzip.open(path) as file:
                held = 0
                while held < needed + _NIFTI_HEADER_BYTES and (block := file.read(1 << 20)):
                    held += len(block)
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(path, "it is damaged or cut off") from error
    if held < needed + _NIFTI_HEADER_BYTES:
        raise _unreadable(path, "it is cut off")


def _spacing(path: Path, reader: sitk.ImageFileReader) -> tuple[float, float] | None:
    """(row, column) in mm; None where the file does not state it, for which ITK would say 1."""
    if reader.GetImageIO() == "NiftiImageIO":
        stated = _nifti_units(reader) & 7 != 0
    else:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        stated = any(word in header for word in _SPACING_WORDS.get(reader.GetImageIO(), ()))
    column, row = reader.GetSpacing()[:2]
    return (row, column) if stated and np.isfinite([row, column]).all() and min(row, column) > 0 else None


def _times(reader: sitk.ImageFileReader, loop_axes: list[int], frames: int) -> np.ndarray | None:
    """Only NIfTI says that an axis is time and in which unit, and only for its fourth; ITK converts it to seconds."""
    if reader.GetImageIO() != "NiftiImageIO" or loop_axes != [3] or not _nifti_units(reader) & 0x38:
        return None
    step = reader.GetSpacing()[3]
    return np.arange(frames) * step if np.isfinite(step) and step > 0 else None


def _nifti_units(reader: sitk.ImageFileReader) -> int:
    try:
        return int(reader.GetMetaData("xyzt_units"))
    except (RuntimeError, ValueError):
        return 0


def _unreadable(path: Path, why: str) -> ReadError:
    return ReadError(f"{path.name} cannot be read", why, "Copy or save it again")
