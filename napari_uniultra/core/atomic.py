"""Files that appear whole or not at all: written beside their final name, then moved onto it."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_uniultra.errors import WriteError

_PROBE_BYTES = 4 << 10
_FILE = "It, or a part of its path, is a file, not a folder: choose another one"
_ADVICE = {
    errno.ENOSPC: "Free some space, or choose another disk",
    errno.EACCES: "Choose a folder that you may write to",
    errno.EPERM: "Choose a folder that you may write to",
    errno.EROFS: "The disk is read-only: choose another one",
    errno.EFBIG: "The file system takes no files of this size: choose another disk",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ENOTDIR: _FILE,
    errno.EEXIST: _FILE,
    errno.EISDIR: "A folder has that name: choose another one",
}


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to in place of ``path``; on success it takes ``path``'s place, on any failure it goes.

    The temporary file lies in the same folder, which is created if needed, and ends in the same suffix, so that writers
    that go by the suffix work. Whoever reads ``path`` finds the old content or the new one, also after a crash.

    Raises
    ------
    WriteError
        When the operating system refuses, in the block or afterwards: a full disk, a folder without write permission.
    """
    target = Path(path)
    temporary = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush_folder(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder to fill in place of ``path``; on success it is moved to ``path``, on any failure it goes.

    Raises
    ------
    WriteError
        When ``path`` exists and is not an empty folder, or when the operating system refuses.
    """
    target = Path(path)
    temporary = _beside(target)
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise WriteError(f"{target} exists already", fix="Choose another name, or remove it first")
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        if target.exists():
            target.rmdir()  # Windows does not move a folder onto an empty one
        os.replace(temporary, target)
        _flush_folder(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def set_aside(folder: Path) -> Iterator[None]:
    """Replace a folder: it is out of the way while another is written, then goes, and comes back on any failure.

    Raises
    ------
    WriteError
        When the operating system does not let go of it, as Windows while a file in it is open.
    """
    aside = _beside(folder)
    try:
        os.replace(folder, aside)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.replace(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Make a folder where it is not there, and see that something can be written into it.

    Raises
    ------
    WriteError
        When it cannot be made, may not be written to, or the disk is full.
    """
    probe = _beside(folder / "probe")
    try:
        with atomic_path(probe) as temporary:
            temporary.write_bytes(b"\1" * _PROBE_BYTES)
    except WriteError as error:
        raise WriteError(f"{folder} cannot be written", error.why, error.fix) from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def write_error(path: str | os.PathLike[str], error: Exception) -> WriteError:
    """What the operating system said about writing ``path``, in words."""
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if number else str(error)
    return WriteError(f"{path} cannot be written", reason, _ADVICE.get(number, "Check the path and the disk"))


def _beside(target: Path) -> Path:
    return target.with_name(f".{uuid.uuid4().hex[:12]}.partial{target.suffix}")


def _flush(path: Path) -> None:
    with open(path, "rb+" if os.name == "nt" else "rb") as file:  # Windows flushes only what may be written to
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where folders can be flushed (not on Windows)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
