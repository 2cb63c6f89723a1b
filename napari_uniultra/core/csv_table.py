"""CSV files as people and spreadsheets save them, and as they are safely opened."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.errors import ReadError

Row = dict[str, str]  # column to value
Cells = Iterable[Sequence[Any]]
Table = tuple[Sequence[str], Cells]  # header and lines

_FIX = "Name a table, saved as 'CSV UTF-8'"
_SEPARATORS = (",", ";", "\t")  # a header has the first one that is in it
_NAMES_SEPARATOR = "sep="  # a first line that some spreadsheets write
_STARTS_FORMULA = ("=", "+", "-", "@")


def read_table(path: Path) -> dict[int, Row]:
    """The lines of a CSV file by their numbers in it, the header's being 1 or, where that names the separator, 2.

    Columns are in small letters, and nothing has spaces around it. Values may also be separated by semicolons, as
    spreadsheets of many countries save them, or by tabs. Lines without a value and columns without a name, as
    spreadsheets leave them, do not count, and a quote that keeps a value from being a formula is no part of it.

    Raises
    ------
    ReadError
        When it cannot be opened, is not in UTF-8, or a line has more values than there are columns.
    """
    return read_separated(path)[0]


def read_separated(path: Path) -> tuple[dict[int, Row], str]:
    """As `read_table`, and what separates the values: where it is no comma, numbers may have one."""
    failed = f"{path} cannot be read"
    try:
        found, separator = _lines(path.read_text(encoding="utf-8-sig"))
        lines = list(found)
    except OSError as error:
        raise ReadError(failed, error.strerror or "", "Check the path") from error
    except UnicodeDecodeError as error:
        raise ReadError(failed, "its letters are not in UTF-8", _FIX) from error
    except csv.Error as error:
        raise ReadError(failed, "it is not a CSV file", _FIX) from error
    _, header = lines[0] if lines else (1, [])
    columns = [name.lower() for name in header]
    rows = {}
    for number, values in lines[1:]:
        values = values + [""] * (len(columns) - len(values))
        names = columns + [""] * (len(values) - len(columns))
        if any(value and not name for name, value in zip(names, values, strict=True)):
            why = f"line {number} has more values than there are columns"
            raise ReadError(failed, why, f'Put values with {separator!r} in them into "..."')
        rows[number] = {name: _plain(value) for name, value in zip(names, values, strict=True) if name}
    return rows, separator


def has_columns(path: Path, names: Iterable[str]) -> bool:
    """Whether a file is headed as a table with columns of these names, in small letters; its lines are not looked at.

    Raises
    ------
    ReadError
        When it cannot be opened.
    """
    try:
        found, _ = _lines(path.read_text(encoding="utf-8-sig", errors="replace"))
        _, header = next(found, (1, []))
    except OSError as error:
        raise ReadError(f"{path} cannot be read", error.strerror or "", "Check the path") from error
    except csv.Error:
        return False
    return {*names} <= {name.lower() for name in header}


def write_table(path: str | os.PathLike[str], header: Sequence[str], cells: Cells) -> None:
    """Write a table that a person may open in a spreadsheet: UTF-8, commas, no cell that is run as a formula.

    Raises
    ------
    WriteError
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        _write(file, header, cells)


def csv_text(table: Table) -> str:
    """A table as the text of a CSV file, harmless to a spreadsheet."""
    text = io.StringIO(newline="")
    _write(text, *table)
    return text.getvalue()


def clipboard_text(table: Table) -> str:
    """A table with tabs between its cells, harmless to a spreadsheet that it is put into."""
    text = io.StringIO(newline="")
    _write(text, *table, delimiter="\t", lineterminator="\n")
    return text.getvalue()


def decimal(value: Any) -> float:
    """A number, in words with a point or a comma. Raises ValueError or TypeError where it is none."""
    return float(value.replace(",", ".") if isinstance(value, str) else value)


def whole(value: Any) -> int:
    """A whole number, also written with decimals, as "1.0". Raises ValueError or TypeError where it is none."""
    number = decimal(value)
    if not number.is_integer():
        raise ValueError(f"{value!r} is no whole number")
    return int(number)


def _lines(text: str) -> tuple[Iterator[tuple[int, list[str]]], str]:
    """(number, values) of the lines that have a value, without spaces around these, and what separates them."""
    first, _, rest = text.partition("\n")
    first = first.strip('\r"')
    is_named = first.lower().startswith(_NAMES_SEPARATOR)
    named = first[len(_NAMES_SEPARATOR) :][:1] if is_named else ""
    head = rest.partition("\n")[0] if is_named else first
    separator = named or next((mark for mark in _SEPARATORS if mark in head), ",")
    reader = csv.reader(io.StringIO(rest if is_named else text, newline=""), delimiter=separator)
    found = ((reader.line_num + is_named, [value.strip() for value in values]) for values in reader)
    return ((number, values) for number, values in found if any(values)), separator


def _write(file: TextIO, header: Sequence[str], cells: Cells, **form: str) -> None:
    writer = csv.writer(file, **form)
    writer.writerow(header)
    writer.writerows([_harmless(cell) for cell in row] for row in cells)


def _harmless(cell: Any) -> Any:
    """A spreadsheet takes text that begins like a formula for one, and runs it; a quote in front keeps it text."""
    if not (isinstance(cell, str) and cell.startswith(_STARTS_FORMULA)):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _plain(value: str) -> str:
    """As it was before `_harmless`."""
    return value[1:] if value[:1] == "'" and value[1:].startswith(_STARTS_FORMULA) else value
