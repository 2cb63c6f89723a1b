"""A session's work kept for the case of a crash, without slowing down what is being done."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from napari_uniultra.core.places import cache_folder
from napari_uniultra.errors import WriteError

# While tracking, between the end of one and the next: at least so long, and so many times what the last one took.
_PAUSE_S, _SHARE = 0.2, 20
_AGAIN_S = 30.0  # after one that failed


def autosave_folder() -> Path:
    """Where unfinished work is kept."""
    return cache_folder() / "autosave"


def earlier_place(path: Path) -> Path:
    """A place beside a file of work for what was in its place; nothing is there yet."""
    numbers = (f".earlier{'' if number == 1 else f'-{number}'}.npz" for number in count(1))
    return next(place for place in map(path.with_suffix, numbers) if not place.exists())


class Autosave:
    """Writes a file again and again.

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
        self.path = path
        self._write, self._notify = write, notify
        self._due = 0.0  # time.monotonic

    @property
    def is_due(self) -> bool:
        """Whether the last one is long enough ago for what changes with every frame."""
        return time.monotonic() >= self._due

    def save(self) -> None:
        """Write now. A full disk must not stop the work: it is said, and tried again at the next change."""
        if self.path is None:
            return
        start = time.monotonic()
        try:
            self._write(self.path)
        except WriteError as error:
            self._due = start + _AGAIN_S
            self._notify(f"Your work could not be kept for the case of a crash. {error}")
        else:
            now = time.monotonic()
            self._due = now + max(_PAUSE_S, _SHARE * (now - start))
