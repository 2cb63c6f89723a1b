"""NRRD headers (nrrd, nhdr), with the per-frame fields that PLUS writes into sequences."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.raw import RawLayout, beside
from napari_uniultra.io.readers.units import millimetres

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"), "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"), "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",), "f8": ("double",),
}  # fmt: skip
_MAX_HEADER = 256 << 20
_COLOUR_KINDS = {"rgb-color", "rgba-color", "3-color", "4-color"}
_ANY_KINDS = {"vector", "list"}  # colours when they come first, frames when they come last


def read_nrrd_header(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a header, keys in lower case for NRRD's own and as they are for others, and the position behind it.

    Raises
    ------
    ReadError
        When it does not end as such a header does.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        file.readline(64)
        while file.tell() < _MAX_HEADER:
            line = file.readline(1 << 16)
            text = line.decode("latin-1").strip()
            if line and not text:
                return fields, file.tell()
            if not line:
                break
            if text.startswith("#"):
                continue
            key, separator, value = text.partition(":=")
            if not separator:
                key, separator, value = text.partition(":")
                key = key.strip().lower()
            fields[key.strip()] = value.strip()
    if "data file" in fields or "datafile" in fields:
        return fields, path.stat().st_size  # a detached header needs no empty line
    raise ReadError(f"{path.name} cannot be read", "its header is damaged or cut off", "Copy or save it again")


def nrrd_layout(path: Path, fields: dict[str, str], behind: int) -> RawLayout | None:
    """Where the loop's values are; None for a kind of NRRD that only ITK reads.

    Raises
    ------
    ReadError
        When the header names a file elsewhere.
    """
    data = fields.get("data file", fields.get("datafile"))
    if data is not None and (data.upper().startswith("LIST") or "%" in data):
        raise ReadError(f"{path.name} cannot be read", "it names several data files", "Save it as one file")
    where = path if data is None else beside(path, data)
    encodings = {"raw": "", "gzip": "gzip", "gz": "gzip"}
    encoding = encodings.get(fields.get("encoding", "").lower())
    dtype = next((code for code, names in _TYPES.items() if fields.get("type", "").lower() in names), None)
    skips = any(fields.get(key, fields.get(key.replace(" ", ""), "0")) != "0" for key in ("line skip", "byte skip"))
    try:
        sizes = [int(size) for size in fields["sizes"].split()]
    except (KeyError, ValueError):
        return None
    if encoding is None or dtype is None or skips or len(sizes) < 2 or min(sizes) < 1:
        return None
    kinds = fields.get("kinds", "").lower().split()
    if any(kind in _COLOUR_KINDS for kind in kinds[1:]):
        return None  # colours as planes
    is_colour = kinds[:1] != [] and (kinds[0] in _COLOUR_KINDS or (kinds[0] in _ANY_KINDS and sizes[0] in (3, 4)))
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    offset = 0 if data is not None else behind
    return RawLayout(where, offset, tuple(reversed(sizes)), is_colour, np.dtype(f"{order}{dtype}"), encoding)


def nrrd_spacing(fields: dict[str, str], is_colour: bool) -> tuple[float, float] | None:
    """(row, column) in mm; None where it is not stated. A unit that is not stated is mm, as is the custom."""
    units = re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", ""))) or ["mm"]
    scale = millimetres(next((unit for unit in units if unit), "mm"))
    vectors = re.findall(r"\([^)]*\)", fields.get("space directions", ""))  # "none", of an axis of colours, has none
    try:
        if vectors:
            sizes = [float(np.linalg.norm([float(word) for word in v.strip("()").split(",")])) for v in vectors[:2]]
        else:
            words = fields["spacings"].split()
            sizes = [float(word) for word in words[int(is_colour) :][:2]]
        column, row = (size * scale for size in sizes)
    except (KeyError, ValueError):
        return None
    return (row, column) if np.isfinite([row, column]).all() and min(row, column) > 0 else None
