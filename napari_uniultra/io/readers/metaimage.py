"""MetaImage headers (MHA, MHD), with the per-frame fields that PLUS writes into `.igs.mha` sequences."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.raw import RawLayout, beside

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_MAX_HEADER = 256 << 20  # a sequence of PLUS has some ten lines for each frame
_FRAME_FIELD = re.compile(r"Seq_Frame(\d+)_(\w+)")


def read_meta_header(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a header, and the position behind it.

    Raises
    ------
    ReadError
        When it does not end as such a header does.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while file.tell() < _MAX_HEADER:
            line = file.readline(1 << 16)
            key, separator, value = line.decode("latin-1").partition("=")
            if not separator:
                break
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                return fields, file.tell()
    raise ReadError(f"{path.name} cannot be read", "its header is damaged or cut off", "Copy or save it again")


def meta_data_file(path: Path, fields: dict[str, str]) -> Path:
    """The file that holds the values: the header's own, or another one beside it.

    Raises
    ------
    ReadError
        When the header names several files, or one that is elsewhere or not there.
    """
    data = fields["ElementDataFile"]
    if data.split(" ")[0] == "LIST" or "%" in data:
        raise ReadError(f"{path.name} cannot be read", "it names several data files", "Save it as one file")
    return path if data.lower() == "local" else beside(path, data)


def meta_layout(path: Path, fields: dict[str, str], behind: int) -> RawLayout | None:
    """Where the loop's values are; None for a kind of MetaImage that only ITK reads.

    Raises
    ------
    ReadError
        When the header contradicts itself, or names a file elsewhere.
    """
    binary = fields.get("BinaryData", "True").lower() == "true"
    dtype = _TYPES.get(fields.get("ElementType", ""))
    where = meta_data_file(path, fields)
    if not binary or dtype is None:
        return None
    try:
        sizes = [int(size) for size in fields["DimSize"].split()]
        channels = int(fields.get("ElementNumberOfChannels", 1))
        skipped = int(fields.get("HeaderSize", 0))
    except (KeyError, ValueError):
        raise ReadError(f"{path.name} cannot be read", "its header does not state a size") from None
    if len(sizes) < 2 or min(sizes) < 1 or channels < 1 or skipped < 0:
        return None
    swapped = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")).lower() == "true"
    shape = tuple(reversed(sizes)) + ((channels,) if channels > 1 else ())
    is_colour = channels > 1
    deflated = "zlib" if fields.get("CompressedData", "False").lower() == "true" else ""
    offset = behind if where == path else skipped
    return RawLayout(where, offset, shape, is_colour, np.dtype(f"{'>' if swapped else '<'}{dtype}"), deflated)


def frame_fields(fields: dict[str, str], frames: int) -> tuple[np.ndarray | None, np.ndarray]:
    """What PLUS says of each frame: seconds from the first one (T,), or None; and whether it is valid (T,) bool."""
    times, valid = np.full(frames, np.nan), np.ones(frames, bool)
    for key, value in fields.items():
        match = _FRAME_FIELD.fullmatch(key)
        if not match or int(match[1]) >= frames:
            continue
        if match[2] == "Timestamp":
            try:
                times[int(match[1])] = float(value)
            except ValueError:
                continue
        elif match[2] == "ImageStatus":
            valid[int(match[1])] = value.strip().upper() != "INVALID"
    usable = np.isfinite(times).all() and (np.diff(times) >= 0).all()
    return (times - times[0] if usable else None), valid


def meta_spacing(fields: dict[str, str]) -> tuple[float, float] | None:
    """(row, column) in mm; None where it is not stated."""
    stated = fields.get("ElementSpacing", fields.get("ElementSize", ""))
    try:
        column, row = (float(word) for word in stated.split()[:2])
    except ValueError:
        return None
    return (row, column) if np.isfinite([row, column]).all() and min(row, column) > 0 else None
