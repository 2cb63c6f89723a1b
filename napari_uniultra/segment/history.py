"""Undo and redo over whole states, which share their results and so cost little."""

from __future__ import annotations

from collections import deque

from napari_uniultra.segment.state import SessionState

_DEPTH = 50


class History:
    """The states before and after the present one."""

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
        self._future.append(present)
        return self._past.pop()

    def redo(self, present: SessionState) -> SessionState | None:
        """The state that was last left by `undo`, or None."""
        if not self._future:
            return None
        self._past.append(present)
        return self._future.pop()
