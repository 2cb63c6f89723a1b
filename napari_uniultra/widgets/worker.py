"""The one thread that runs the model. Everything that touches a session or a network happens here, one job at a time.

One persistent thread rather than a pool: cuDNN makes its plans anew for each thread, and a session is not shared.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject, Signal, Slot

from napari_uniultra.plugin.priority import give_way

_log = logging.getLogger(__name__)

Callback = Callable[[Any], None]


@dataclass(frozen=True)
class _Job:
    work: Callable[[], Any]
    done: Callback
    failed: Callback
    key: str | None
    lasting: bool


class Stream:
    """Work in steps, as tracking a loop is: it can be cancelled between two of them, and other jobs go in between."""

    def __init__(self, steps: Callable[[], Iterator[Any]], item: Callback, done: Callback, failed: Callback) -> None:
        self._steps, self.item, self.done, self.failed = steps, item, done, failed
        self._iterator: Iterator[Any] | None = None
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the stream to end after the step it is in; what it has delivered stays."""
        self._cancelled.set()

    def advance(self) -> Any:
        """The next step, in the inference thread. Raises StopIteration at the end."""
        if self._iterator is None:
            self._iterator = iter(self._steps())
        return next(self._iterator)

    def close(self) -> None:
        """Let the generator clean up, in the inference thread."""
        if hasattr(self._iterator, "close"):
            self._iterator.close()


class InferenceThread(QObject):
    """Runs jobs in one thread and hands their results back in the thread that made this object, the GUI's.

    Jobs run in the order they were submitted. A stream runs whenever no job waits, one step at a time, so that a prompt
    is answered in the middle of tracking; what is computed ahead runs, one step at a time, when there is neither. The
    thread starts with the first job, and again after `stop`.
    """

    _results = Signal(object, object)  # (callback, its argument)

    def __init__(self) -> None:
        super().__init__()
        self._jobs: deque[_Job] = deque()
        self._streams: deque[Stream] = deque()
        self._ahead: Iterator[Any] | None = None
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._working = False
        self._on_their_way = 0  # results that were not handed over yet
        self._results.connect(self._hand_over)

    @property
    def running(self) -> bool:
        """Whether the thread lives."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether there is work, or a result that was not handed over yet; what is computed ahead is none."""
        with self._wake:
            return bool(self._jobs or self._streams or self._working or self._on_their_way)

    def submit(
        self,
        work: Callable[[], Any],
        done: Callback,
        failed: Callback,
        key: str | None = None,
        lasting: bool = False,
    ) -> None:
        """Run ``work`` and give what it returns to ``done``, or the exception it raises to ``failed``.

        With a ``key``, a job of the same key that still waits is dropped: the latest wins. One that is ``lasting``, as
        it keeps what the user made, is done even when the thread is to stop, and dropped for another only as long as
        nothing was asked for after it.
        """
        with self._wake:
            if key is not None:
                last = self._jobs[-1] if self._jobs else None
                self._jobs = deque(job for job in self._jobs if job.key != key or (job.lasting and job is not last))
            self._jobs.append(_Job(work, done, failed, key, lasting))
            self._start()

    def stream(self, steps: Callable[[], Iterator[Any]], item: Callback, done: Callback, failed: Callback) -> Stream:
        """Run the iterator that ``steps`` makes; each value goes to ``item``. ``done`` gets the stream at its end."""
        stream = Stream(steps, item, done, failed)
        with self._wake:
            self._streams.append(stream)
            self._start()
        return stream

    def ahead(self, steps: Callable[[], Iterator[Any]] | None) -> None:
        """Go through the iterator that ``steps`` makes while there is nothing else to do; None ends that.

        It takes the place of an earlier one. Its values are dropped, and an error ends it quietly: what is wrong shows
        when somebody asks for it.
        """
        with self._wake:
            self._ahead = None if steps is None else steps()
            if self._ahead is not None:
                self._start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Cancel all but lasting jobs, wait for these and the step in progress, end the thread.

        Results on their way are dropped.

        Returns
        -------
        bool
            False when the thread did not end in time; it then ends on its own.
        """
        with self._wake:
            self._stopping = True
            self._jobs = deque(job for job in self._jobs if job.lasting)
            self._ahead = None
            for stream in self._streams:
                stream.cancel()
            self._wake.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        self._on_their_way = 0
        return thread is None or not thread.is_alive()

    def _start(self) -> None:
        """With the lock held."""
        self._stopping = False
        if not self.running:
            self._thread = threading.Thread(target=self._run, name="uniultra-inference", daemon=True)
            self._thread.start()
        self._wake.notify_all()

    def _run(self) -> None:
        give_way()
        while True:
            with self._wake:
                while not (self._jobs or self._streams or self._ahead or self._stopping):
                    self._wake.wait()
                job = self._jobs.popleft() if self._jobs else None
                stream = self._streams[0] if job is None and self._streams else None
                ahead = self._ahead if job is None and stream is None else None
                if job is None and stream is None and ahead is None:
                    self._thread = None  # under the lock: a job that comes now starts a new thread
                    return
                self._working = ahead is None
            if ahead is not None:
                self._step_ahead(ahead)
            elif job is not None:
                self._do(job)
            else:
                self._step(stream)
            with self._wake:
                self._working = False

    def _do(self, job: _Job) -> None:
        try:
            result = job.work()
        except Exception as error:
            self._deliver(job.failed, error)
        else:
            self._deliver(job.done, result)

    def _step_ahead(self, ahead: Iterator[Any]) -> None:
        try:
            next(ahead)
            return
        except StopIteration:
            pass
        except Exception:
            _log.debug("What was computed ahead failed", exc_info=True)
        with self._wake:
            if self._ahead is ahead:
                self._ahead = None

    def _step(self, stream: Stream) -> None:
        try:
            if not stream.cancelled:
                self._deliver(stream.item, stream.advance())
                return
            stream.close()
        except StopIteration:
            pass
        except Exception as error:
            self._finish(stream, stream.failed, error)
            return
        self._finish(stream, stream.done, stream)

    def _finish(self, stream: Stream, callback: Callback, argument: Any) -> None:
        with self._wake:
            self._streams.remove(stream)
        self._deliver(callback, argument)

    def _deliver(self, callback: Callback, argument: Any) -> None:
        if self._stopping:
            return
        with self._wake:
            self._on_their_way += 1
        try:
            self._results.emit(callback, argument)
        except RuntimeError:  # the Qt side of this object is gone, as when the application quits
            _log.debug("A result came after the window was gone", exc_info=True)

    @Slot(object, object)
    def _hand_over(self, callback: Callback, argument: Any) -> None:
        if self._stopping:
            return
        try:
            callback(argument)
        finally:
            with self._wake:
                self._on_their_way = max(0, self._on_their_way - 1)
