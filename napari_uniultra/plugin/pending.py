"""Edits on their way to the session."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from typing import Generic, Protocol, TypeVar


class Edit(Protocol):
    """A change that a later one of the same thing can be added to."""

    def then(self, later: Edit) -> Edit: ...


K = TypeVar("K", bound=Hashable)
E = TypeVar("E", bound=Edit)


class Pending(Generic[K, E]):
    """What is to be changed, from when it was asked for in the GUI thread until the inference thread takes it.

    Each time something is asked for has a number, so that a job leaves alone what was asked for after it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._edits: dict[K, tuple[int, E]] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._edits)

    def __contains__(self, key: K) -> bool:
        return key in self._edits

    def add(self, edits: Mapping[K, E]) -> None:
        """Ask for changes. One of something that still waits to be changed is added to that change."""
        with self._lock:
            self.count += bool(edits)
            for key, edit in edits.items():
                earlier = self._edits.get(key)
                self._edits[key] = self.count, edit if earlier is None else earlier[1].then(edit)

    def take(self, number: int) -> dict[K, E]:
        """All that was asked for up to a number and not taken before."""
        with self._lock:
            taken = {key: edit for key, (own, edit) in self._edits.items() if own <= number}
            for key in taken:
                del self._edits[key]
        return taken
