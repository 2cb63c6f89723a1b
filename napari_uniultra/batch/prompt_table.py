"""Boxes and points in a CSV file, for one loop or for all of them.

=========== ==========================================================================================
loop        the loop's name (left out in a file for one loop)
frame       counted from 0
object      a number from 1 (1 where it is left out)
name        the object's name (optional)
x0 y0 x1 y1 a box, or
x y label   a point; label 1 belongs to the object (as when it is left out), 0 does not
=========== ==========================================================================================

Coordinates are those of `napari_uniultra.core.types.Prompt`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_uniultra.core.csv_table import decimal, read_table, whole
from napari_uniultra.core.prompts import checked_points, normalise_box
from napari_uniultra.core.types import Prompt, default_name
from napari_uniultra.errors import PromptError, ReadError
from napari_uniultra.io.writers import ObjectPrompts

_COLUMNS = ("loop", "frame", "object", "name", "x0", "y0", "x1", "y1", "x", "y", "label")
_BOX = ("x0", "y0", "x1", "y1")

Row = Mapping[str, str]


def read_prompt_rows(path: Path) -> dict[str, list[Row]]:
    """Loop name to its lines, unchecked but for the columns; the name is empty in a file for one loop.

    Raises
    ------
    PromptError
        When the file cannot be read, or has a column that is not known.
    """
    try:
        rows = list(read_table(path).values())
    except ReadError as error:  # told in reports, which name no folders
        raise PromptError(f"{path.name} cannot be read", error.why, error.fix) from error
    unknown = [key for key in (rows[0] if rows else ()) if key not in _COLUMNS]
    if unknown or not rows:
        why = f"it has the unknown column {unknown[0]!r}" if unknown else "it has no line"
        raise PromptError(f"{path.name} cannot be used", why, f"Columns are {', '.join(_COLUMNS)}")
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.get("loop", ""), []).append(row)
    return found


def prompts_of_rows(rows: Sequence[Row], shape_hw: tuple[int, int]) -> list[ObjectPrompts]:
    """The prompts that lines describe, for a loop whose frames are ``shape_hw`` (height, width) pixels.

    Raises
    ------
    PromptError
        For a value that is missing or no number, two boxes of an object on a frame, or a place outside the frame.
    """
    boxes: dict[tuple[int, int], tuple[float, ...]] = {}
    points: dict[tuple[int, int], list[tuple[float, float, int]]] = {}
    names: dict[int, str] = {}
    for row in rows:
        key = _number(row, "object", 1, whole), _number(row, "frame", kind=whole)
        names.setdefault(key[0], row.get("name") or default_name(key[0]))
        if any(row.get(column) for column in _BOX):
            if key in boxes:
                raise PromptError(f"Object {key[0]} has two boxes on frame {key[1]}", fix="Keep one")
            boxes[key] = normalise_box([_number(row, column) for column in _BOX], shape_hw)
        else:
            (point,) = checked_points([(_number(row, "x"), _number(row, "y"))], shape_hw)
            points.setdefault(key, []).append((*point, _number(row, "label", 1, whole)))
    objects: dict[int, dict[int, Prompt]] = {}
    for object_id, frame in sorted({*boxes, *points}):
        own = points.get((object_id, frame), [])
        place, labels = tuple(point[:2] for point in own), tuple(point[2] for point in own)
        objects.setdefault(object_id, {})[frame] = Prompt(boxes.get((object_id, frame)), place, labels)
    return [ObjectPrompts(object_id, names[object_id], frames) for object_id, frames in objects.items()]


def _number(row: Row, column: str, default: int | None = None, kind: Callable[[str], float] = decimal) -> Any:
    text = row.get(column, "")
    if not text and default is not None:
        return default
    try:
        return kind(text)
    except ValueError:
        why = f"it should be a {'whole ' if kind is whole else ''}number"
        raise PromptError(f"The prompts' column {column} has {text!r}", why, "Each line is a box or a point") from None
