"""What the user draws: tools, and the way of each edit from the layers to the session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtGui import QGuiApplication

from napari_uniultra.core.types import Prompt
from napari_uniultra.plugin.compare_layers import is_side_by_side
from napari_uniultra.plugin.drawing import Drawn
from napari_uniultra.plugin.image_layer import frames_shape
from napari_uniultra.plugin.layers import Key
from napari_uniultra.plugin.outcomes import Outcome
from napari_uniultra.plugin.painting import Painted
from napari_uniultra.plugin.prompt_layers import Tool
from napari_uniultra.plugin.result_layer import Brush
from napari_uniultra.plugin.workspace import Workspace

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
        self._problems: set[str] = set()
        self._timer, self._draw_timer = self._settling(self.sync), self._settling(self._draw_rest)

    def _settling(self, then: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(_SETTLE_MS)
        timer.timeout.connect(lambda: then())
        return timer

    @property
    def waiting(self) -> bool:
        """Whether there are edits that are about to be sent."""
        return self._timer.isActive()

    @property
    def collected(self) -> bool:
        """Whether there are edits that are sent when the user says so."""
        return self._collected

    def edited(self, drawn: bool = False) -> None:
        """Something was painted, or ``drawn``: it is sent as soon as nothing more comes, or collected."""
        if drawn:  # clicks refine what was painted before them: that goes first
            self._control.work.pending_paint.add(self._control.work.result.take_painted())
        if self.tool is not None:
            self._control.objects.hide(self._control.objects.current, False)  # as when the tool is taken in hand
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
        self._draw_timer.stop()
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
        if is_side_by_side(control.viewer):
            control.noticed.emit("Marks cannot be drawn while A and B are side by side. Turn that off in Compare.")
            return
        if self.auto:
            self.sync()
        control.objects.hide(work.current, False)  # nobody draws what cannot be seen
        if work.result.make() and work.snapshot.names:  # the first answer need not wait for napari to make the layer
            control.show_everything()
        if tool in _BRUSHES:
            work.result.use(tool, work.current)
        else:
            if len(work.prompts.layers) < 2 and work.snapshot.asked:
                self.draw(work.snapshot.asked)  # a layer that was deleted: its prompts are still in force
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
        """Whether the current object is said not to be in the frame shown, answered or not."""
        control = self._control
        prompt = control.snapshot.asked.get((control.objects.current, control.frame))
        return prompt is not None and prompt.absent

    def toggle_absent(self) -> None:
        """Say that the current object is not in the frame shown, or take that back."""
        control, work = self._control, self._control.work_on_frame_or_word()
        if work is None:
            return
        self.sync()
        prompt = None if self.absent else Prompt(mask=np.zeros(frames_shape(work.image)[-2:], bool))
        prompts = {(work.current, control.frame): prompt}
        control.say("Working", loading_first=True)
        self._ask(lambda: control.host.ask(prompts), self._show_given)

    # To the session -------------------------------------------------------------------------------------------------

    def sync(self, wait: bool = True) -> None:
        """Send what the layers say now and did not say before; while something is being drawn, once it is done.

        Without ``wait`` it is sent as it is: the loop is about to be left.
        """
        self._timer.stop()
        work = self._control.work
        if work is None:
            return
        if wait and _is_drawing():
            self._timer.start()
            return
        self._collected = False
        read = work.prompts.read()
        self._tell_problems(read.problems)
        drawn = {key: Drawn(read.prompts.get(key), _is_outline(known)) for key, known in _changed(work, read.prompts)}
        work.last_read = read.prompts
        self.ask_painted({})
        self._send(drawn)
        self.ask_painted(work.result.take_painted())

    def send_again(self) -> bool:
        """Ask again for what could not be segmented for want of a model; returns whether there was anything."""
        work = self._control.work
        waiting = work is not None and (work.session.is_waiting or work.pending or work.pending_paint)
        if waiting:
            self._ask(set, self._show_given, key=f"again {id(work)}")
        return bool(waiting)

    def _send(self, drawn: Mapping[Key, Drawn]) -> None:
        control, work = self._control, self._control.work
        work.pending.add(drawn)
        if not work.pending:
            return
        number = work.pending.count
        work.sent_last |= dict.fromkeys(drawn, number)
        control.say("Segmenting", loading_first=True)
        self._ask(
            lambda: control.host.ask_drawn(work.pending.take(number), number),
            self._show_prompts,
            key=f"prompts {id(work)}",
        )

    def ask_painted(self, painted: Mapping[int, Painted]) -> None:
        """Send what was painted, by frame, and what was painted before."""
        control, work = self._control, self._control.work
        work.pending_paint.add(painted)
        if not work.pending_paint:
            return
        number = work.pending_paint.count
        self._ask(
            lambda: control.host.ask_painted(work.pending_paint.take(number)), self._show_given, key=f"paint {id(work)}"
        )

    def _ask(self, asked: Callable[[], set[int]], done: Callable[[Outcome], None], key: str | None = None) -> None:
        """Have the session asked for something; without a model that waits there, and is saved."""
        self._control.submit(self._control.host.answer, done, with_model=True, key=key, first=asked)

    # From the session -----------------------------------------------------------------------------------------------

    def _show_prompts(self, outcome: Outcome) -> None:
        self._control.show(outcome)
        if outcome.errors:
            for error in {str(error): error for error in outcome.errors.values()}.values():
                self._control.failed.emit(error)
            self.draw(outcome.snapshot.asked, keys=outcome.errors)

    def _show_given(self, outcome: Outcome) -> None:
        """What was painted, or is absent, takes the place of what was drawn for that object on that frame."""
        self._show_prompts(outcome)
        prompts = outcome.snapshot.asked
        self.draw(prompts, keys=[key for key in prompts if key[1] in outcome.labels])

    def draw(self, prompts: Mapping[Key, Prompt], keys: Iterable[Key] | None = None) -> None:
        """Make the drawings say what the session holds, without sending that back to it.

        What the user drew and the session has not heard of stays as it is. While something is being drawn, nothing
        else is: it would be let go of.
        """
        work = self._control.work
        keys = {*prompts, *work.last_read} if keys is None else set(keys)
        if _is_drawing():
            work.undrawn |= keys
            self._draw_timer.start()
            return
        keys -= work.unheard.union(key for key, _ in _changed(work, work.prompts.read().prompts))
        work.prompts.show(prompts, keys=keys)
        _note_read(work, keys)

    def _draw_rest(self) -> None:
        """Draw what came while the mouse was pressed."""
        work = self._control.work
        if work is not None:
            keys, work.undrawn = work.undrawn, set()
            self.draw(work.snapshot.asked, keys)

    def forget(self, work: Workspace, layer: Any) -> bool:
        """Let go of a layer of drawings that was deleted; returns whether it was one.

        That is no wish to lose the masks: their prompts stay in force until they are edited.
        """
        if layer not in work.prompts.layers:
            return False
        before = work.prompts.read().prompts
        work.prompts.forget(layer)
        after = work.prompts.read().prompts
        _note_read(work, {key for key in before if after.get(key) != before[key]})
        return True

    def _tell_problems(self, problems: list[Any]) -> None:
        words = {str(problem) for problem in problems}
        for problem in problems:
            if str(problem) not in self._problems:
                self._control.failed.emit(problem)
        self._problems = words


def _is_drawing() -> bool:
    """Whether a mouse button is pressed: something may be being drawn or dragged."""
    return QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton


def _changed(work: Workspace, prompts: Mapping[Key, Prompt]) -> list[tuple[Key, Prompt | None]]:
    """Where the drawings do not say what they said when they were last sent or shown, and what that was."""
    known = work.last_read
    return [(key, known.get(key)) for key in {*prompts, *known} if prompts.get(key) != known.get(key)]


def _note_read(work: Workspace, keys: Iterable[Key]) -> None:
    """What the drawings of some objects on some frames say now is nothing to send."""
    read = work.prompts.read().prompts
    for key in keys:
        work.last_read.pop(key, None)
        if key in read:
            work.last_read[key] = read[key]


def _is_outline(prompt: Prompt | None) -> bool:
    return prompt is not None and prompt.mask is not None
