"""A manifest as a CSV file: which columns it has, and how values are written in them. What they mean: training.data."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_uniultra.core.atomic import atomic_path

COLUMNS = ("frames", "masks", "subject", "source", "spacing_mm", "part", "name", "labels", "separate")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write cases, a line each; columns of people's own come last.

    Names and paths stand as they are, for programs: this is no table for a spreadsheet as those of `csv_table` are.

    Parameters
    ----------
    rows : iterable of mappings
        Column to value: words, None, a flag, a list of words or sizes, or labels (number to name).

    Raises
    ------
    WriteError
    """
    rows = list(rows)
    header = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def plain_name(words: str) -> str:
    """A name without what separates names in a manifest."""
    return words.replace(";", ",").replace("=", " ").strip()


def list_of(cell: str) -> list[str]:
    """The paths in a cell."""
    return [text.strip() for text in cell.split(";") if text.strip()]


def labels_of(cell: str) -> dict[str, str]:
    """The labels in a cell, number to name, both as they stand there."""
    return dict(item.partition("=")[::2] for item in list_of(cell))


def _cell(value: Any) -> str:
    """As `list_of` and `labels_of` read it back; sizes have a space between them."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, Mapping):
        return ";".join(f"{number}={name}" for number, name in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return (";" if value and isinstance(value[0], str) else " ").join(map(str, value))
    return str(value)
