"""Undo and redo over whole states, which share their results and so cost little."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from napari_uniultra.segment.state import SessionState

_DEPTH = 50


class History:
    """The states before and after the present one.

    What waits in them is what the change between one and the next took away; all else that waits is no part of it.
    """

    def __init__(self) -> None:
        self._past: deque[SessionState] = deque(maxlen=_DEPTH)
        self._future: list[SessionState] = []

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)

    def remember(self, present: SessionState) -> None:
        """Call before the present state changes."""
        self._past.append(present)
        self._future.clear()

    def start_anew(self) -> None:
        """Call before the present state, in which nothing was done, is replaced."""
        self._future.clear()

    def undo(self, present: SessionState) -> SessionState | None:
        """The state before the last change, or None."""
        if not self._past:
            return None
        state = self._past.pop()
        self._future.append(replace(present, waiting=state.waiting))
        return state

    def redo(self, present: SessionState) -> SessionState | None:
        """The state that was last left by `undo`, or None."""
        if not self._future:
            return None
        state = self._future.pop()
        self._past.append(replace(present, waiting=state.waiting))
        return state
