"""What a DICOM file says of its pictures, without looking at their pixels.

Only the elements listed here are ever looked at: none of them names a patient. pydicom's own messages may quote any
part of a damaged file, so they are not passed on.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.filereader import read_preamble
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels import as_pixel_options
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.dicom_codecs import NEW_SYNTAXES
from napari_uniultra.io.readers.dicom_display import GREY_ELEMENTS, PALETTE_ELEMENTS
from napari_uniultra.io.readers.dicom_tags import GEOMETRY_ELEMENTS, TIME_ELEMENTS
from napari_uniultra.io.readers.lazy import check_size

GREYS = {"MONOCHROME1", "MONOCHROME2"}

_PIXEL_ELEMENTS = [
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
]  # fmt: skip
_COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "XYB"}
_MAX_INFLATED = 512 << 20  # of a deflated file, which cannot be read in parts


def opener(path: Path) -> Callable[[], BinaryIO]:
    """The file itself: opened for each frame, since an open handle would block moving or deleting it.

    A file that is deflated as a whole cannot be read in parts: it is inflated once, up to a limit.
    """
    with path.open("rb") as file:
        start = file.read(4096)
        if DeflatedExplicitVRLittleEndian.encode() not in start:
            return lambda: path.open("rb")
        file.seek(0)
        try:
            content = _inflated_file(file)
        except Exception as error:  # a damaged header can raise anything
            raise damaged(path.name, f"it cannot be inflated ({type(error).__name__})") from None
    if content is None:
        limit = f"it takes more than {_MAX_INFLATED >> 20} MB when it is inflated"
        raise ReadError(f"{path.name} cannot be read", limit, "Export it in another form")
    return lambda: io.BytesIO(content)


def read_header(file: BinaryIO, name: str) -> tuple[pydicom.Dataset, UID]:
    """All that is needed but the pixels, and how these are stored; leaves ``file`` at the pixel data element.

    Raises
    ------
    ReadError
        When the header is damaged.
    """
    wanted = _PIXEL_ELEMENTS + PALETTE_ELEMENTS + GREY_ELEMENTS + GEOMETRY_ELEMENTS + TIME_ELEMENTS
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=wanted)
        syntax = UID(header.file_meta.get("TransferSyntaxUID") or _guessed_syntax(header))
    except Exception as error:  # a damaged header can raise anything, and quote a patient's data in its message
        raise damaged(name, f"its header cannot be parsed ({type(error).__name__})") from None
    if syntax not in NEW_SYNTAXES and not (syntax.is_valid and syntax.is_transfer_syntax):
        raise damaged(name, "it does not say how its picture is stored")
    return header, syntax


def pixel_options(header: pydicom.Dataset, syntax: UID, name: str) -> dict[str, Any]:
    """Checked values of the Image Pixel module, as pydicom's decoders take them.

    Raises
    ------
    ReadError
        When they are missing, or describe nothing that is a picture.
    """
    if "Rows" not in header or "Columns" not in header:
        raise ReadError(f"{name} holds no picture", "it has no rows and columns", "Choose an image or a loop")
    try:
        options = as_pixel_options(header, transfer_syntax_uid=syntax)
        for key in ("number_of_frames", "rows", "columns", "bits_allocated", "samples_per_pixel"):
            options[key] = int(options[key])
        bits = options["bits_allocated"]
        stored = options["bits_stored"] = int(options.get("bits_stored") or bits)
        options["pixel_representation"] = int(options.get("pixel_representation") or 0)
        colour_model = str(options["photometric_interpretation"])
    except Exception as error:  # as above
        raise damaged(name, f"its description of the picture is incomplete ({type(error).__name__})") from None
    check_size(name, options["number_of_frames"], options["rows"], options["columns"])
    expected_samples = 3 if colour_model in _COLOURS else 1
    known = colour_model in _COLOURS | GREYS | {"PALETTE COLOR"}
    if not known or options["samples_per_pixel"] != expected_samples:
        raise ReadError(
            f"{name} cannot be read",
            "its colour model is not one of grey, palette, RGB and YBR",
            "Export it again in a common form",
        )
    if not 1 <= stored <= bits or options["pixel_representation"] not in (0, 1):
        raise damaged(name, f"it states {stored} of {bits} bits of a pixel")
    return options


def syntax_name(syntax: UID) -> str:
    """A transfer syntax in words."""
    return NEW_SYNTAXES.get(syntax) or syntax.name


def damaged(name: str, why: str) -> ReadError:
    """The error for a file that is not whole, or not what it says it is."""
    return ReadError(f"{name} is damaged or incomplete", why, "Copy or export it again")


def _inflated_file(file: BinaryIO) -> bytes | None:
    """The same file without deflation; None when it is too large."""
    read_preamble(file, force=True)
    meta = pydicom.filereader._read_file_meta_info(file)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    dataset = inflater.decompress(file.read(), _MAX_INFLATED)
    if inflater.unconsumed_tail:
        return None
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole = io.BytesIO()
    whole.write(bytes(128) + b"DICM")
    write_file_meta_info(whole, meta, enforce_standard=False)
    return whole.getvalue() + dataset


def _guessed_syntax(header: pydicom.Dataset) -> UID:
    implicit, little_endian = header.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
