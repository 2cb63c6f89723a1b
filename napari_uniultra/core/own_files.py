"""Whose files lie in a folder of results: a JSON file beside them, the record, says how our run left them.

Its ``files`` are names with the SHA-256 of what was written. A file that differs from it was not written by us, or was
changed since: it is somebody's work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.digest import sha256_of


def read_record(path: Path) -> dict[str, Any]:
    """A record; empty where there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else {}


def write_record(path: Path, about: Mapping[str, Any], written: Iterable[Path] = ()) -> None:
    """Write a record: what is to be said, what it listed already, and files or folders beside it as they are now.

    Whoever writes several files does it after each: what a crash leaves is known as ours.

    Raises
    ------
    WriteError
    """
    files = read_record(path).get("files", {}) | {file.name: _digest(file) for file in written}
    with atomic_path(path) as temporary:
        text = json.dumps({**about, "files": files}, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def is_own(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether a file or folder is there as a record's run left it; what cannot be read is not."""
    known = record["files"].get(path.name) if record else None
    try:
        return known is not None and known == _digest(path)
    except OSError:
        return False


def _digest(path: Path) -> str:
    """Hex SHA-256 of a file, or of the names and contents of a folder's files."""
    if not path.is_dir():
        return sha256_of(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = [f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\0" for file in files]
    return hashlib.sha256("".join(listed).encode()).hexdigest()
