"""Where a command may write: over nothing that it reads, and not twice to one place."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from pathlib import Path

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


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one file, by whatever names, also where capitals do not count."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))
