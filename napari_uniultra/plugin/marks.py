"""What the user draws: tools, and the way of each edit from the layers to the session."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtGui import QGuiApplication

from napari_uniultra.core.types import Prompt
from napari_uniultra.plugin.layers import Key
from napari_uniultra.plugin.prompt_layers import Tool
from napari_uniultra.plugin.session_host import Outcome

if TYPE_CHECKING:
    from napari_uniultra.plugin.controller import SegmentController

_SETTLE_MS = 50  # edits within this time are sent as one


class Marks(QObject):
    """Boxes, clicks and painted masks of the loop in use.

    Attributes
    ----------
    tool : str or None
        The tool in hand.
    """

    def __init__(self, control: SegmentController) -> None:
        super().__init__(control)
        self._control = control
        self.tool: Tool | None = None
        self.outlines_as_masks = False
        self._pending: dict[Key, Prompt | None] = {}
        self._pending_lock = threading.Lock()
        self._problems: set[str] = set()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self.sync)

    @property
    def waiting(self) -> bool:
        """Whether there are edits that were not sent yet."""
        return self._timer.isActive()

    def edited(self) -> None:
        """Something was drawn: it is sent as soon as nothing more comes."""
        self._timer.start()

    def stop(self) -> None:
        """Forget what was not sent."""
        self._timer.stop()
        self._pending.clear()

    def use(self, tool: Tool) -> None:
        """Take a tool in hand: "box", "add" or "remove". The model gets ready for the frame shown meanwhile."""
        control, work = self._control, self._control.work_or_word()
        if work is None:
            return
        self.tool = tool
        self.sync()
        if len(work.prompts.layers) < 2 and work.snapshot.prompts:
            self.draw(work.snapshot.prompts)  # a layer that was deleted: its prompts are still in force
        work.prompts.use(tool, work.current)
        control.prepare_frame()
        control.changed.emit()

    def put_away(self) -> None:
        """Let dragging move the picture again."""
        self.tool = None
        if self._control.work is not None:
            self._control.work.prompts.rest()
        self._control.changed.emit()

    def set_outlines_as_masks(self, on: bool) -> None:
        """Whether ellipses and polygons count as filled outlines instead of the box around them."""
        self.outlines_as_masks = on
        if self._control.work is not None:
            self._control.work.prompts.outlines_as_masks = on
            self._timer.start()

    def sync(self) -> None:
        """Send what changed in the layers of prompts."""
        self._timer.stop()
        work = self._control.work
        if work is None:
            return
        if QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton:
            self._timer.start()  # something is being drawn or dragged: wait until it is let go
            return
        read = work.prompts.read()
        self._tell_problems(read.problems)
        changed = {
            key: read.prompts.get(key)
            for key in {*read.prompts, *work.last_read}
            if read.prompts.get(key) != work.last_read.get(key)
        }
        work.last_read = read.prompts
        self._send(changed)
        painted = work.result.take_painted()
        if painted:
            self._control.submit(lambda: self._control.host.set_painted(painted), self._show_painted, with_model=True)

    def send_again(self) -> bool:
        """Send what could not be segmented for want of a model; returns whether there was anything."""
        waiting = bool(self._pending)
        self._send({})
        return waiting

    def _send(self, prompts: dict[Key, Prompt | None]) -> None:
        with self._pending_lock:
            self._pending.update(prompts)
            if not self._pending:
                return
        names = self._control.objects.names
        self._control.say("Segmenting", loading_first=True)
        self._control.submit(
            lambda: self._control.host.set_prompts(self._take_pending(), names),
            self._show_prompts,
            with_model=True,
            key="prompts",
        )

    def _take_pending(self) -> dict[Key, Prompt | None]:
        """All edits since the last job took its share; in the inference thread."""
        with self._pending_lock:
            taken, self._pending = self._pending, {}
        return taken

    def _show_prompts(self, outcome: Outcome) -> None:
        self._control.show(outcome)
        if outcome.errors:
            for error in outcome.errors.values():
                self._control.failed.emit(error)
            self.draw(outcome.snapshot.prompts, keys=outcome.errors)

    def _show_painted(self, outcome: Outcome) -> None:
        """A painted mask takes the place of what was drawn for that object on that frame."""
        self._control.work.objects = {**outcome.snapshot.names, **self._control.work.objects}
        self._show_prompts(outcome)
        prompts = outcome.snapshot.prompts
        self.draw(prompts, keys=[key for key in prompts if key[1] in outcome.labels])

    def draw(self, prompts: dict[Key, Prompt], keys: Any = None) -> None:
        """Make the drawings say what the session holds, without sending that back to it."""
        with self._pending_lock:
            pending = set(self._pending)
        keys = ({*prompts, *self._control.work.last_read} if keys is None else set(keys)) - pending
        self._control.work.prompts.show(prompts, keys=keys)
        self._control.work.last_read = self._control.work.prompts.read().prompts

    def _tell_problems(self, problems: list[Any]) -> None:
        words = {str(problem) for problem in problems}
        for problem in problems:
            if str(problem) not in self._problems:
                self._control.failed.emit(problem)
        self._problems = words
