"""Tracking as the user drives it: start, watch, cancel, go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_uniultra.core.types import Direction
from napari_uniultra.plugin.jobs import StreamHandle
from napari_uniultra.plugin.session_host import LoadedModel, Outcome
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
    """Tracks the objects of the loop in use, one propagation at a time."""

    progressed = Signal(object)  # Progress, or None when tracking ended

    def __init__(self, control: SegmentController) -> None:
        super().__init__(control)
        self._control = control
        self._stream: StreamHandle | None = None
        self._started, self._done = 0.0, 0

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

    def track(self, direction: Direction) -> None:
        """Track all objects: "forward", "backward" or "both"."""
        work = self._control.work_or_word()
        if work is None or self.running:
            return
        self._control.marks.sync()
        frame, self._done = self._control.frame, 0
        self._stream = self._control.jobs.stream(
            lambda: self._steps(direction, frame),
            lambda item: self._tracked(work, item),
            self._ended,
            self._failed,
        )
        self._control.say("Tracking", loading_first=True)
        self._control.changed.emit()

    def cancel(self) -> None:
        """Stop tracking after the frame it is at; finished frames stay."""
        if self._stream is not None and not self._stream.cancelled:
            self._stream.cancel()
            self._control.say("Stopping")

    def forget(self) -> None:
        """The thread was stopped: nothing more will come."""
        if self._stream is not None:
            self._end("Stopped")

    def _steps(self, direction: Direction, frame: int) -> Iterator[Any]:
        """In the inference thread."""
        yield self._control.host.use_model(*self._control.model)
        yield from self._control.host.track(direction, frame)

    def _tracked(self, work: Workspace, item: LoadedModel | Outcome) -> None:
        if isinstance(item, LoadedModel):
            self._control.note_model(item)
            return
        if work != self._control.work:
            return
        if item.labels:
            self._done += 1
        else:
            self._started = time.monotonic()
        self._control.show(item, quiet=True)
        if self._stream is not None:
            self.progressed.emit(self._progress(item.steps))

    def _progress(self, total: int) -> Progress:
        elapsed, done = time.monotonic() - self._started, self._done
        if not done or elapsed <= 0:
            return Progress(done, total)
        return Progress(done, total, done / elapsed, (total - done) * elapsed / done)

    def _ended(self, stream: StreamHandle) -> None:
        self._end(f"Stopped after {self._done} frames" if stream.cancelled else "Tracked")

    def _failed(self, error: Exception) -> None:
        self._end("Tracking stopped; what was found so far is kept")
        self._control.failed.emit(error)

    def _end(self, words: str) -> None:
        self._stream = None
        self.progressed.emit(None)
        self._control.say(words)
        self._control.changed.emit()
