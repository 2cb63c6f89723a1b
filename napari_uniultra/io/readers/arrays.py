"""NumPy files: .npy as a map of the file, .npz as one array with its spacing and times beside it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.lazy import check_size
from napari_uniultra.io.readers.sidecar import read_sidecar

_NAMES = ("frames", "images", "image", "data", "arr_0")  # of the array in an .npz, where there are several
_MAX_BYTES = 4 << 30
_MAX_BESIDE = 16 << 20  # of an array of spacing or times


def read_array(path: Path) -> Cine:
    """Open an array (T, H, W), (T, H, W, 3), (H, W) or (H, W, 3).

    An .npy is read where it is looked at. An .npz may also hold ``spacing_mm`` (row, column) and ``frame_times_s`` (T,)
    or ``fps``; for an .npy they are in a side-car (`napari_uniultra.io.readers.sidecar`).

    Raises
    ------
    ReadError
        When it is damaged, holds Python objects, which could be harmful code, or is not a loop.
    """
    try:
        is_archive = zipfile.is_zipfile(path)
        frames, stated = _from_archive(path) if is_archive else (np.load(path, mmap_mode="r", allow_pickle=False), None)
    except ReadError:
        raise
    except (OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, OverflowError) as error:
        raise _unreadable(path, "it is damaged, cut off, or holds Python objects instead of numbers") from error
    except Exception as error:  # zipfile and zlib add their own
        raise _unreadable(path, f"it is damaged ({type(error).__name__})") from error
    shape = frames.shape if len(frames.shape) > 2 else (1, *frames.shape)
    if len(shape) in (3, 4):
        is_still = len(shape) == 3 and shape[-1] in (3, 4)
        check_size(path.name, *((1, *shape[:2]) if is_still else shape[:3]))
    cine = Cine(frames, source=str(path), details={"format": "NumPy"})
    return cine.with_(**(read_sidecar(path, len(cine)) if stated is None else _stated(stated, len(cine))))


def _from_archive(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        shapes = {name.removesuffix(".npy"): _stated_shape(archive, name) for name in archive.namelist()}
        pictures = [name for name, shape in shapes.items() if len(shape) > 1]
        named = [name for name in _NAMES if name in pictures]
        if not pictures or (len(pictures) > 1 and not named):
            held = ", ".join(sorted(shapes)) or "nothing"
            why = f"it holds {held}; one array of pictures, named frames, is expected"
            raise _unreadable(path, why)
        beside = [key for key in ("spacing_mm", "frame_times_s", "fps") if key in shapes]
        limits = {(named or pictures)[0]: _MAX_BYTES} | dict.fromkeys(beside, _MAX_BESIDE)
        if any(archive.getinfo(f"{name}.npy").file_size > limit for name, limit in limits.items()):
            raise _unreadable(path, "it would take too much memory")
    with np.load(path, allow_pickle=False) as content:
        return content[(named or pictures)[0]], {key: content[key] for key in beside}


def _stated_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(file)[0]


def _stated(found: dict[str, np.ndarray], frames: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if "spacing_mm" in found:
        spacing = np.ravel(found["spacing_mm"]).astype(float)
        result["spacing_mm"] = tuple(spacing) if len(spacing) == 2 else (float(spacing[0]),) * 2
    if "frame_times_s" in found:
        result["frame_times_s"] = found["frame_times_s"]
    elif "fps" in found and float(found["fps"]) > 0:
        result["frame_times_s"] = np.arange(frames) / float(found["fps"])
    return result


def _unreadable(path: Path, why: str) -> ReadError:
    return ReadError(f"{path.name} cannot be read", why, "Copy or save it again")
