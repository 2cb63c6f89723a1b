"""NRRD headers (nrrd, nhdr), with the per-frame fields that PLUS writes into sequences.

Axes are listed from the fastest to the slowest. 3D Slicer writes sequences (`.seq.nrrd`) with the frames as the slowest
axis, and older versions as the fastest one.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.raw import RawLayout, beside
from napari_uniultra.io.readers.units import millimetres, seconds

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
_LOOP_KINDS, _SPACE_KINDS = {"list", "time"}, {"domain", "space"}


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


def nrrd_data_file(path: Path, fields: dict[str, str]) -> Path:
    """The file that holds the values: the header's own, or another one beside it.

    Raises
    ------
    ReadError
        When the header names several files, or one that is elsewhere or not there.
    """
    data = fields.get("data file", fields.get("datafile"))
    if data is None:
        return path
    if data.upper().startswith("LIST") or "%" in data:
        raise ReadError(f"{path.name} cannot be read", "it names several data files", "Save it as one file")
    return beside(path, data)


def nrrd_layout(path: Path, fields: dict[str, str], behind: int) -> RawLayout | None:
    """Where the loop's values are; None for a kind of NRRD that only ITK reads.

    Raises
    ------
    ReadError
        When the header names a file elsewhere, or frames come first and are stored as only ITK reads them.
    """
    where = nrrd_data_file(path, fields)
    encodings = {"raw": "", "gzip": "gzip", "gz": "gzip"}
    encoding = encodings.get(fields.get("encoding", "").lower())
    dtype = next((code for code, names in _TYPES.items() if fields.get("type", "").lower() in names), None)
    skips = any(fields.get(key, fields.get(key.replace(" ", ""), "0")) != "0" for key in ("line skip", "byte skip"))
    try:
        sizes = [int(size) for size in fields["sizes"].split()]
    except (KeyError, ValueError):
        return None
    kinds = fields.get("kinds", "").lower().split()
    frames_first = _frames_come_first(kinds, sizes)
    if encoding is None or dtype is None or skips or len(sizes) < 2 or min(sizes) < 1:
        if frames_first:  # ITK would take them for colours
            why = "its frames come first, and its values are not plain or gzipped numbers"
            raise ReadError(f"{path.name} cannot be read", why, "Save it again without compression")
        return None
    is_colour = not frames_first and _colours_come_first(kinds, sizes)
    if any(kind in _COLOUR_KINDS for kind in kinds[1:]) or (kinds[:1] == ["vector"] and not is_colour):
        return None  # colours as planes; vectors that are no colours
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    values = np.dtype(f"{order}{dtype}")
    offset = behind if where == path else 0
    return RawLayout(where, offset, tuple(reversed(sizes)), is_colour, values, encoding, frames_last=frames_first)


def _frames_come_first(kinds: list[str], sizes: list[int]) -> bool:
    """Whether the fastest axis is the loop: a list, or time, before axes that are all in space."""
    in_space = len(sizes) > 2 and len(kinds) == len(sizes) and set(kinds[1:]) <= _SPACE_KINDS
    return in_space and kinds[0] in _LOOP_KINDS


def _colours_come_first(kinds: list[str], sizes: list[int]) -> bool:
    return kinds[:1] != [] and (kinds[0] in _COLOUR_KINDS or (kinds[0] in _ANY_KINDS and sizes[0] in (3, 4)))


def nrrd_spacing(fields: dict[str, str], skipped: int) -> tuple[float, float] | None:
    """(row, column) in mm; None where it is not stated. A unit that is not stated is mm, as is the custom.

    Parameters
    ----------
    fields : dict
    skipped : int
        How many axes, of colours or frames, come before columns and rows.
    """
    in_space = "space units" in fields  # else there is a unit for each axis, those that are not in space too
    units = re.findall(r'"([^"]*)"', fields["space units"] if in_space else fields.get("units", ""))
    scale = millimetres(next((unit for unit in units[0 if in_space else skipped :][:2] if unit), "mm"))
    vectors = re.findall(r"\([^)]*\)", fields.get("space directions", ""))  # "none", of an axis of colours, has none
    try:
        if vectors:
            first = skipped if len(vectors) == len(fields["sizes"].split()) else 0  # a space may have time in it
            sizes = [float(np.linalg.norm([float(w) for w in v.strip("()").split(",")])) for v in vectors[first:][:2]]
        else:
            sizes = [float(word) for word in fields["spacings"].split()[skipped:][:2]]
        column, row = (size * scale for size in sizes)
    except (KeyError, ValueError):
        return None
    return (row, column) if np.isfinite([row, column]).all() and min(row, column) > 0 else None


def nrrd_times(fields: dict[str, str], layout: RawLayout) -> np.ndarray | None:
    """Seconds from the first frame (T,), where the axis of the frames has a unit of time; else None.

    3D Slicer lists a value for each frame of a sequence (`axis 3 index values`), others state the spacing of that axis.
    """
    sizes = fields["sizes"].split()
    axis = 0 if layout.frames_last else len(sizes) - 1
    units = re.findall(r'"([^"]*)"', fields.get("units", ""))
    unit = seconds(units[axis]) if len(units) == len(sizes) else 0.0
    if not unit or len(sizes) - layout.is_colour < 3:
        return None
    try:
        listed = [float(word) for word in fields.get(f"axis {axis} index values", "").split()]
        step = float(fields["spacings"].split()[axis]) if "spacings" in fields and not listed else np.nan
    except (ValueError, IndexError):
        return None
    frames = int(sizes[axis])
    times = unit * (np.array(listed) if listed else np.arange(frames) * step)
    is_usable = len(times) == frames and np.isfinite(times).all() and (np.diff(times) >= 0).all()
    return times - times[0] if is_usable else None
