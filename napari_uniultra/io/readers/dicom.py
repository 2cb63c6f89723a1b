"""DICOM stills and multi-frame loops.

Only the elements listed here are ever looked at: none of them names a patient. pydicom's own messages may quote any
part of a damaged file, so they are not passed on.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.pixels import apply_color_lut, as_pixel_options, get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.lazy import LazyFrames, check_size

_PIXEL_ELEMENTS = [
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
]  # fmt: skip
_GEOMETRY_ELEMENTS = ["PixelSpacing", "SequenceOfUltrasoundRegions"]
_TIME_ELEMENTS = ["FrameTimeVector", "FrameTime", "CineRate", "RecommendedDisplayFrameRate"]

_COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_GREYS = {"MONOCHROME1", "MONOCHROME2"}
_PIXEL_DATA = 0x7FE00010
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_BOX = "RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1"
_TISSUE_2D, _CENTIMETRE = 1, 3  # PS3.3 C.8.5.5: RegionSpatialFormat and PhysicalUnitsX/YDirection

_quiet_lock = threading.Lock()  # warning filters and pydicom's settings belong to the whole process


def read_dicom(path: Path) -> Cine:
    """Open a DICOM still or loop; frames are decoded when they are looked at.

    Raises
    ------
    ReadError
        When the file is damaged, holds no picture, or is compressed in a way that cannot be decoded here.
    """
    with _quiet_pydicom():
        return _read(path)


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from quoting values of a damaged file, a patient's name among them, in warnings and in the log."""
    logger = logging.getLogger("pydicom")
    with _quiet_lock, warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        logger.addFilter(_drop)
        try:
            yield
        finally:
            logger.removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False


def _read(path: Path) -> Cine:
    name = path.name
    with path.open("rb") as file:
        header, syntax = _read_header(file, name)
        options = _pixel_options(header, syntax, name)
        start = _locate_pixels(file, syntax, options, name)
    frames = _DicomFrames(path, header, syntax, options, start)
    frames[0]  # a codec that cannot decode this file says so now, not in the middle of the work
    shape_hw = frames.shape[1:3]
    region, note = _usable_region(header, shape_hw)
    details = {"format": "DICOM", "transfer_syntax": syntax.name} | ({"spacing": note} if note else {})
    return Cine(
        frames=frames,
        spacing_mm=_region_spacing(region) or _pixel_spacing(header),
        frame_times_s=_frame_times(header, len(frames)),
        sector=_region_mask(region, shape_hw),
        source=str(path),
        details=details,
    )


def _read_header(file: BinaryIO, name: str) -> tuple[pydicom.Dataset, UID]:
    """All that is needed but the pixels; leaves ``file`` at the pixel data element."""
    wanted = _PIXEL_ELEMENTS + _GEOMETRY_ELEMENTS + _TIME_ELEMENTS
    try:
        if _is_deflated(file):
            # pydicom inflates such a file at once and without a limit, and no scanner writes them.
            raise ReadError(f"{name} cannot be read", "the whole file is deflated", "Export it in another form")
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=wanted)
        syntax = UID(header.file_meta.get("TransferSyntaxUID") or _guessed_syntax(header))
    except ReadError:
        raise
    except Exception as error:  # a damaged header can raise anything, and quote a patient's data in its message
        raise _damaged(name, f"its header cannot be parsed ({type(error).__name__})") from None
    if not (syntax.is_valid and syntax.is_transfer_syntax):
        raise _damaged(name, "it does not say how its picture is stored")
    return header, syntax


def _is_deflated(file: BinaryIO) -> bool:
    start = file.read(4096)
    file.seek(0)
    return DeflatedExplicitVRLittleEndian.encode() in start


def _guessed_syntax(header: pydicom.Dataset) -> UID:
    implicit, little_endian = header.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian


def _pixel_options(header: pydicom.Dataset, syntax: UID, name: str) -> dict[str, Any]:
    """Checked values of the Image Pixel module, as pydicom's decoders take them."""
    if "Rows" not in header or "Columns" not in header:
        raise ReadError(f"{name} holds no picture", "it has no rows and columns", "Choose an image or a loop")
    try:
        options = as_pixel_options(header, transfer_syntax_uid=syntax)
        frames, rows, columns = (int(options[key]) for key in ("number_of_frames", "rows", "columns"))
        bits, samples = int(options["bits_allocated"]), int(options["samples_per_pixel"])
        colour_model = str(options["photometric_interpretation"])
        options.setdefault("bits_stored", bits)
        options.setdefault("pixel_representation", 0)
    except Exception as error:  # as above
        raise _damaged(name, f"its description of the picture is incomplete ({type(error).__name__})") from None
    check_size(name, frames, rows, columns)
    expected_samples = 3 if colour_model in _COLOURS else 1
    if colour_model not in _COLOURS | _GREYS | {"PALETTE COLOR"} or samples != expected_samples:
        raise ReadError(
            f"{name} cannot be read",
            "its colour model is not one of grey, palette, RGB and YBR",
            "Export it again in a common form",
        )
    if bits not in (8, 16):
        raise ReadError(f"{name} cannot be read", f"its pixels have {bits} bits; 8 and 16 can be read")
    return options


