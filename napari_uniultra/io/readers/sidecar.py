"""Spacing and times for formats that cannot state them: a small JSON file beside the loop.

For ``loop.mp4`` it is ``loop.json``, else ``meta.json`` in the same folder; for a folder ``loop/`` it is ``loop.json``
beside it, else ``meta.json`` in it. All keys are optional, others are ignored::

    {"spacing_mm": [0.31, 0.31], "frame_times_s": [0.0, 0.04], "fps": 25}

``spacing_mm`` is (row, column); ``frame_times_s`` (or ``timestamps_s``) has one time per frame and outranks ``fps``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError

_MAX_BYTES = 64 << 20


def read_sidecar(path: Path, frames: int) -> dict[str, Any]:
    """What the side-car of ``path`` states, as ``spacing_mm`` and ``frame_times_s`` where it does; else nothing.

    Raises
    ------
    ReadError
        When there is a side-car but it cannot be read, or its times or spacing do not fit a loop of ``frames`` frames.
    """
    sidecar = _find(path)
    if sidecar is None:
        return {}
    content = _load(sidecar)
    result: dict[str, Any] = {}
    if content.get("spacing_mm") is not None:
        result["spacing_mm"] = _numbers(sidecar, "spacing_mm", content["spacing_mm"], 2)
    times = content.get("frame_times_s", content.get("timestamps_s"))
    if times is not None:
        result["frame_times_s"] = np.array(_numbers(sidecar, "frame_times_s", times, frames))
    elif content.get("fps") is not None:
        (fps,) = _numbers(sidecar, "fps", [content["fps"]], 1)
        if fps <= 0:
            raise _fault(sidecar, "fps is not above zero")
        result["frame_times_s"] = np.arange(frames) / fps
    return result


def _find(path: Path) -> Path | None:
    folder = path if path.is_dir() else path.parent
    candidates = (path.with_suffix(".json") if not path.is_dir() else path.with_name(path.name + ".json"),)
    for candidate in (*candidates, folder / "meta.json"):
        if candidate.is_file():
            return candidate
    return None


def _load(sidecar: Path) -> dict[str, Any]:
    try:
        if sidecar.stat().st_size > _MAX_BYTES:
            raise _fault(sidecar, "it is far too large")
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _fault(sidecar, "it is not valid JSON") from error
    return content if isinstance(content, dict) else {}


def _numbers(sidecar: Path, key: str, values: Any, count: int) -> tuple[float, ...]:
    is_list = isinstance(values, list) and len(values) == count
    if not is_list or any(isinstance(v, bool) or not isinstance(v, (int, float)) or not np.isfinite(v) for v in values):
        raise _fault(sidecar, f"{key} is not {counted(count, 'number')}")
    return tuple(float(v) for v in values)


def _fault(sidecar: Path, why: str) -> ReadError:
    return ReadError(f"{sidecar.name}, beside the loop, cannot be used", why, "Correct it, or move it away")
