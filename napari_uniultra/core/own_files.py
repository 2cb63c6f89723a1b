"""Whose files lie in a folder of results: a JSON file beside them, the record, says how our run left them.

Its ``files`` are names with the SHA-256 of what was written, or null while it is written. A file that differs from it
was not written by us, or was changed since: it is somebody's work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.digest import sha256_of
from napari_uniultra.errors import WriteError

_OF_THE_SYSTEM = (".ds_store", "._*", ".directory", "thumbs.db", "desktop.ini")  # left where a folder was looked at


def read_record(path: Path) -> dict[str, Any]:
    """A record; empty where there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else {}


def write_record(path: Path, about: Mapping[str, Any]) -> None:
    """Write a record: what is to be said, and the files that it listed already.

    Raises
    ------
    WriteError
    """
    _write(path, about, read_record(path).get("files", {}))


@contextmanager
def recorded(record_file: Path, about: Mapping[str, Any], path: Path) -> Iterator[None]:
    """Write a file or folder ``path`` beside its record: whenever that ends, what is there is known as ours.

    Raises
    ------
    WriteError
    """
    record, before = read_record(record_file), _digest(path)
    files, said = record.get("files", {}), record or about
    _write(record_file, said, {**files, path.name: None})
    try:
        yield
    except BaseException:
        now = _digest(path)
        with suppress(WriteError):  # what is being written remains so in the record
            _write(record_file, said, files if now == before else {**files, path.name: now})
        raise
    _write(record_file, about, {**files, path.name: _digest(path)})


def is_own(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether a file or folder is there as a record's run left it; what cannot be read is not."""
    files = record.get("files", {})
    now = _digest(path) if path.name in files else None
    return now is not None and files[path.name] in (now, None)


def contents(folder: Path) -> list[Path]:
    """All files in a folder and in those below, in order; not those that a system leaves where somebody looked."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for file in files if not any(fnmatch(file.name.lower(), form) for form in _OF_THE_SYSTEM)]


def _write(path: Path, about: Mapping[str, Any], files: Mapping[str, str | None]) -> None:
    with atomic_path(path) as temporary:
        text = json.dumps({**about, "files": files}, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _digest(path: Path) -> str | None:
    """Hex SHA-256 of a file, or of the names and contents of a folder's files; None where it cannot be read."""
    try:
        if not path.is_dir():
            return sha256_of(path)
        listed = [f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\0" for file in contents(path)]
    except OSError:
        return None
    return hashlib.sha256("".join(listed).encode()).hexdigest()
