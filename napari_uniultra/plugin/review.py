"""Looking over what was found: accept frames, mend stretches, undo, redo, take results away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_uniultra.plugin.layers import cine_of_layer
from napari_uniultra.plugin.outcomes import Outcome
from napari_uniultra.plugin.preview_layer import PreviewLayer

if TYPE_CHECKING:
    from napari_uniultra.core.postprocess import TidySettings
    from napari_uniultra.plugin.controller import SegmentController


class Review(QObject):
    """Changes of a session as a whole; each comes back as an `Outcome` to show. None of them needs a model."""

    def __init__(self, control: SegmentController) -> None:
        super().__init__(control)
        self._control = control
        self._preview = PreviewLayer(control.viewer)

    @property
    def frame_is_accepted(self) -> bool:
        """Whether anything on the frame shown is accepted."""
        return any(frame == self._control.frame for _, frame in self._control.snapshot.locked)

    @property
    def has_corrections(self) -> bool:
        """Whether an object has clicks, or prompts on more than one frame."""
        prompts = self._control.snapshot.prompts
        return len({frame for _, frame in prompts}) > 1 or any(prompt.points for prompt in prompts.values())

    def accept_frame(self) -> None:
        """Accept the frame shown, so that it is never overwritten and guides tracking; or take that back."""
        frame = self._control.frame
        if self._control.work_on_frame_or_word() is not None:
            self._change(lambda: self._control.host.toggle_lock(frame))

    def accept_all(self) -> None:
        """Accept every result there is."""
        self._change(self._control.host.accept_all)

    def fill_between(self) -> None:
        """Fill the frames around the one shown between those that were given or accepted on either side."""
        frame = self._control.frame
        if self._control.work_on_frame_or_word() is not None:
            self._change(lambda: self._control.host.interpolate(frame))

    def tidy(self, settings: TidySettings) -> None:
        """Tidy all masks but those that were painted or accepted."""
        self._change(lambda: self._control.host.tidy(settings))

    def preview_tidy(self, settings: TidySettings | None) -> None:
        """Show in a layer of its own what tidying would make of the frame shown; None takes that layer away."""
        control, work = self._control, self._control.work
        if settings is None or not control.shows_loop or not control.snapshot.names:
            self._preview.remove()
            return
        frame = control.frame
        control.submit(
            lambda: control.host.preview_tidy(settings, frame),
            lambda labels: self._preview.show(work.image, frame, labels),
            key="preview",
            lasting=False,
        )

    def export(self, path: str) -> None:
        """Write the masks in the format of the path's suffix, or the measurements where that is .csv."""
        control, work = self._control, self._control.work_or_word()
        if work is None:
            return
        control.marks.sync()
        control.say("Saving")
        cine = cine_of_layer(work.image)  # with the scale as it is known now
        is_table = path.lower().endswith(".csv")
        export = control.host.export_measurements if is_table else control.host.export_masks

        def job() -> bool:
            export(path, cine)
            return work.session.is_waiting

        control.submit(job, self._say_saved)

    def _say_saved(self, something_is_left: bool) -> None:
        self._control.say("Saved")
        if something_is_left:
            self._control.noticed.emit("Marks that were not segmented yet are not in the file.")

    def _change(self, job: Callable[[], Outcome]) -> None:
        """A change that leaves prompts and objects as they are."""
        if self._control.work_or_word() is not None:
            self._control.marks.sync()
            self._control.say("Working")
            self._control.submit(job, self._control.show)

    def undo(self) -> None:
        """Take back the last change."""
        self.go(self._control.host.undo)

    def redo(self) -> None:
        """Make the change again that was last taken back."""
        self.go(self._control.host.redo)

    def restore(self) -> None:
        """Bring back the work that was saved for this loop."""
        self._control.restorable = False
        self.go(self._control.host.restore, self._restored)

    def _restored(self, outcome: Outcome) -> None:
        self.show_other_state(outcome)
        self._control.marks.send_again()

    def go(self, job: Callable[[], Any], done: Callable[[Any], None] | None = None) -> None:
        """Take the session to another state, in the inference thread, and show that state."""
        control = self._control
        if control.work_or_word() is None:
            return
        control.tracker.cancel(keep_rest=False)
        control.marks.sync()
        control.say("Working")
        control.submit(job, done or self.show_other_state)
        control.changed.emit()

    def show_other_state(self, outcome: Outcome) -> None:
        """Show a state of the session that is not the last one with a change."""
        control = self._control
        control.show(outcome)
        control.marks.draw(outcome.snapshot.asked)
