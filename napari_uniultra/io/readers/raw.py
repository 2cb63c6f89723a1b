"""Frames that lie one behind the other in a file, plain or deflated as one piece."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.lazy import LazyFrames, check_size

_WHOLE_BYTES = 256 << 20  # deflated loops up to this size are inflated when opened, so that damage is found at once
_MAX_DEFLATION = 1100  # zlib cannot pack tighter, so a smaller file cannot hold what its header states
_READ_BYTES = 1 << 20
_MARK_BYTES = 32 << 20  # inflated bytes between two places from which inflating can go on
MAX_BYTES = 8 << 30  # of a loop that has to be in memory as a whole


@dataclass(frozen=True)
class RawLayout:
    """Where the values of a loop are.

    Attributes
    ----------
    path : Path
        The file that holds them, which may be another than the header's.
    offset : int
        Position of the first value: in the file, or in what is inflated of it when ``skips_inflated``.
    shape : tuple of int
        In the order of the file, slowest axis first: (..., H, W), or (..., H, W, C) when ``is_colour``.
    is_colour : bool
    dtype : dtype
        With its byte order.
    deflated : {"", "zlib", "gzip"}
    skips_inflated : bool
    frames_last : bool
        The last axis is the loop: the values of one pixel on all frames lie together.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    is_colour: bool
    dtype: np.dtype
    deflated: Literal["", "zlib", "gzip"] = ""
    skips_inflated: bool = False
    frames_last: bool = False

    @property
    def bytes(self) -> int:
        """Size of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_raw(layout: RawLayout, name: str) -> np.ndarray | LazyFrames:
    """The frames (T, H, W[, C]) of a layout: mapped from the disk, or inflated.

    Raises
    ------
    ReadError
        When the file is shorter than the header says, it is not one loop, or it would not fit into memory.
    """
    shape = _as_loop(layout, name)
    if not layout.frames_last:
        return _opened(replace(layout, shape=shape), name)
    if layout.deflated and layout.bytes > MAX_BYTES:
        raise ReadError(f"{name} cannot be read", f"it would take {layout.bytes / 2**30:.0f} GiB of memory")
    *rows, columns, frames = layout.shape
    values = np.asarray(_opened(replace(layout, shape=(math.prod(rows), columns, frames)), name))
    return np.moveaxis(values, -1, 0).reshape(shape)


def _opened(layout: RawLayout, name: str) -> np.ndarray | LazyFrames:
    size = layout.path.stat().st_size
    if not layout.deflated:
        if layout.offset + layout.bytes > size:
            raise _cut(name)
        return np.memmap(layout.path, layout.dtype, "r", layout.offset, layout.shape)
    if layout.bytes > size * _MAX_DEFLATION:
        raise ReadError(f"{name} cannot be read", "it is far too small for the size that it states")
    frames = _InflatedFrames(layout, name)
    return np.asarray(frames) if layout.bytes <= _WHOLE_BYTES else frames


def _as_loop(layout: RawLayout, name: str) -> tuple[int, ...]:
    axes, colours = (layout.shape[:-1], layout.shape[-1:]) if layout.is_colour else (layout.shape, ())
    if layout.frames_last:
        axes = (axes[-1], *axes[:-1])
    loops = [n for n in axes[:-2] if n > 1]
    if len(axes) < 2 or len(loops) > 1:
        raise ReadError(
            f"{name} is not one ultrasound loop",
            f"it has {' x '.join(map(str, reversed(axes)))} pixels",
            "Save one slice or volume of it as a stack",
        )
    shape = (loops[0] if loops else 1, *axes[-2:])
    check_size(name, *shape)
    return (*shape, *colours)


class _InflatedFrames(LazyFrames):
    """Frames of a deflated stream, which can only be inflated from its start: places on the way are remembered."""

    def __init__(self, layout: RawLayout, name: str) -> None:
        self._layout, self._name = layout, name
        self._skip = layout.offset if layout.skips_inflated else 0
        start = 0 if layout.skips_inflated else layout.offset
        window = zlib.MAX_WBITS | (16 if layout.deflated == "gzip" else 0)
        # (position in the file, position in what was inflated, the inflater as it was there)
        self._marks = [(start, 0, zlib.decompressobj(window))]
        self._last = self._marks[0]  # where the frame before ended: most often the next one is wanted
        super().__init__(layout.shape, layout.dtype.newbyteorder("="))

    def _decode(self, index: int) -> np.ndarray:
        size = math.prod(self.shape[1:]) * self._layout.dtype.itemsize
        begin = self._skip + index * size
        values = np.frombuffer(self._inflated(begin, begin + size), self._layout.dtype)
        return values.astype(self.dtype).reshape(self.shape[1:])

    def _inflated(self, begin: int, end: int) -> bytes:
        places = (mark for mark in (*self._marks, self._last) if mark[1] <= begin)
        at, position, inflater = max(places, key=lambda mark: mark[1])
        inflater, result = inflater.copy(), bytearray()
        try:
            with self._layout.path.open("rb") as file:
                file.seek(at)
                while position < end:
                    block = inflater.unconsumed_tail or file.read(_READ_BYTES)
                    # Bounded, since a crafted block of 1 MB can inflate to 1 GB.
                    piece = inflater.decompress(block, min(8 * _READ_BYTES, end - position))
                    result += piece[max(begin - position, 0) :]
                    position += len(piece)
                    if position < end and (inflater.eof or not (piece or block)):
                        raise _cut(self._name)
                    if position >= self._marks[-1][1] + _MARK_BYTES:
                        self._marks.append((file.tell(), position, inflater.copy()))
                self._last = file.tell(), position, inflater
        except zlib.error as error:
            raise ReadError(f"{self._name} cannot be read", "its compressed data is damaged") from error
        return bytes(result)


def _cut(name: str) -> ReadError:
    return ReadError(f"{name} cannot be read", "it is cut off", "Copy or save it again")


def beside(header: Path, stated: str) -> Path:
    """The data file that a header names, which must lie in the header's folder or below it.

    Raises
    ------
    ReadError
        When it leads elsewhere, or is not there.
    """
    folder = header.parent.resolve()
    try:
        path = (folder / stated).resolve()
        inside = path.is_relative_to(folder)
        exists = inside and path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have; a ring of links
        inside, exists = True, False
    if not inside:
        raise ReadError(f"{header.name} cannot be read", "it names a data file outside its own folder")
    if not exists:
        raise ReadError(f"{header.name} cannot be read", "the data file that it names is not there")
    return path
