"""Zarr arrays and OME-Zarr images (0.4 and 0.5), read chunk by chunk as they are looked at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from napari_uniultra.core.types import Cine
from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.lazy import LazyFrames, check_size
from napari_uniultra.io.readers.units import millimetres, seconds

_MARKS = ("zarr.json", ".zgroup", ".zarray")
_MAX_CHUNK = 1 << 30  # bytes in memory


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((path / mark).is_file() for mark in _MARKS)


def read_zarr(path: Path) -> Cine:
    """Open a Zarr folder: an array, or the finest level of an OME-Zarr image with its scale and units.

    Raises
    ------
    ReadError
        When it is damaged, has several channels or positions, or points out of its own folder.
    """
    import zarr

    try:
        root = zarr.open(str(path), mode="r")
        array, axes, scale = _array(root, path)
        frames = _ZarrFrames(path, array, axes)
    except ReadError:
        raise
    except Exception as error:  # zarr and its codecs raise all kinds of errors for damaged metadata
        raise _unreadable(path, f"it is damaged, or no Zarr image ({type(error).__name__})") from error
    frames[0]
    return Cine(
        frames,
        spacing_mm=_spacing(axes, scale),
        frame_times_s=_times(axes, scale, len(frames)),
        source=str(path),
        details={"format": "OME-Zarr" if scale else "Zarr"},
    )


def _array(root: Any, path: Path) -> tuple[Any, list[dict[str, str]], list[float]]:
    """The array, its axes as {"name", "unit"}, and the size of a step along each, or nothing where it is unknown."""
    if hasattr(root, "shape"):
        return root, _guessed_axes(root), []
    attributes = dict(root.attrs)
    attributes = attributes.get("ome", attributes)
    if "multiscales" not in attributes:
        if "bioformats2raw.layout" in attributes and "0" in root:
            return _array(root["0"], path)
        names = [name for name, _ in root.arrays()]
        if len(names) != 1:
            raise _unreadable(path, f"it holds {counted(len(names), 'array')} and does not say which is the image")
        return _array(root[names[0]], path)
    image = attributes["multiscales"][0]
    level = image["datasets"][0]
    if any(part in ("", "..", ".") for part in str(level["path"]).split("/")):
        raise _unreadable(path, "it points out of its own folder")
    array = root[level["path"]]
    axes = [axis if isinstance(axis, dict) else {"name": str(axis)} for axis in image.get("axes") or []]
    if len(axes) != array.ndim:
        return array, _guessed_axes(array), []
    scale = np.ones(array.ndim)
    stated = False
    for transform in [*level.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]:
        if transform.get("type") == "scale" and len(transform.get("scale", [])) == array.ndim:
            scale, stated = scale * np.array(transform["scale"], dtype=float), True
    return array, axes, scale.tolist() if stated else []


def _guessed_axes(array: Any) -> list[dict[str, str]]:
    named = getattr(array.metadata, "dimension_names", None)
    if named and all(named):
        return [{"name": str(name).lower()[:1]} for name in named]
    colour = array.ndim == 4 and array.shape[-1] in (3, 4)
    names = {2: "yx", 3: "tyx", 4: "tyxc" if colour else "tzyx", 5: "tczyx"}.get(array.ndim, "?" * array.ndim)
    return [{"name": name} for name in names]


class _ZarrFrames(LazyFrames):
    """The frames of an array with any axes of one element beside rows, columns, a loop and colours."""

    def __init__(self, path: Path, array: Any, axes: list[dict[str, str]]) -> None:
        self._path, self._array = path, array
        self._names = "".join(axis["name"][:1].lower() for axis in axes)
        kept = [n for n, name in enumerate(self._names) if array.shape[n] > 1 or name in "yx"]
        colours = [n for n in kept if self._names[n] == "c"]
        loops = [n for n in kept if self._names[n] not in "cyx"]
        order = "".join(self._names[n] for n in kept if self._names[n] in "yx")
        if order != "yx" or len(loops) > 1 or (colours and array.shape[colours[0]] not in (3, 4)):
            raise ReadError(
                f"{path.name} is not one ultrasound loop",
                f"it is a stack of {' x '.join(map(str, array.shape))} along {self._names}",
                "Save one channel or volume of it",
            )
        self._loop, self._colour = (loops or [None])[0], (colours or [None])[0]
        height, width = (array.shape[self._names.index(name)] for name in "yx")
        count = 1 if self._loop is None else array.shape[self._loop]
        check_size(path.name, count, height, width)
        chunk = math.prod(array.chunks) * array.dtype.itemsize
        if chunk > _MAX_CHUNK:
            raise _unreadable(path, f"one of its chunks takes {chunk >> 20} MB of memory")
        shape = (count, height, width)
        super().__init__(shape if self._colour is None else (*shape, array.shape[self._colour]), array.dtype)
        self._together = 1
        if self._loop is not None and array.chunks[self._loop] <= self._cache_frames // 2:
            self._together = array.chunks[self._loop]  # a chunk is decoded whole: keep all of its frames

    def _decode(self, index: int) -> np.ndarray:
        first = index - index % self._together
        last = min(first + self._together, len(self))
        try:
            frames = self._block(first, last)
        except Exception as error:  # each codec has its own exceptions for damaged data
            raise _unreadable(self._path, f"its frame {index} is damaged") from error
        for position in range(first, last):
            if position != index:
                self._keep(position, np.ascontiguousarray(frames[position - first]))
        return np.ascontiguousarray(frames[index - first])

    def _block(self, first: int, last: int) -> np.ndarray:
        """(last - first, H, W) or (last - first, H, W, C)."""
        picked: list[Any] = [0] * self._array.ndim
        names = ""
        for axis, name in enumerate(self._names):
            if axis == self._loop:
                picked[axis], names = slice(first, last), names + "l"
            elif axis == self._colour or name in "yx":
                picked[axis], names = slice(None), names + name
        block = np.asarray(self._array[tuple(picked)])
        wanted = "".join(name for name in "lyxc" if name in names)
        block = block.transpose([names.index(name) for name in wanted])
        return block if self._loop is not None else block[None]


def _spacing(axes: list[dict[str, str]], scale: list[float]) -> tuple[float, float] | None:
    sizes = [step * millimetres(axis.get("unit", "")) for axis, step in zip(axes, scale, strict=False)]
    found = {axis["name"].lower(): size for axis, size in zip(axes, sizes, strict=False)}
    spacing = found.get("y", 0.0), found.get("x", 0.0)
    return spacing if min(spacing) > 0 and np.isfinite(spacing).all() else None


def _times(axes: list[dict[str, str]], scale: list[float], frames: int) -> np.ndarray | None:
    for axis, step in zip(axes, scale, strict=False):
        if axis["name"].lower() == "t" and frames > 1:
            step_s = step * seconds(axis.get("unit", ""))
            return np.arange(frames) * step_s if np.isfinite(step_s) and step_s > 0 else None
    return None


def _unreadable(path: Path, why: str) -> ReadError:
    return ReadError(f"{path.name} cannot be read as Zarr", why, "Copy or save it again")
