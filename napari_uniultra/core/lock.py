"""One process at a time in a folder."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_uniultra.core.atomic import write_error
from napari_uniultra.core.process import Process, is_running, this_process
from napari_uniultra.errors import WriteError

LOCK = ".lock"
_EMPTY_S = 30.0  # how old a lock file without an owner must be: one is about to write its name


class InUseError(WriteError):
    """Another process has the folder."""


def owner(folder: Path) -> Process | None:
    """The living process that has a folder, as far as can be told; None where there is none.

    Raises
    ------
    OSError
        When the lock is there and cannot be read.
    """
    found = _read(folder / LOCK)
    if found is None or _is_stale(folder / LOCK, found):
        return None
    return _parsed(found) or None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if needed.

    The file ``.lock`` names the process and its machine. One that a killed process of this machine left is taken over;
    what runs on another machine cannot be seen from here, so its lock stays until somebody removes it.

    Raises
    ------
    InUseError
        When another process has the folder.
    WriteError
        When it cannot be written to.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = _take(path)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield
    finally:
        if _read(path) == own:  # not when somebody removed it and another process took its place
            path.unlink(missing_ok=True)


def _take(path: Path) -> bytes:
    own = json.dumps({**this_process(), "run": uuid.uuid4().hex}).encode()
    for _ in range(2):
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            with os.fdopen(descriptor, "wb") as file:
                file.write(own)
            return own
        found = _read(path)
        if found is not None and not (_is_stale(path, found) and _remove(path, found)):
            raise _busy(path, found)
    raise _busy(path, _read(path) or b"")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(found: bytes) -> Process:
    try:
        noted = json.loads(found)
        return {**noted, "pid": int(noted["pid"]), "host": str(noted["host"])}
    except (ValueError, KeyError, TypeError):
        return {}


def _is_stale(path: Path, found: bytes) -> bool:
    process = _parsed(found)
    if not process:
        with suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > _EMPTY_S
        return True
    return not is_running(process)


def _remove(path: Path, found: bytes) -> bool:
    """Take a stale lock away; False when another process has just done so and put its own there."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
    with suppress(FileNotFoundError):
        os.replace(path, aside)
        if aside.read_bytes() != found:
            os.replace(aside, path)
            return False
        aside.unlink()
    return True


def _busy(path: Path, found: bytes) -> InUseError:
    process = _parsed(found)
    who = f"process {process['pid']} on {process['host']}" if process else "another process"
    fix = f"Wait for it or stop it. If it runs no more, remove {path}"
    return InUseError(f"{path.parent} is in use", f"{who} works in it", fix)
