"""One process at a time on a folder of results."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from napari_uniultra.core.atomic import write_error
from napari_uniultra.errors import WriteError

LOCK = ".lock"
_SAME_START_S = 1.0
_EMPTY_S = 30.0  # how old a lock file without an owner must be: one is about to write its name


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if needed.

    The file ``.lock`` names the process and its machine. One that a killed process of this machine left is taken over;
    what runs on another machine cannot be seen from here, so its lock stays until somebody removes it.

    Raises
    ------
    WriteError
        When another process works on the folder, or it cannot be written to.
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
    own = json.dumps({**_owner(os.getpid()), "run": uuid.uuid4().hex}).encode()
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


def _owner(pid: int) -> dict[str, Any]:
    return {"pid": pid, "host": socket.gethostname(), "started": psutil.Process(pid).create_time()}


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(found: bytes) -> dict[str, Any]:
    try:
        owner = json.loads(found)
        return {"pid": int(owner["pid"]), "host": str(owner["host"]), "started": float(owner["started"])}
    except (ValueError, KeyError, TypeError):
        return {}


def _is_stale(path: Path, found: bytes) -> bool:
    owner = _parsed(found)
    if not owner:
        with suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > _EMPTY_S
        return True
    if owner["host"] != socket.gethostname():
        return False
    try:
        return abs(_owner(owner["pid"])["started"] - owner["started"]) > _SAME_START_S  # a new process, its old number
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


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


def _busy(path: Path, found: bytes) -> WriteError:
    owner = _parsed(found)
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
    fix = f"Wait for it or stop it. If it runs no more, remove {path}"
    return WriteError(f"{path.parent} is in use", f"{who} works on these results", fix)
