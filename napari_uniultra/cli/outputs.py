"""Where a command may write: over nothing that it reads or that others made, and not twice to one place."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from pathlib import Path

from napari_uniultra.core.own_files import contents, is_own, read_record
from napari_uniultra.errors import WriteError

_FIX = "Choose another place for the result"


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Refuse to write over what is read, into a folder that is read, or one result over another.

    None stands for a file that was not asked for.

    Raises
    ------
    WriteError
    """
    results = [path for path in outputs if path is not None]
    for result, source in product(results, [path for path in inputs if path is not None]):
        if _is_same(result, source):
            raise WriteError(f"{result} was not written", "it is what the command reads", _FIX)
        if source.resolve() in result.resolve().parents:
            raise WriteError(f"{result} was not written", f"the folder {source.name} is what the command reads", _FIX)
    for first, second in combinations(results, 2):
        if _is_same(first, second):
            raise WriteError(f"{second} was not written", "two results would be that file", "Give each its own name")


def check_replaced(record_file: Path, results: Iterable[Path]) -> None:
    """Refuse to write over results, or their record, that are not as an earlier run left them.

    ``results`` lie beside the record; an empty folder is nothing.

    Raises
    ------
    WriteError
    """
    record = read_record(record_file)
    others = [path for path in results if _is_there(path) and not is_own(path, record)]
    if record_file.exists() and not record:
        others.append(record_file)
    folder = next((path for path in others if path.is_dir()), None)  # which no option replaces
    if others:
        why = "no run wrote it, one of an earlier version did, or it was changed since"
        fix = f"Choose another folder with --out, or {'remove it' if folder else 'add --force'}"
        raise WriteError(f"{folder or others[0]} exists already", why, fix)


def _is_there(path: Path) -> bool:
    return bool(contents(path)) if path.is_dir() else path.exists()


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one file, by whatever names, also where capitals do not count."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))
