"""What the controllers ask of the thread that computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class StreamHandle(Protocol):
    """A running job in steps."""

    cancelled: bool

    def cancel(self) -> None: ...


class Jobs(Protocol):
    """The inference thread, as `widgets.worker.InferenceThread` is: jobs in order, callbacks in the GUI thread."""

    busy: bool

    def submit(
        self, work: Callable, done: Callable, failed: Callable, key: str | None = None, lasting: bool = False
    ) -> None: ...

    def stream(self, steps: Callable, item: Callable, done: Callable, failed: Callable) -> StreamHandle: ...

    def ahead(self, steps: Callable | None) -> None: ...

    def stop(self, timeout_s: float = ...) -> bool: ...
