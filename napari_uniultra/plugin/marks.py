"""What the user draws: tools, and the way of each edit from the layers to the session."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtGui import QGuiApplication

from napari_uniultra.core.types import Prompt
from napari_uniultra.plugin.layers import Key
from napari_uniultra.plugin.painting import Painted
from napari_uniultra.plugin.prompt_layers import Tool, frames_shape
from napari_uniultra.plugin.result_layer import Brush
from napari_uniultra.plugin.session_host import Outcome

if TYPE_CHECKING:
    from napari_uniultra.plugin.controller import SegmentController

_SETTLE_MS = 50  # edits within this time are sent as one
_BRUSHES = ("paint", "erase")


class Marks(QObject):
    """Boxes, clicks and painted masks of the loop in use.

    Attributes
    ----------
    auto : bool
        Whether edits are sent as soon as nothing more comes; else they are collected until `segment_now`, or until
        something needs them, such as tracking.
    outlines_as_masks : bool
        Whether ellipses and polygons count as filled outlines instead of the box around them.
    """

    def __init__(self, control: SegmentController) -> None:
        super().__init__(control)
        self._control = control
        self.auto = True
        self.outlines_as_masks = False
        self._collected = False
        self._pending_lock = threading.Lock()
        self._problems: set[str] = set()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self.sync)

    @property
    def waiting(self) -> bool:
        """Whether there are edits that are about to be sent."""
        return self._timer.isActive()

    @property
    def collected(self) -> bool:
        """Whether there are edits that are sent when the user says so."""
        return self._collected

    def edited(self) -> None:
        """Something was drawn: it is sent as soon as nothing more comes, or collected."""
        if self.auto:
            self._timer.start()
        elif not self._collected:
            self._collected = True
            self._control.changed.emit()

    def set_auto(self, on: bool) -> None:
        """Send edits at once from now on, or collect them."""
        self.auto = on
        if on and self._collected:
            self.sync()
        self._control.changed.emit()

    def segment_now(self) -> None:
        """Send what was collected."""
        if self._control.work_or_word() is not None:
            self.sync()
            self._control.changed.emit()

    def stop(self) -> None:
        """Forget what was not sent."""
        self._timer.stop()
        self._collected = False

    # Tools ----------------------------------------------------------------------------------------------------------

    @property
    def tool(self) -> Tool | Brush | None:
        """The tool in hand, whether it was taken in the panel, by a key, or in napari."""
        work = self._control.work
        return None if work is None else work.prompts.tool or work.result.tool

    @property
    def brush_size(self) -> int:
        """Diameter of the brush in pixels."""
        work = self._control.work
        return 1 if work is None else work.result.brush_size

    def set_brush_size(self, size: int) -> None:
        """Make the brush larger or smaller."""
        if self._control.work is not None:
            self._control.work.result.brush_size = size

    def use(self, tool: Tool | Brush) -> None:
        """Take a tool in hand: "box", "add", "remove", "paint" or "erase". The model gets ready for the frame shown."""
        control, work = self._control, self._control.work_or_word()
        if work is None:
            return
        if self.auto:
            self.sync()
        control.objects.hide(work.current, False)  # nobody draws what cannot be seen
        if work.result.make() and work.snapshot.names:  # the first answer need not wait for napari to make the layer
            control.submit(control.host.everything, control.show, key="everything")
        if tool in _BRUSHES:
            work.result.use(tool, work.current)
        else:
            if len(work.prompts.layers) < 2 and work.snapshot.prompts:
                self.draw(work.snapshot.prompts)  # a layer that was deleted: its prompts are still in force
            work.prompts.use(tool, work.current)
        control.prepare_frame()
        control.changed.emit()

    def put_away(self) -> None:
        """Let dragging move the picture again."""
        if self._control.work is not None:
            self._control.work.prompts.rest()
            self._control.work.result.rest()
        self._control.changed.emit()

    def tool_changed(self) -> None:
        """Another layer, mode, label or size of the brush was chosen in napari."""
        work = self._control.work
        if work is not None and work.result.tool is not None:
            self._control.objects.choose(work.result.selected)
        self._control.changed.emit()

    def set_outlines_as_masks(self, on: bool) -> None:
        """Whether the outline on this frame, and those drawn from now on, count as filled instead of as a box."""
        self.outlines_as_masks = on
        if self._control.work is not None:
            self._control.work.prompts.set_exact(on)
            self.edited()

    # Absent ---------------------------------------------------------------------------------------------------------

    @property
    def absent(self) -> bool:
        """Whether the current object is said not to be in the frame shown."""
        control = self._control
        prompt = control.snapshot.prompts.get((control.objects.current, control.frame))
        return prompt is not None and prompt.absent

    def toggle_absent(self) -> None:
        """Say that the current object is not in the frame shown, or take that back."""
        control, work = self._control, self._control.work_or_word()
        if work is None:
            return
        self.sync()
        prompt = None if self.absent else Prompt(mask=np.zeros(frames_shape(work.image)[-2:], bool))
        prompts = {(work.current, control.frame): prompt}
        control.say("Working", loading_first=True)
        control.submit(lambda: control.host.set_prompts(prompts), self._show_given, with_model=True)

    # To the session -------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Send what the layers say now and did not say before; while something is being drawn, once it is done."""
        self._timer.stop()
        work = self._control.work
        if work is None:
            return
        if QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton:
            self._timer.start()  # something is being drawn or dragged: wait until it is let go
            return
        self._collected = False
        read = work.prompts.read()
        self._tell_problems(read.problems)
        changed = {
            key: read.prompts.get(key)
            for key in {*read.prompts, *work.last_read}
            if read.prompts.get(key) != work.last_read.get(key)
        }
        work.last_read = read.prompts
        self._send(changed)
        self._send_painted(work.result.take_painted())

    def send_again(self) -> bool:
        """Send what could not be segmented for want of a model; returns whether there was anything."""
        work = self._control.work
        waiting = work is not None and bool(work.pending or work.pending_paint)
        if waiting:
            self._send({})
            self._send_painted({})
        return waiting

    def _send(self, prompts: Mapping[Key, Prompt | None]) -> None:
        control, work = self._control, self._control.work
        with self._pending_lock:
            work.pending.update(prompts)
            if not work.pending:
                return
        control.say("Segmenting", loading_first=True)
        control.submit(
            lambda: control.host.set_prompts(self._take(work.pending)),
            self._show_prompts,
            with_model=True,
            key=f"prompts {id(work)}",
        )

    def _send_painted(self, painted: Mapping[int, Painted]) -> None:
        control, work = self._control, self._control.work
        with self._pending_lock:
            for frame, own in painted.items():
                earlier = work.pending_paint.get(frame)
                work.pending_paint[frame] = own if earlier is None else earlier.then(own)
            if not work.pending_paint:
                return
        control.submit(
            lambda: control.host.set_painted(self._take(work.pending_paint)),
            self._show_given,
            with_model=True,
            key=f"paint {id(work)}",
        )

    def _take(self, pending: dict[Any, Any]) -> dict[Any, Any]:
        """All edits since the last job took its share; in the inference thread."""
        with self._pending_lock:
            taken = dict(pending)
            pending.clear()
        return taken

    # From the session -----------------------------------------------------------------------------------------------

    def _show_prompts(self, outcome: Outcome) -> None:
        self._control.show(outcome)
        if outcome.errors:
            for error in outcome.errors.values():
                self._control.failed.emit(error)
            self.draw(outcome.snapshot.prompts, keys=outcome.errors)

    def _show_given(self, outcome: Outcome) -> None:
        """What was painted, or is absent, takes the place of what was drawn for that object on that frame."""
        self._show_prompts(outcome)
        prompts = outcome.snapshot.prompts
        self.draw(prompts, keys=[key for key in prompts if key[1] in outcome.labels])

    def draw(self, prompts: Mapping[Key, Prompt], keys: Iterable[Key] | None = None) -> None:
        """Make the drawings say what the session holds, without sending that back to it."""
        with self._pending_lock:
            pending = set(self._control.work.pending)
        keys = ({*prompts, *self._control.work.last_read} if keys is None else set(keys)) - pending
        self._control.work.prompts.show(prompts, keys=keys)
        self._control.work.last_read = self._control.work.prompts.read().prompts

    def _tell_problems(self, problems: list[Any]) -> None:
        words = {str(problem) for problem in problems}
        for problem in problems:
            if str(problem) not in self._problems:
                self._control.failed.emit(problem)
        self._problems = words
