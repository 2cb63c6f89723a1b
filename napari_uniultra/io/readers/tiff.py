"""TIFF stacks: plain, ImageJ and OME. Spacing and times are taken where the file states their unit."""

from __future__ import annotations

import math
import re
import struct
import weakref
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from PIL import Image

from napari_uniultra.core.types import Cine
from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.lazy import LazyFrames, check_size
from napari_uniultra.io.readers.units import millimetres, seconds

_CHANNELS = 4


def read_tiff(path: Path) -> Cine:
    """Open a TIFF picture or stack; pages are decoded, or mapped from the disk, when they are looked at.

    Raises
    ------
    ReadError
        When it is damaged, cut off, or holds more than one channel or position.
    """
    try:
        _check_chain(path)
        file = tifffile.TiffFile(path, _multifile=False)  # by itself: others could lie anywhere
    except ReadError:
        raise
    except Exception as error:  # tifffile parses damaged tags with all kinds of errors
        raise _unreadable(path, "it is damaged, or not a TIFF") from error
    try:
        frames = _TiffFrames(path, file)
        frames[0]
        spacing, step_s = _calibration(file)
    except BaseException:
        file.close()
        raise
    count = len(frames)
    return Cine(
        frames=frames,
        spacing_mm=spacing,
        frame_times_s=np.arange(count) * step_s if step_s and count > 1 else None,
        source=str(path),
        details={"format": "TIFF"},
    )


