"""A file that stops work as Ctrl-C does, also where a process hears no signal: on Windows, or on another computer."""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STOP = "STOP"
_LOOK_S = 0.2


@contextmanager
def stopped_by(file: Path) -> Iterator[None]:
    """Within the block KeyboardInterrupt is raised as soon as a file is there; it is removed when it has done its work.

    In the main thread only, which is the one that can be interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(file, is_over), name=f"waits for {file.name}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _watch(file: Path, is_over: threading.Event) -> None:
    while not os.path.exists(file):  # which raises nothing while a shared disk is away
        if is_over.wait(_LOOK_S):
            return
    _thread.interrupt_main()
