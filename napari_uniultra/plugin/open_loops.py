"""The loops that are open at once, and whose work is the one kept in the place for their content. No Qt, no napari."""

from __future__ import annotations

import os
from collections.abc import Callable

from napari_uniultra.plugin.loop_session import LoopSession
from napari_uniultra.segment.autosave import OWN_FILE, earlier_place

_SAME_CONTENT = (
    "Another open layer shows the very same loop. Each has its own work while both are open, but when the loop is "
    "opened the next time, only what was changed last is offered. Save a session of each to keep both."
)
_NOT_MOVED = "The work that was kept of this loop before cannot be moved to make room."


class OpenLoops:
    """The sessions of loops, of which several may show the very same. Their flags are set here alone.

    Parameters
    ----------
    on_notice : callable
        Is told in words what the user should know.
    """

    def __init__(self, on_notice: Callable[[str], None]) -> None:
        self._on_notice = on_notice
        self._loops: list[LoopSession] = []

    def add(self, own: LoopSession) -> None:
        """A loop is taken in use; it is told once that another one shows the same."""
        if own not in self._loops:
            self._loops.append(own)
        if not own.is_told and any(other.has_begun for other in self._alike(own)):
            own.is_told = True
            self._on_notice(_SAME_CONTENT)

    def forget(self, own: LoopSession) -> None:
        """Let go of a loop."""
        self._loops = [other for other in self._loops if other is not own]

    def take_place(self, own: LoopSession) -> None:
        """Before a session saves itself: work in the same place that is not its own moves out of the way."""
        if own.saved_last:
            return
        place = own.path
        if place.is_file():
            earlier = earlier_place(place)
            try:
                os.replace(place, earlier)
            except OSError:  # as on Windows, while another program reads it
                place = earlier
                self._on_notice(f"{_NOT_MOVED} {OWN_FILE.format(path=place)}")
            else:
                for loop in (own, *self._alike(own)):
                    loop.saved_work = earlier if loop.saved_work == own.path else loop.saved_work
        own.session.keep_in(place)
        self._has_place(own)

    def restore(self, own: LoopSession) -> None:
        """Have a session open the work that was saved before it began. Raises what `CineSession.open` raises."""
        if own.saved_work != own.path:
            self.take_place(own)
        own.session.open(own.saved_work)
        self._has_place(own)
        own.saved_work = None

    def _has_place(self, own: LoopSession) -> None:
        """What is kept of this content is the work of this session from now on."""
        for other in self._alike(own):
            other.saved_last = False
        own.saved_last = True

    def _alike(self, own: LoopSession) -> list[LoopSession]:
        """The other open loops that show the same."""
        return [other for other in self._loops if other is not own and other.path == own.path]
