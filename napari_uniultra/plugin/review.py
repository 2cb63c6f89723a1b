"""Looking over what was found: accept frames, undo, redo, bring back saved work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_uniultra.plugin.session_host import Outcome

if TYPE_CHECKING:
    from napari_uniultra.plugin.controller import SegmentController


class Review(QObject):
    """Changes of a session as a whole; each comes back as an `Outcome` to show."""

    def __init__(self, control: SegmentController) -> None:
        super().__init__(control)
        self._control = control

    @property
    def frame_is_accepted(self) -> bool:
        """Whether anything on the frame shown is accepted."""
        return any(frame == self._control.frame for _, frame in self._control.snapshot.locked)

    def accept_frame(self) -> None:
        """Accept the frame shown, so that it is never overwritten and guides tracking; or take that back."""
        control = self._control
        if control.work_or_word() is None:
            return
        control.marks.sync()
        frame = control.frame
        control.submit(lambda: control.host.toggle_lock(frame), control.show, with_model=True)

    def undo(self) -> None:
        """Take back the last change."""
        self.go(self._control.host.undo)

    def redo(self) -> None:
        """Make the change again that was last taken back."""
        self.go(self._control.host.redo)

    def restore(self) -> None:
        """Bring back the work that was saved for this loop."""
        self._control.restorable = False
        self.go(self._control.host.restore, with_model=False)

    def go(
        self, job: Callable[[], Any], done: Callable[[Any], None] | None = None, with_model: bool = True
    ) -> None:
        """Take the session to another state, in the inference thread, and show that state."""
        control = self._control
        if control.work_or_word() is None:
            return
        control.tracker.cancel()
        control.marks.sync()
        control.say("Working", loading_first=True)
        control.submit(job, done or self.show_other_state, with_model=with_model)
        control.changed.emit()

    def show_other_state(self, outcome: Outcome) -> None:
        """Show a state of the session that is not the last one with a change."""
        control = self._control
        control.objects.take_over(outcome.snapshot.names)
        control.show(outcome)
        control.marks.draw(outcome.snapshot.prompts)
        control.objects.choose_known()