def _locate_pixels(file: BinaryIO, syntax: UID, options: dict[str, Any], name: str) -> int:
    """Where the value of the pixel data starts, after making sure that all of it is there; adds to ``options``."""
    end = os.fstat(file.fileno()).st_size
    order = "<" if syntax.is_little_endian else ">"
    head = file.read(8)
    if len(head) < 8:
        raise _damaged(name, "it ends before its picture")
    group, element, length = struct.unpack(f"{order}HHL", head)
    if (group << 16) + element != _PIXEL_DATA:
        raise ReadError(f"{name} holds no picture", "it has no pixel data", "Choose an image or a loop")
    if not syntax.is_implicit_VR:
        options["pixel_vr"] = head[4:6].decode("latin-1")
        (length,) = struct.unpack(f"{order}L", file.read(4).ljust(4, b"\0"))
    options["pixel_keyword"] = "PixelData"
    start = file.tell()
    if syntax.is_compressed:
        _index_fragments(file, end, options, name)
    else:
        halved = options["photometric_interpretation"] == "YBR_FULL_422"
        samples = 2 if halved else options["samples_per_pixel"]
        pixels = options["number_of_frames"] * options["rows"] * options["columns"]
        needed = pixels * samples * options["bits_allocated"] // 8
        if length == _UNDEFINED_LENGTH or needed > min(length, end - start):
            raise _damaged(name, f"it holds {max(0, end - start)} of {needed} bytes of its picture")
    return start


def _index_fragments(file: BinaryIO, end: int, options: dict[str, Any], name: str) -> None:
    """Walk the compressed fragments, so that a cut file is found now and any frame is found at once later.

    Raises
    ------
    ReadError
        When a fragment or the end mark is missing, or there are fewer fragments than frames.
    """
    fragments = []
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise _damaged(name, "it ends in the middle of its pictures")
        group, element, length = struct.unpack("<HHL", head)
        if (group, element) == _SEQUENCE_END:
            break
        if (group, element) != _ITEM or length > end - file.tell():
            raise _damaged(name, "it ends in the middle of its pictures, or they are damaged")
        fragments.append((file.tell() - 8, length))
        file.seek(length, os.SEEK_CUR)
    fragments = fragments[1:]  # the first item is the table of offsets
    frames = options["number_of_frames"]
    if len(fragments) < frames:
        raise _damaged(name, f"it states {frames} frames but holds {len(fragments)}")
    options.pop("extended_offsets", None)
    if len(fragments) == frames:
        origin = fragments[0][0]
        options["extended_offsets"] = ([at - origin for at, _ in fragments], [length for _, length in fragments])


class _DicomFrames(LazyFrames):
    """The frames of a DICOM file. The file is opened for each one: an open handle would block moving or deleting it."""

    def __init__(self, path: Path, header: pydicom.Dataset, syntax: UID, options: dict[str, Any], start: int) -> None:
        self._path, self._syntax, self._options, self._start = path, syntax, options, start
        self._model = str(options["photometric_interpretation"])
        self._table = _palette(header, path.name) if self._model == "PALETTE COLOR" else None
        shape = options["number_of_frames"], options["rows"], options["columns"]
        signed = options["pixel_representation"] == 1
        dtype = f"{'' if signed else 'u'}int{options['bits_allocated']}"
        if self._table is not None:
            dtype = "uint8"
        super().__init__(shape if self._model in _GREYS else (*shape, 3), dtype)

    def _decode(self, index: int) -> np.ndarray:
        try:
            decoder = get_decoder(self._syntax)
            with self._path.open("rb") as file:
                file.seek(self._start)
                pixels, _ = decoder.as_array(file, index=index, validate=index == 0, **self._options)
        except Exception as error:  # each codec has its own exceptions for damaged data
            raise ReadError(
                f"Frame {index} of {self._path.name} cannot be decoded",
                f"its {self._syntax.name} data is damaged, or of a kind that no installed decoder reads",
                "Export it again, uncompressed or as JPEG",
            ) from error
        return np.array(self._displayed(pixels), dtype=self.dtype)

    def _displayed(self, pixels: np.ndarray) -> np.ndarray:
        if self._table is not None:
            return self._table[np.minimum(pixels, len(self._table) - 1)]
        if self._model == "MONOCHROME1":  # the lowest value is white
            return ~pixels if pixels.dtype.kind == "i" else ~pixels & pixels.dtype.type(self._white)
        return pixels

    @property
    def _white(self) -> int:
        return (1 << int(self._options["bits_stored"])) - 1


