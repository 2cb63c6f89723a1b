"""Writing files so that a crash, a kill or a full disk leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_uniultra.errors import WriteError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the folder of ``path``; on success it takes the place of ``path``, else it is removed.

    The temporary name is hidden, random, and ends in the suffix of ``path``, from which some writers choose a format.

    Raises
    ------
    WriteError
        When the folder, the disk or the permissions do not allow it, with what to do about it.
    """
    target = Path(path)
    temporary = target.with_name(f".unfinished-{secrets.token_hex(6)}{target.suffix}")
    try:
        try:
            # Not tempfile: its files are private to the user, while results follow the folder's usual permissions.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            yield temporary
            _flush(temporary)
            os.replace(temporary, target)
            _flush_folder(target.parent)
        except OSError as error:
            raise write_error(target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> WriteError:
    """An operating system's refusal to write ``path``, in words."""
    fixes = {
        errno.ENOSPC: "Free some space or choose another disk",
        errno.EDQUOT: "Free some of your quota or choose another disk",
        errno.EACCES: "Choose a folder that you may write to",
        errno.EPERM: "Choose a folder that you may write to",
        errno.EROFS: "Choose a disk that is not read-only",
        errno.ENOENT: "Create the folder first, or choose another one",
        errno.ENOTDIR: "Choose a folder, not a file, to write into",
        errno.EISDIR: "Choose a file name that is not a folder",
        errno.ENAMETOOLONG: "Choose a shorter name",
    }
    reason = error.strerror or type(error).__name__
    return WriteError(
        f"{path.name} was not written", reason, fixes.get(error.errno or 0, "Check the disk, or choose another folder")
    )


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make the renaming durable; Windows does that itself and cannot open a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