def _check_chain(path: Path) -> None:
    """Follow the chain of pages to its end: tifffile opens what is left of a cut file as if it were all of it.

    Raises
    ------
    ReadError
        When a page's directory lies beyond the end of the file, or the chain has no end.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        count_format, entry_bytes, link_format = ("Q", 20, "Q") if big else ("H", 12, "L")
        count_bytes, link_bytes = struct.calcsize(f"<{count_format}"), struct.calcsize(f"<{link_format}")
        offset = struct.unpack_from(f"{order}{link_format}", head, 8 if big else 4)[0]
        seen: set[int] = set()
        while offset:
            file.seek(offset)
            entries = struct.unpack(f"{order}{count_format}", file.read(count_bytes).ljust(count_bytes, b"\xff"))[0]
            link = offset + count_bytes + entries * entry_bytes
            if link + link_bytes > size or offset in seen:
                raise _unreadable(path, "it is cut off or damaged")
            seen.add(offset)
            file.seek(link)
            offset = struct.unpack(f"{order}{link_format}", file.read(link_bytes))[0]


class _TiffFrames(LazyFrames):
    """The pages of a TIFF's first series."""

    def __init__(self, path: Path, file: tifffile.TiffFile) -> None:
        self._path, self._file = path, file
        self._close = weakref.finalize(self, file.close)
        try:
            series = file.series[0]
            shape, axes = series.shape, series.axes
            page = series.keyframe
        except Exception as error:  # tifffile parses damaged tags with all kinds of errors
            raise _unreadable(path, "it is damaged") from error
        kept = [(n, axis) for n, axis in zip(shape, axes, strict=True) if n > 1 or axis in "YX"]
        shape, axes = tuple(n for n, _ in kept), "".join(axis for _, axis in kept)
        match = re.fullmatch(r"([^YXS]?)YX(S?)", axes)
        few_channels = axes.startswith("C") and shape[0] <= _CHANNELS  # more are frames: ImageJ's usual mix-up
        if not match or few_channels or (match[2] and shape[-1] not in (3, 4)):
            raise ReadError(
                f"{path.name} is not one ultrasound loop",
                f"it is a stack of {' x '.join(map(str, shape))} along {axes}",
                "Save one channel or volume of it as a stack",
            )
        shape = shape if match[1] else (1, *shape)
        check_size(path.name, *shape[:3])
        self._table = _palette(page)
        self._white = _white(page, series.dtype)
        self._raw = None
        self._pages = series.pages
        if series.dataoffset is not None:
            self._raw = self._mapped(series.dataoffset, shape, series.dtype)
        else:
            self._check_pages(shape[0])
        if self._table is None:
            super().__init__(shape, series.dtype)
        else:
            super().__init__((*shape, 3), "uint8")

    def _mapped(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        needed = offset + int(np.prod(shape)) * dtype.itemsize
        if needed > self._path.stat().st_size:
            raise _unreadable(self._path, "it is cut off")
        return np.memmap(self._path, dtype.newbyteorder(self._file.byteorder), "r", offset, shape)

    def _check_pages(self, frames: int) -> None:
        """Make sure that every frame has a page and every page all of its data."""
        size = self._path.stat().st_size
        if len(self._pages) != frames:
            raise _unreadable(self._path, f"it states {counted(frames, 'frame')} but holds {len(self._pages):,}")
        for page in self._pages:
            if page is None:
                raise _unreadable(self._path, "one of its pages is missing")
            parts = zip(page.dataoffsets, page.databytecounts, strict=False)
            if any(offset + count > size for offset, count in parts):
                raise _unreadable(self._path, "it is cut off")

    def _decode(self, index: int) -> np.ndarray:
        pixels = np.array(self._page(index) if self._raw is None else self._raw[index])
        if self._table is not None:
            return self._table[pixels]
        if self._white is not None:
            pixels = self._white - pixels
        if pixels.size != math.prod(self.shape[1:]):
            raise _unreadable(self._path, f"its frame {index} has another size than it states")
        return pixels.astype(self.dtype, copy=False).reshape(self.shape[1:])

    def _page(self, index: int) -> np.ndarray:
        try:
            return self._pages[index].asarray()
        except ValueError:  # a compression that tifffile does only with a further package; Pillow knows LZW and JPEG
            return self._page_by_pillow(index)
        except Exception as error:
            raise _unreadable(self._path, f"its frame {index} is damaged") from error

    def _page_by_pillow(self, index: int) -> np.ndarray:
        try:
            with Image.open(self._path) as image:
                image.seek(index)
                return np.array(image)
        except Exception as error:
            raise _unreadable(self._path, f"its frame {index} is damaged or compressed in an unknown way") from error


def _palette(page: Any) -> np.ndarray | None:
    """The colour table (N, 3) uint8 of a palette TIFF, whose entries are 16-bit by definition."""
    if page.photometric != tifffile.PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    return (np.asarray(page.colormap).T >> 8).astype(np.uint8)


def _white(page: Any, dtype: np.dtype) -> int | None:
    """The value of white less the value of black where zero is white, else None."""
    inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and dtype.kind == "u"
    return dtype.type(np.iinfo(dtype).max) if inverted else None


def _calibration(file: tifffile.TiffFile) -> tuple[tuple[float, float] | None, float | None]:
    """Spacing in mm (row, column) and seconds between frames, each None where the file gives no unit for it.

    The dots per inch of a plain TIFF are a printing size, which programs fill in at will: they are left alone.
    """
    try:
        if file.is_imagej:
            return _imagej(file)
        if file.is_ome:
            return _ome(file.ome_metadata)
    except (ValueError, TypeError, KeyError, AttributeError, ElementTree.ParseError, ZeroDivisionError):
        pass  # calibration that cannot be parsed is unknown
    return None, None


def _imagej(file: tifffile.TiffFile) -> tuple[tuple[float, float] | None, float | None]:
    metadata = file.imagej_metadata or {}
    page = file.pages[0]
    scale = millimetres(metadata.get("unit", ""))
    spacing = None
    if scale and "XResolution" in page.tags and "YResolution" in page.tags:
        per_unit = [_ratio(page.tags[key].value) for key in ("YResolution", "XResolution")]
        spacing = _positive_pair(*(scale / value for value in per_unit))
    interval = float(metadata.get("finterval", 0) or 0)
    step = interval * seconds(metadata.get("tunit", "sec"))
    if not step and float(metadata.get("fps", 0) or 0) > 0:
        step = 1 / float(metadata["fps"])
    return spacing, step if step > 0 else None


def _ome(xml: str) -> tuple[tuple[float, float] | None, float | None]:
    pixels = next(e for e in ElementTree.fromstring(xml).iter() if e.tag.rsplit("}", 1)[-1] == "Pixels")
    sizes = []
    for axis in "YX":
        scale = millimetres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        size = pixels.get(f"PhysicalSize{axis}")
        sizes.append(float(size) * scale if size and scale else 0.0)
    scale = seconds(pixels.get("TimeIncrementUnit", "s"))
    step = float(pixels.get("TimeIncrement", 0)) * scale
    return _positive_pair(*sizes), step if step > 0 else None


def _ratio(value: tuple[int, int]) -> float:
    return value[0] / value[1]


def _positive_pair(row: float, column: float) -> tuple[float, float] | None:
    return (row, column) if np.isfinite([row, column]).all() and min(row, column) > 0 else None


def _unreadable(path: Path, why: str) -> ReadError:
    return ReadError(f"{path.name} cannot be read as a TIFF", why, "Copy or save it again")
