"""CSV files as people and spreadsheets save them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from napari_uniultra.errors import ReadError

_FIX = "Name a table, saved as 'CSV UTF-8'"


def read_table(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file, column to value; columns in small letters, nothing with spaces around it.

    Values may also be separated by semicolons, as spreadsheets of many countries save them. Empty lines at the end do
    not count.

    Raises
    ------
    ReadError
        When it cannot be opened, is not in UTF-8, or a line has more values than there are columns.
    """
    failed = f"{path.name} cannot be read"
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = _separator(text)
        rows = list(csv.DictReader(io.StringIO(text), delimiter=separator))
    except OSError as error:
        raise ReadError(failed, error.strerror or "", "Check the path") from error
    except UnicodeDecodeError as error:
        raise ReadError(failed, "its letters are not in UTF-8", _FIX) from error
    except csv.Error as error:
        raise ReadError(failed, "it is not a CSV file", _FIX) from error
    while rows and not any(rows[-1].values()):
        rows.pop()
    for number, row in enumerate(rows, 2):  # the header is line 1
        if None in row:
            why = f"line {number} has more values than there are columns"
            raise ReadError(failed, why, f'Put values with {separator!r} in them into "..."')
    return [{key.strip().lower(): (value or "").strip() for key, value in row.items()} for row in rows]


def decimal(value: Any) -> float:
    """A number, in words with a point or a comma. Raises ValueError or TypeError where it is none."""
    return float(value.replace(",", ".") if isinstance(value, str) else value)


def _separator(text: str) -> str:
    head = text.partition("\n")[0]
    return ";" if ";" in head and "," not in head else ","
