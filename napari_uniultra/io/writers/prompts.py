"""Prompts as a file, ``prompts.json``, with masks as PNG files beside it::

    {"objects": [{"id": 1, "name": "lumen",
                  "frames": {"0": {"box": [x0, y0, x1, y1], "points": [[x, y, 1]]}, "9": {"mask": "frame9.png"}}}]}

Coordinates are those of `napari_uniultra.core.types.Prompt`; a point's third number is 1 to add and 0 to remove. A
frame may also have ``rounds``, as a `Prompt` has, so that a session that was corrected step by step can be repeated, or
nothing but ``"absent": true``, where the object is not in the frame.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.prompts import checked_mask, checked_points, normalise_box
from napari_uniultra.core.types import Prompt, default_name
from napari_uniultra.core.words import counted
from napari_uniultra.errors import PromptError
from napari_uniultra.io.writers.overlay import save_png

_MAX_BYTES = 64 << 20
_FORMAT = 'See docs/shell.md for the format: {"objects": [{"id": 1, "name": "...", "frames": {"0": {"box": [...]}}}]}'


@dataclass(frozen=True)
class ObjectPrompts:
    """What was drawn for one object.

    Attributes
    ----------
    id : int
        1 or more.
    name : str
    frames : mapping of int to Prompt
        By frame number.
    """

    id: int
    name: str
    frames: Mapping[int, Prompt]


def read_prompts(path: str | os.PathLike[str], shape_hw: tuple[int, int]) -> list[ObjectPrompts]:
    """Read prompts for a loop whose frames are ``shape_hw`` (height, width) pixels.

    Raises
    ------
    PromptError
        When the file is not as described above, naming the place, or a mask lies outside its folder.
    """
    path = Path(path)
    content = _load(path)
    objects = _checked(content, dict, path.name, keys={"objects"}).get("objects")
    entries = _checked(objects, list, f"{path.name}: objects")
    result = [_object(entry, f"objects[{i}]", path.parent, shape_hw) for i, entry in enumerate(entries)]
    ids = [entry.id for entry in result]
    if len(set(ids)) < len(ids):
        raise _fault("objects", "two of them have the same id")
    if not any(entry.frames for entry in result):
        raise PromptError(
            f"{path.name} holds no prompt", fix="Draw a box or click on the structure on one frame at least"
        )
    return result


def named_masks(path: Path) -> list[Path]:
    """The mask files that a file of prompts names and that are there; what is wrong with it, `read_prompts` tells."""
    try:
        drawn = [frame for entry in _load(path)["objects"] for frame in entry["frames"].values()]
        names = {frame["mask"] for frame in drawn if isinstance(frame.get("mask"), str)}
    except (PromptError, LookupError, TypeError, AttributeError):
        return []
    found = []
    for name in sorted(names):
        with suppress(PromptError, OSError, ValueError, RuntimeError):  # the latter: a name that no file can have
            file = _inside(name, name, path.parent).resolve()
            found += [file] if file.is_file() else []
    return found


def write_prompts(path: str | os.PathLike[str], objects: Iterable[ObjectPrompts]) -> None:
    """Write prompts, and their masks as PNG files beside them.

    A mask's file is named after its content, so the file that is replaced never points at another mask.

    Raises
    ------
    WriteError
        When the disk refuses.
    """
    path = Path(path)
    content = {"objects": [_as_json(entry, path) for entry in objects]}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _as_json(entry: ObjectPrompts, path: Path) -> dict[str, Any]:
    frames = {}
    for frame, prompt in sorted(entry.frames.items()):
        drawn: dict[str, Any] = {}
        if prompt.box is not None:
            drawn["box"] = list(prompt.box)
        if prompt.points:
            drawn["points"] = [[x, y, label] for (x, y), label in zip(prompt.points, prompt.labels, strict=True)]
        if prompt.rounds:
            drawn["rounds"] = list(prompt.rounds)
        if prompt.absent:
            drawn["absent"] = True
        elif prompt.mask is not None:
            digest = hashlib.sha256(np.packbits(prompt.mask).tobytes()).hexdigest()[:8]
            drawn["mask"] = f"{path.stem}_object{entry.id}_frame{frame}_{digest}.png"
            save_png(path.with_name(drawn["mask"]), Image.fromarray(prompt.mask.astype(np.uint8) * 255))
        frames[str(frame)] = drawn
    return {"id": entry.id, "name": entry.name, "frames": frames}


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PromptError(f"{path.name} cannot be read", "it is far too large for a file of prompts")
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except OSError as error:
        raise PromptError(f"{path.name} cannot be read", error.strerror or "", "Check the path") from error
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path.name} is not valid JSON", str(error), _FORMAT) from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number")


def _object(entry: Any, place: str, folder: Path, shape_hw: tuple[int, int]) -> ObjectPrompts:
    entry = _checked(entry, dict, place, keys={"id", "name", "frames"})
    object_id = _checked(entry.get("id"), int, f"{place}.id")
    if object_id < 1:
        raise _fault(f"{place}.id", "an id is 1 or more")
    name = _checked(entry.get("name", default_name(object_id)), str, f"{place}.name")
    frames = {}
    for key, drawn in _checked(entry.get("frames"), dict, f"{place}.frames").items():
        at = f'{place}.frames["{key}"]'
        if not (key.isascii() and key.isdecimal()) or str(int(key)) != key:
            raise _fault(at, "a frame is a whole number, counted from 0")
        frames[int(key)] = _prompt(drawn, at, folder, shape_hw)
    return ObjectPrompts(object_id, name, frames)


def _prompt(drawn: Any, place: str, folder: Path, shape_hw: tuple[int, int]) -> Prompt:
    drawn = _checked(drawn, dict, place, keys={"box", "points", "mask", "rounds", "absent"})
    if "absent" in drawn:
        if drawn != {"absent": True}:
            raise _fault(place, "where an object is absent there is nothing to say but true")
        return Prompt(mask=np.zeros(shape_hw, bool))
    box, mask = drawn.get("box"), drawn.get("mask")
    points = [] if drawn.get("points") is None else _checked(drawn["points"], list, f"{place}.points")
    points = [_point(point, f"{place}.points[{i}]") for i, point in enumerate(points)]
    rounds = [] if drawn.get("rounds") is None else _checked(drawn["rounds"], list, f"{place}.rounds")
    if mask is not None:
        mask = _mask(mask, f"{place}.mask", folder, shape_hw)
    if box is not None:
        box = _numbers(box, 4, f"{place}.box")
    rounds = tuple(_checked(count, int, f"{place}.rounds") for count in rounds)
    try:
        prompt = Prompt(
            box=None if box is None else normalise_box(box, shape_hw),
            points=checked_points([point[:2] for point in points], shape_hw),
            labels=tuple(int(point[2]) for point in points),
            mask=None if mask is None else checked_mask(mask, shape_hw),
            rounds=rounds,
        )
    except PromptError as error:
        raise PromptError(f"In the prompts, {place}: {error.what}", error.why, error.fix) from error
    if prompt.empty:
        raise _fault(place, "it has neither a box nor points nor a mask")
    return prompt


def _point(values: Any, place: str) -> list[float]:
    point = _numbers(values, 3, place)
    if point[2] not in (0, 1):
        raise _fault(place, f"its third number is {point[2]:g}, and not 1 (add) or 0 (remove)")
    return point


def _numbers(values: Any, count: int, place: str) -> list[float]:
    values = _checked(values, list, place)
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(values) != count or len(numbers) != count:
        raise _fault(place, f"it is not {counted(count, 'number')}")
    try:
        numbers = [float(v) for v in numbers]
    except OverflowError:
        numbers = [math.inf]
    if not all(math.isfinite(v) for v in numbers):
        raise _fault(place, "it is not finite")
    return numbers


def _mask(name: Any, place: str, folder: Path, shape_hw: tuple[int, int]) -> np.ndarray:
    file = _inside(_checked(name, str, place), place, folder)
    try:
        with Image.open(file) as image:
            if image.size != (shape_hw[1], shape_hw[0]):
                size = f"{image.size[0]} x {image.size[1]}"
                raise _fault(place, f"{file.name} is {size} pixels, the frames are {shape_hw[1]} x {shape_hw[0]}")
            pixels = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "LA", "PA") else image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = "does not exist" if not file.exists() else "is not an image that can be read"
        raise _fault(place, f"{file.name} {why}") from error
    return pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0


def _inside(name: str, place: str, folder: Path) -> Path:
    """The file ``name`` in ``folder``, refused if it leads out of it in any way, on any system."""
    kinds = PurePosixPath(name), PureWindowsPath(name)
    leads_out = any(kind.anchor or ".." in kind.parts for kind in kinds) or "\0" in name or not name
    file = folder / name if not leads_out else folder
    if leads_out or not file.resolve().is_relative_to(folder.resolve()):
        raise PromptError(
            f"In the prompts, {place}: the mask is refused",
            "it lies outside the folder of the prompts file",
            "Put the mask beside that file",
        )
    return file


def _checked(value: Any, kind: type, place: str, keys: set[str] | None = None) -> Any:
    """``value`` if it is of the JSON kind and has no other keys than ``keys``, else an error that names the place."""
    words = {dict: "an object in braces", list: "a list", str: "a text", int: "a whole number"}
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _fault(place, f"it is missing or not {words[kind]}")
    if keys is not None and not value.keys() <= keys:
        unknown = ", ".join(sorted(value.keys() - keys))
        raise _fault(place, f"it has the unknown key {unknown}; known are {', '.join(sorted(keys))}")
    return value


def _fault(place: str, why: str) -> PromptError:
    return PromptError(f"In the prompts, {place} cannot be used", why, _FORMAT)
