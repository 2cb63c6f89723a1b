"""A session's work kept for the case of a crash, without slowing down what is being done."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from napari_uniultra.core.places import data_folder
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import WriteError

OWN_FILE = (
    "Your work here is kept in a file of its own, {path}, which is not offered when the loop is opened the next time. "
    "Save a session to have it at hand."
)
_TAKEN = "This loop is worked on in another window too, or in another napari. What is done there is kept in its place."

# While tracking, between the end of one and the next: at least so long, and so many times what the last one took.
_PAUSE_S, _SHARE = 0.2, 20
_AGAIN_S = 30.0  # after one that failed


def autosave_folder() -> Path:
    """Where unfinished work is kept."""
    return data_folder() / "autosave"


def autosave_file(cine: Cine, folder: Path | None = None) -> Path:
    """Where the work on a loop is kept, of all in one folder, by default the viewer's: one place for each content."""
    return (folder or autosave_folder()) / f"{cine.key}.npz"


def earlier_place(path: Path) -> Path:
    """A place beside a file of work for what was in its place; nothing is there yet."""
    numbers = (f".earlier{'' if number == 1 else f'-{number}'}.npz" for number in count(1))
    return next(place for place in map(path.with_suffix, numbers) if not place.exists())


def _mark(path: Path) -> tuple[int, int] | None:
    """What tells a file from one that was written later in its place; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class Autosave:
    """Writes a file again and again, but not over what somebody else wrote in its place: then it gets another one.

    Parameters
    ----------
    path : Path or None
        None keeps nothing.
    write : callable
        Writes all of the work to a path; raises WriteError.
    notify : callable
        Is told in words that it could not be written.
    """

    def __init__(self, path: Path | None, write: Callable[[Path], None], notify: Callable[[str], None]) -> None:
        self._write, self._notify = write, notify
        self.move_to(path)
        self._due = 0.0  # time.monotonic

    def move_to(self, path: Path | None) -> None:
        """Write there from now on; the first time over whatever is there."""
        self.path, self._own = path, None

    def take_over(self) -> None:
        """What is in the file's place now is this work."""
        self._own = _mark(self.path)

    @property
    def is_due(self) -> bool:
        """Whether the last one is long enough ago for what changes with every frame."""
        return time.monotonic() >= self._due

    def save(self) -> None:
        """Write now. A full disk must not stop the work: it is said, and tried again at the next change."""
        if self.path is None:
            return
        self._yield_place()
        start = time.monotonic()
        try:
            self._write(self.path)
        except WriteError as error:
            self._due = start + _AGAIN_S
            self._notify(f"Your work could not be kept for the case of a crash. {error}")
        else:
            self.take_over()
            now = time.monotonic()
            self._due = now + max(_PAUSE_S, _SHARE * (now - start))

    def _yield_place(self) -> None:
        """Where somebody else wrote in the file's place, leave it to them."""
        if self._own is not None and _mark(self.path) not in (None, self._own):
            self.move_to(earlier_place(self.path))
            self._notify(f"{_TAKEN} {OWN_FILE.format(path=self.path)}")
