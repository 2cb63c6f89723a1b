"""Tracking as the user drives it: over which frames, start, watch, cancel, go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_uniultra.core.types import Direction
from napari_uniultra.core.words import counted
from napari_uniultra.plugin.jobs import StreamHandle
from napari_uniultra.plugin.outcomes import LoadedModel, Outcome
from napari_uniultra.plugin.track_plan import TrackPlan, TrackRequest
from napari_uniultra.plugin.workspace import Workspace

if TYPE_CHECKING:
    from napari_uniultra.plugin.controller import SegmentController


@dataclass(frozen=True)
class Progress:
    """How far tracking is; ``seconds_left`` and ``frames_per_s`` are None until there is something to reckon from."""

    done: int
    total: int
    frames_per_s: float | None = None
    seconds_left: float | None = None


class Tracker(QObject):
    """Tracks objects of the loop in use, one propagation at a time.

    Attributes
    ----------
    only_current : bool
        Whether the object that is chosen is tracked alone.
    follow : bool
        Whether each frame is shown as soon as it is tracked.
    zoom : bool or None
        Whether small structures are looked at closely; None, until someone chose, for as the model was trained.
    """

    progressed = Signal(object)  # Progress, or None when tracking ended

    def __init__(self, control: SegmentController) -> None:
        super().__init__(control)
        self._control = control
        self.only_current = self.follow = False
        self.zoom: bool | None = None
        self._stream: StreamHandle | None = None
        self._work: Workspace | None = None  # of what is tracked
        self._plan: TrackPlan | None = None
        self._started, self._done, self._keeps_rest = 0.0, 0, True

    @property
    def running(self) -> bool:
        """Whether a propagation is under way."""
        return self._stream is not None

    @property
    def has_tracked(self) -> bool:
        """Whether any frame was tracked since the panel is open."""
        return self._done > 0

    @property
    def cancelled(self) -> bool:
        """Whether the propagation under way was told to stop."""
        return self._stream is not None and self._stream.cancelled

    # Over which frames ----------------------------------------------------------------------------------------------

    @property
    def range(self) -> tuple[int, int]:
        """First and last frame to track, both included."""
        work = self._control.work
        return (0, 0) if work is None else work.range

    def set_range(self, low: int, high: int) -> None:
        """Track from ``low`` to ``high``, both included, from now on."""
        work = self._control.work
        if work is not None and (low, high) != work.range:
            work.track_range = low, high
            self._control.changed.emit()

    def begin_here(self) -> None:
        """Let the range begin at the frame that is shown."""
        work = self._control.work_on_frame_or_word()
        if work is not None:
            frame, (_, high) = self._control.frame, work.range
            self.set_range(frame, high if high >= frame else work.num_frames - 1)

    def end_here(self) -> None:
        """Let the range end at the frame that is shown."""
        work = self._control.work_on_frame_or_word()
        if work is not None:
            frame, (low, _) = self._control.frame, work.range
            self.set_range(low if low <= frame else 0, frame)

    def track_only_current(self, on: bool) -> None:
        """Track the chosen object alone from now on, or all of them."""
        self.only_current = on
        self._control.changed.emit()

    def set_follow(self, on: bool) -> None:
        """Show each frame as soon as it is tracked, or leave the viewer where it is."""
        self.follow = on

    def set_zoom(self, on: bool) -> None:
        """Look closely at small structures from the next tracking on, or at all of each frame."""
        self.zoom = on

    # Start and stop -------------------------------------------------------------------------------------------------

    def track(self, direction: Direction) -> None:
        """Track within the range: "forward", "backward" or "both"."""
        host, request = self._control.host, self._request(direction)
        self._start(lambda: host.plan(request))

    @property
    def can_go_on(self) -> bool:
        """Whether a tracking was stopped, or some of the range was tracked and some was not."""
        work = self._control.work
        if work is None or self.running:
            return False
        if work.unfinished is not None:
            return True
        given = {object_id for object_id, _ in work.snapshot.prompts} - work.snapshot.locked_objects
        objects = given & {self._control.objects.current} if self.only_current else given
        return bool(objects) and not work.confidence.known_frames(objects).issuperset(_frames(work.range))

    def go_on(self) -> None:
        """Track what was left when tracking was stopped; without that, what is not known of the range."""
        work, host, request = self._control.work, self._control.host, self._request("both")
        left = None if work is None else work.unfinished
        self._start((lambda: host.plan_unfinished(request)) if left is None else lambda: left)

    def cancel(self, keep_rest: bool = True) -> None:
        """Stop tracking after the frame it is at; finished frames stay.

        Without ``keep_rest`` there is nothing to go on with, as when the session goes to another state.
        """
        self._keeps_rest = keep_rest
        if self._control.work is not None and not keep_rest:
            self._control.work.unfinished = None
        if self._stream is not None and not self._stream.cancelled:
            self._stream.cancel()
            self._control.say("Stopping")

    def forget(self) -> None:
        """The thread was stopped: nothing more will come."""
        if self._stream is not None:
            self._end("Stopped")

    def _request(self, direction: Direction) -> TrackRequest:
        objects = (self._control.objects.current,) if self.only_current else None
        return TrackRequest(direction, self._control.frame, *self.range, objects, self.zoom)

    def _start(self, plan: Callable[[], TrackPlan]) -> None:
        work = self._control.work_or_word()
        if work is None or self.running:
            return
        self._control.marks.sync()
        self._work, self._plan, self._done, self._keeps_rest = work, None, 0, True
        self._stream = self._control.jobs.stream(lambda: self._steps(plan), self._advanced, self._ended, self._failed)
        self._control.say("Tracking", loading_first=True)
        self._control.changed.emit()

    def _steps(self, plan: Callable[[], TrackPlan]) -> Iterator[Any]:
        """In the inference thread."""
        yield self._control.host.use_model(*self._control.model)
        planned = plan()
        yield planned
        yield from self._control.host.track(planned)

    def _advanced(self, item: LoadedModel | TrackPlan | Outcome) -> None:
        if isinstance(item, LoadedModel):
            self._control.note_model(item)
        elif isinstance(item, TrackPlan):
            self._plan, self._started = item, time.monotonic()
            self._work.unfinished = None
            self._tell_progress()
        else:
            self._done += 1
            if self._work is self._control.work:
                self._show(item)

    def _show(self, outcome: Outcome) -> None:
        self._control.show(outcome, quiet=True)
        if self.follow and not self.cancelled:
            self._control.navigator.go_to(*outcome.labels)
        self._tell_progress()

    def _tell_progress(self) -> None:
        if self._stream is None:
            return
        elapsed, done, total = time.monotonic() - self._started, self._done, self._plan.steps
        known = () if not done or elapsed <= 0 else (done / elapsed, (total - done) * elapsed / done)
        self.progressed.emit(Progress(done, total, *known))

    def _ended(self, stream: StreamHandle) -> None:
        if stream.cancelled:
            self._end(f"Stopped after {counted(self._done, 'frame')}")
        else:
            self._end("Tracked" if self._done else "There is nothing left to track in this range")

    def _failed(self, error: Exception) -> None:
        self._end("Tracking stopped; what was found so far is kept")
        self._control.failed.emit(error)

    def _end(self, words: str) -> None:
        if self._plan is not None and self._done and self._keeps_rest:
            left = self._plan.after(self._done)
            self._work.unfinished = left if left.steps else None
        self._stream = self._work = self._plan = None
        self.progressed.emit(None)
        self._control.say(words)
        self._control.changed.emit()


def _frames(ends: tuple[int, int]) -> range:
    return range(ends[0], ends[1] + 1)
