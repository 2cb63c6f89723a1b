"""A session on disk: one zip file of arrays (NumPy's ``.npz``) and tables, without pickles, written atomically.

Autosaves and batches use the suffix ``.npz``; what a user saves to keep or send has the suffix `SUFFIX`.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.measure import Markers
from napari_uniultra.core.palette import checked_colour
from napari_uniultra.core.types import Cine, Prompt, checked_spacing
from napari_uniultra.errors import PromptError, ReadError
from napari_uniultra.segment.results import PackedMask, Result
from napari_uniultra.segment.session_about import LoopName, SessionAbout
from napari_uniultra.segment.state import SessionState
from napari_uniultra.segment.view import View, checked_view

SUFFIX = ".uniultra"

_FORMAT = "napari-uniultra-session/2"
_READABLE = ("napari-uniultra-session/1", _FORMAT)
_LAYERS = ("prompted", "tracked", "locked")
_TABLE_SUFFIX = ".csv"
_MAX_META_BYTES, _MAX_TABLE_BYTES = 256 << 20, 64 << 20
_DAMAGE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    EOFError,
    PromptError,
    zlib.error,
    zipfile.BadZipFile,
)
_DATE = (1980, 1, 1, 0, 0, 0)  # as NumPy dates its arrays: the same session gives the same file


def save_state(path: Path, state: SessionState, about: SessionAbout) -> None:
    """Write a state, and what there is to say about it.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    packer = _Packer()
    layers = {
        name: [[*key, packer.result(result)] for key, result in list(getattr(state, name).items())] for name in _LAYERS
    }
    prompts, waiting = (
        [[*key, packer.prompt(prompt)] for key, prompt in list(own.items())] for own in (state.prompts, state.waiting)
    )
    meta = {"format": _FORMAT, **about.as_dict(), **_objects(state), "prompts": prompts, "waiting": waiting, **layers}
    meta["markers"], meta["spacing_mm"] = Markers(state.cycles, state.axes).as_dict(), state.spacing_mm
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **packer.arrays())
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            for name, text in about.tables.items():
                entry = zipfile.ZipInfo(name, _DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, text.encode())


def load_state(path: Path, cine: Cine) -> SessionState:
    """Read a state that `save_state` wrote.

    Raises
    ------
    ReadError
        If the file is missing or damaged, or belongs to another loop.
    """
    with _opened(path) as file:
        meta = _meta(file, path)
        about = SessionAbout.from_dict(meta, {})
        if about.loop.key != cine.key:
            raise ReadError(
                f"{path.name} belongs to another loop",
                f"it was made for {about.loop.words}; this one has {LoopName.of(cine).words}",
                "Open the loop that it was made for, and then the session",
            )
        state = _state_of(meta, _Unpacker(file["bits"], file["pointers"], cine.shape_hw))
        return replace(state, made_with=about.model)


def read_about(path: Path) -> SessionAbout:
    """What a session file says beside the state; the loop need not be there.

    Raises
    ------
    ReadError
        If the file is missing or damaged, or no session file.
    """
    with _opened(path) as file:
        return SessionAbout.from_dict(_meta(file, path), _tables(file.zip))


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    try:
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise ReadError(f"{path.name} is no session file, or it is damaged")
        with np.load(path, allow_pickle=False) as file:
            yield file
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"The session file {path.name} cannot be read", error.strerror or str(error)) from error
    except _DAMAGE as error:
        raise ReadError(f"The session file {path.name} is damaged", str(error)) from error


def _meta(file: np.lib.npyio.NpzFile, path: Path) -> dict[str, Any]:
    if file.zip.getinfo("meta.npy").file_size > _MAX_META_BYTES:
        raise ValueError("its description is far too long")
    meta = json.loads(file["meta"].tobytes())
    if meta.get("format") not in _READABLE:
        raise ReadError(
            f"{path.name} is not a session file of this version",
            f"it is {str(meta.get('format'))[:60]!r}",
            "Open it with the version of napari-uniultra that wrote it, or update",
        )
    return meta


def _tables(archive: zipfile.ZipFile) -> dict[str, str]:
    entries = [entry for entry in archive.infolist() if entry.filename.endswith(_TABLE_SUFFIX)]
    if sum(entry.file_size for entry in entries) > _MAX_TABLE_BYTES:
        raise ValueError("its tables are far too long")
    return {entry.filename: archive.read(entry).decode() for entry in entries}


def _state_of(meta: Mapping[str, Any], unpacker: _Unpacker) -> SessionState:
    layers = {
        name: {(object_id, frame): unpacker.result(data) for object_id, frame, data in meta[name]} for name in _LAYERS
    }
    prompts, waiting = (
        {(object_id, frame): unpacker.prompt(data) for object_id, frame, data in own}
        for own in (meta["prompts"], meta.get("waiting", ()))  # the latter came later
    )
    markers = Markers.from_dict(meta["markers"]) if "markers" in meta else Markers()  # since version 2
    spacing = meta.get("spacing_mm")
    return SessionState(
        names={int(key): name for key, name in meta["names"].items()},
        colours={int(key): checked_colour(colour) for key, colour in meta.get("colours", {}).items()},
        locked_objects={int(object_id) for object_id in meta.get("locked_objects", ())},
        hidden_objects={int(object_id) for object_id in meta.get("hidden_objects", ())},
        prompts=prompts,
        waiting=waiting,
        **layers,
        cycles=dict(markers.cycles),
        axes=dict(markers.axes),
        spacing_mm=None if spacing is None else checked_spacing(spacing),
    )


def _objects(state: SessionState) -> dict[str, Any]:
    """All but the names came later: files without the others are read, too."""
    groups = {"locked_objects": sorted(state.locked_objects), "hidden_objects": sorted(state.hidden_objects)}
    return {"names": dict(state.names), "colours": dict(state.colours), **groups}


def _view(data: Mapping[str, Any]) -> View | None:
    """Close views came later: results without one were found on the whole frame."""
    view = data.get("view")
    return None if view is None else checked_view(view)


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
                "view": result.view,
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
                self.mask(data["mask"]), data["iou"], data["score"], self._pointers[index], data["reverse"], _view(data)
            )
        return self._seen[index]

    def prompt(self, data: Mapping[str, Any]) -> Prompt:
        points = tuple(tuple(point) for point in data["points"])
        box = None if data["box"] is None else tuple(data["box"])
        mask = None if data["mask"] is None else self.mask(data["mask"]).unpack()
        return Prompt(box, points, tuple(data["labels"]), mask, tuple(data["rounds"]))
