"""NRRD, MetaImage (MHA, MHD; sequences of PLUS too) and NIfTI.

The usual kinds are mapped from the disk, or inflated as they are looked at; SimpleITK reads the rest as a whole.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.lazy import check_size
from napari_uniultra.io.readers.metaimage import (
    frame_fields,
    meta_data_file,
    meta_layout,
    meta_spacing,
    read_meta_header,
)
from napari_uniultra.io.readers.nrrd import nrrd_data_file, nrrd_layout, nrrd_spacing, nrrd_times, read_nrrd_header
from napari_uniultra.io.readers.raw import MAX_BYTES, RawLayout, open_raw

_HEADER_BYTES = 1 << 16
_NIFTI_HEADER_BYTES = 348
_NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
_SPACING_WORDS = {
    "NrrdImageIO": (b"spacings:", b"space directions:"),
    "MetaImageIO": (b"ElementSpacing", b"ElementSize"),
}
_META = (".mha", ".mhd")
_DETACHED = (".mhd", ".nhdr", ".hdr")


def read_itk(path: Path) -> Cine:
    """Read an image, or a stack of images along its last axis, as a loop.

    Raises
    ------
    ReadError
        When it is damaged or cut off, has more than one axis besides rows and columns, names a data file outside its
        folder, or would not fit into memory.
    """
    if _is_nrrd(path):
        return _read_nrrd(path)
    if path.suffix.lower() in _META:
        return _read_meta(path)
    return _read_by_itk(path)


def stored_values(path: Path) -> np.ndarray:
    """What `read_itk` reads, as it is stored: a `Cine` would scale it to what can be shown.

    Raises
    ------
    ReadError
        As `read_itk`, which is to be asked first: it checks more.
    """
    layout = nrrd_layout(path, *read_nrrd_header(path)) if _is_nrrd(path) else None
    if layout is None:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return np.array(open_raw(layout, path.name))


def data_file(path: Path) -> Path:
    """The file with the values of what `read_itk` reads: where a header stands alone, another one beside it.

    Raises
    ------
    ReadError
        When the header is damaged, or does not name one file that is there.
    """
    if _is_nrrd(path):
        return nrrd_data_file(path, read_nrrd_header(path)[0])
    if path.suffix.lower() in _META:
        return meta_data_file(path, read_meta_header(path)[0])
    return path


def _is_nrrd(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"NRRD"


def _read_nrrd(path: Path) -> Cine:
    fields, behind = read_nrrd_header(path)
    layout = nrrd_layout(path, fields, behind)
    if layout is None:
        return _read_by_itk(path)
    frames = open_raw(layout, path.name)
    times, valid = frame_fields(fields, frames.shape[0])
    return Cine(
        frames,
        spacing_mm=nrrd_spacing(fields, int(layout.is_colour or layout.frames_last)),
        frame_times_s=nrrd_times(fields, layout) if times is None else times,
        source=str(path),
        details={"format": "NRRD"} | _remark(valid),
    )


def _read_meta(path: Path) -> Cine:
    fields, behind = read_meta_header(path)
    layout = meta_layout(path, fields, behind)
    if layout is None:
        return _read_by_itk(path)
    frames = open_raw(layout, path.name)
    times, valid = frame_fields(fields, frames.shape[0])
    orientation = fields.get("UltrasoundImageOrientation")
    return Cine(
        frames,
        spacing_mm=meta_spacing(fields),
        frame_times_s=times,
        source=str(path),
        details={"format": "MetaImage"} | ({"orientation": orientation} if orientation else {}) | _remark(valid),
    )


def _remark(valid: np.ndarray) -> dict[str, str]:
    return {} if valid.all() else {"frames": f"{int((~valid).sum())} are marked as invalid"}


def _read_by_itk(path: Path) -> Cine:
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
    layout = _nifti_layout(path, reader) if reader.GetImageIO() == "NiftiImageIO" else None
    return Cine(
        frames=_whole(path, reader, frames) if layout is None else open_raw(layout, path.name),
        spacing_mm=_spacing(path, reader),
        frame_times_s=_times(reader, loop_axes, frames),
        source=str(path),
        details={"format": reader.GetImageIO().removesuffix("ImageIO")},
    )


def _whole(path: Path, reader: sitk.ImageFileReader, frames: int) -> np.ndarray:
    size = reader.GetSize()
    _check_memory(path, reader, size)
    try:
        pixels = sitk.GetArrayFromImage(reader.Execute())
    except (RuntimeError, MemoryError, ValueError) as error:
        raise _unreadable(path, "it is damaged or cut off") from error
    return pixels.reshape(frames, size[1], size[0], *pixels.shape[len(size) :])


def _nifti_layout(path: Path, reader: sitk.ImageFileReader) -> RawLayout | None:
    """Where the values of a NIfTI of one file and with plain numbers are; else None."""
    kind = _NIFTI_TYPES.get(_nifti_number(reader, "datatype"))
    slope, intercept = (_nifti_number(reader, key) for key in ("scl_slope", "scl_inter"))
    scaled = np.isfinite([slope, intercept]).all() and slope != 0 and (slope, intercept) != (1, 0)
    if kind is None or scaled or path.suffix.lower() in _DETACHED or reader.GetNumberOfComponents() != 1:
        return None
    is_packed = path.suffix.lower() == ".gz"
    with gzip.open(path) if is_packed else path.open("rb") as file:
        try:
            head = file.read(_NIFTI_HEADER_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(path, "it is damaged or cut off") from error
    order = "<" if head[:4] == _NIFTI_HEADER_BYTES.to_bytes(4, "little") else ">"
    if head[344:348] != b"n+1\0" or len(head) < _NIFTI_HEADER_BYTES:
        return None
    (offset,) = struct.unpack(f"{order}f", head[108:112])
    if not np.isfinite(offset) or not 0 <= offset < 1 << 30:
        return None
    offset = max(int(offset), _NIFTI_HEADER_BYTES)
    shape = tuple(reversed(reader.GetSize()))
    return RawLayout(
        path, int(offset), shape, False, np.dtype(f"{order}{kind}"), "gzip" if is_packed else "", is_packed
    )


def _nifti_number(reader: sitk.ImageFileReader, key: str) -> float:
    try:
        return float(reader.GetMetaData(key))
    except (RuntimeError, ValueError):
        return float("nan")


def _check_memory(path: Path, reader: sitk.ImageFileReader, size: tuple[int, ...]) -> None:
    values = int(np.prod(size, dtype=object)) * reader.GetNumberOfComponents()
    item = sitk.Image([1] * len(size), reader.GetPixelID(), reader.GetNumberOfComponents()).GetSizeOfPixelComponent()
    needed = values * item
    if needed > MAX_BYTES:
        raise _unreadable(path, f"it would take {needed / 2**30:.0f} GiB of memory")
    if reader.GetImageIO() == "NiftiImageIO" and path.suffix.lower() not in _DETACHED:
        bits = _nifti_number(reader, "bitpix")  # as stored: ITK makes floats of what is scaled
        _check_nifti_length(path, int(values * bits) // 8 if bits > 0 else needed)


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
    stated = _nifti_units(reader) & 7 != 0
    if reader.GetImageIO() != "NiftiImageIO":
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
