"""A session on disk: one ``.npz`` file without pickles, written atomically."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import ReadError
from napari_uniultra.segment.results import PackedMask, Result
from napari_uniultra.segment.state import SessionState

_FORMAT = "napari-uniultra-session/1"
_LAYERS = ("prompted", "tracked", "locked")


def save_state(path: Path, state: SessionState, cine_key: str) -> None:
    """Write a state for the loop with this content key.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    packer = _Packer()
    layers = {
        name: [[*key, packer.result(result)] for key, result in list(getattr(state, name).items())] for name in _LAYERS
    }
    prompts = [[*key, packer.prompt(prompt)] for key, prompt in list(state.prompts.items())]
    meta = {"format": _FORMAT, "cine": cine_key, "names": dict(state.names), "prompts": prompts, **layers}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **packer.arrays())


def load_state(path: Path, cine: Cine) -> SessionState:
    """Read what `save_state` wrote.

    Raises
    ------
    ReadError
        If the file is missing or damaged, or belongs to another loop.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
            if meta.get("format") != _FORMAT:
                raise ReadError(f"{path.name} is not a session file of this version")
            if meta["cine"] != cine.key:
                raise ReadError(f"{path.name} belongs to another loop", fix="Open the loop that it was made for")
            unpacker = _Unpacker(file["bits"], file["pointers"], cine.shape_hw)
        return _state_of(meta, unpacker)
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"The session file {path.name} cannot be read", error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, IndexError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ReadError(f"The session file {path.name} is damaged", str(error)) from error


def _state_of(meta: Mapping[str, Any], unpacker: _Unpacker) -> SessionState:
    layers = {
        name: {(object_id, frame): unpacker.result(data) for object_id, frame, data in meta[name]} for name in _LAYERS
    }
    prompts = {(object_id, frame): unpacker.prompt(data) for object_id, frame, data in meta["prompts"]}
    return SessionState(names={int(key): name for key, name in meta["names"].items()}, prompts=prompts, **layers)


class _Packer:
    """Collects bits and pointers into two arrays; a result that stands in two layers is written once."""

    def __init__(self) -> None:
        self._bits: list[np.ndarray] = []
        self._pointers: list[np.ndarray] = []
        self._offset = 0
        self._seen: dict[int, dict[str, Any]] = {}

    def mask(self, mask: PackedMask) -> list[int]:
        entry = [*mask.origin, *mask.size, self._offset]
        self._bits.append(mask.bits)
        self._offset += len(mask.bits)
        return entry

    def result(self, result: Result) -> dict[str, Any]:
        if id(result) not in self._seen:
            self._pointers.append(result.pointer)
            self._seen[id(result)] = {
                "mask": self.mask(result.mask),
                "iou": result.predicted_iou,
                "score": result.object_score,
                "reverse": result.reverse,
                "index": len(self._pointers) - 1,
            }
        return self._seen[id(result)]

    def prompt(self, prompt: Prompt) -> dict[str, Any]:
        mask = None if prompt.mask is None else self.mask(PackedMask.pack(prompt.mask))
        drawn = {"box": prompt.box, "points": prompt.points, "labels": prompt.labels, "rounds": prompt.rounds}
        return {**drawn, "mask": mask}

    def arrays(self) -> dict[str, np.ndarray]:
        bits = np.concatenate(self._bits) if self._bits else np.zeros(0, np.uint8)
        pointers = np.stack(self._pointers) if self._pointers else np.zeros((0, 256), np.float32)
        return {"bits": bits, "pointers": pointers}


class _Unpacker:
    def __init__(self, bits: np.ndarray, pointers: np.ndarray, shape_hw: tuple[int, int]) -> None:
        self._bits, self._pointers, self._shape = bits, pointers, shape_hw
        self._seen: dict[int, Result] = {}

    def mask(self, entry: list[int]) -> PackedMask:
        top, left, height, width, offset = entry
        if min(entry) < 0 or top + height > self._shape[0] or left + width > self._shape[1]:
            raise ValueError("a mask lies outside the frame")
        bits = self._bits[offset : offset + -(-height * width // 8)]
        if len(bits) * 8 < height * width:
            raise ValueError("a mask is cut short")
        return PackedMask(tuple(self._shape), (top, left), (height, width), bits)

    def result(self, data: Mapping[str, Any]) -> Result:
        index = data["index"]
        if index not in self._seen:
            self._seen[index] = Result(
                self.mask(data["mask"]), data["iou"], data["score"], self._pointers[index], data["reverse"]
            )
        return self._seen[index]

    def prompt(self, data: Mapping[str, Any]) -> Prompt:
        points = tuple(tuple(point) for point in data["points"])
        box = None if data["box"] is None else tuple(data["box"])
        mask = None if data["mask"] is None else self.mask(data["mask"]).unpack()
        return Prompt(box, points, tuple(data["labels"]), mask, tuple(data["rounds"]))