def _palette(header: pydicom.Dataset, name: str) -> np.ndarray:
    """The colour table (N, 3) uint8 for pixel values 0 to N - 1."""
    try:
        values = np.arange(1 << int(header.BitsAllocated), dtype=f"uint{int(header.BitsAllocated)}")
        table = apply_color_lut(values, header)[:, :3]
    except Exception as error:  # a damaged table
        raise _damaged(name, f"its colour table cannot be used ({type(error).__name__})") from None
    # Entries of 16 bits hold the colour in their high byte; some writers put 8-bit values into them unshifted.
    return (table >> 8 if table.max() > 255 else table).astype(np.uint8)


def _usable_region(header: pydicom.Dataset, shape_hw: tuple[int, int]) -> tuple[pydicom.Dataset | None, str]:
    """The largest 2-D region measured in cm, and a remark when there is one that cannot be trusted."""
    regions = [region for region in _value(header, "SequenceOfUltrasoundRegions") or () if _is_measured(region)]
    if not regions:
        return None, ""
    region = max(regions, key=lambda r: np.prod(np.diff(_box(r).reshape(2, 2), axis=0)))
    x0, y0, x1, y1 = _box(region)
    height, width = shape_hw
    if x1 > width or y1 > height or x0 < 0 or y0 < 0:
        # Such a picture was resized or cropped after the region was described. If it was resized, the region's
        # spacing is wrong by that factor, and nothing in the file tells which of the two happened.
        return None, "unknown: the file describes a scan area larger than its picture, so the picture was changed"
    return region, ""


def _is_measured(region: pydicom.Dataset) -> bool:
    keys = "RegionSpatialFormat", "PhysicalUnitsXDirection", "PhysicalUnitsYDirection"
    deltas = [_numbers(region, f"PhysicalDelta{axis}") for axis in "XY"]
    return (
        [_value(region, key) for key in keys] == [_TISSUE_2D, _CENTIMETRE, _CENTIMETRE]
        and all(len(delta) == 1 and delta[0] != 0 for delta in deltas)
        and all(len(_numbers(region, key)) == 1 for key in _BOX)
    )


def _box(region: pydicom.Dataset) -> np.ndarray:
    """(x0, y0, x1, y1) of a region in pixels. Its last column and row are taken as exclusive, as most scanners do."""
    return np.array([int(region[key].value) for key in _BOX])


def _region_spacing(region: pydicom.Dataset | None) -> tuple[float, float] | None:
    if region is None:
        return None
    return abs(float(region.PhysicalDeltaY)) * 10, abs(float(region.PhysicalDeltaX)) * 10


def _region_mask(region: pydicom.Dataset | None, shape_hw: tuple[int, int]) -> np.ndarray | None:
    if region is None:
        return None
    x0, y0, x1, y1 = _box(region)
    mask = np.zeros(shape_hw, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return None if mask.all() or not mask.any() else mask


def _pixel_spacing(header: pydicom.Dataset) -> tuple[float, float] | None:
    spacing = _numbers(header, "PixelSpacing")
    return (float(spacing[0]), float(spacing[1])) if len(spacing) == 2 and (spacing > 0).all() else None


def _frame_times(header: pydicom.Dataset, frames: int) -> np.ndarray | None:
    """Seconds from the first frame, from the most exact element there is; None for a still."""
    if frames < 2:
        return None
    steps_ms = _numbers(header, "FrameTimeVector")
    if len(steps_ms) == frames and (steps_ms[1:] >= 0).all() and steps_ms[1:].any():
        return np.concatenate([[0.0], np.cumsum(steps_ms[1:])]) / 1000
    step_ms = _numbers(header, "FrameTime")
    if len(step_ms) == 1 and step_ms[0] > 0:
        return np.arange(frames) * step_ms[0] / 1000
    for key in ("CineRate", "RecommendedDisplayFrameRate"):
        rate = _numbers(header, key)
        if len(rate) == 1 and rate[0] > 0:
            return np.arange(frames) / rate[0]
    return None


def _numbers(header: pydicom.Dataset, key: str) -> np.ndarray:
    """All finite values of an element, or none of them."""
    value = _value(header, key)
    try:
        values = np.atleast_1d(np.array([] if value is None else value, dtype=float))
    except (TypeError, ValueError):
        return np.empty(0)
    return values if np.isfinite(values).all() else np.empty(0)


def _value(dataset: pydicom.Dataset, key: str) -> Any:
    """The value of an element; None when it is missing or damaged."""
    try:
        return dataset.get(key)
    except Exception:  # pydicom parses a value when it is asked for, and raises all kinds of errors
        return None


def _damaged(name: str, why: str) -> ReadError:
    return ReadError(f"{name} is damaged or incomplete", why, "Copy or export it again")
