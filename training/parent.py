"""A process that does not outlive whoever started it.

torchrun may be killed without a chance to end its workers; they would then go on, hold their GPUs, and wait for each
other for ever.
"""

from __future__ import annotations

import os
import threading
import time

LAUNCHED = "TORCHELASTIC_RUN_ID"  # set by torchrun for its workers
_EVERY_S = 0.5
ORPHANED = 71  # the exit code


def watch_parent() -> None:
    """End this process, at once and without clean-up, soon after its parent is gone."""
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    while _is_there(parent):
        time.sleep(_EVERY_S)
    os._exit(ORPHANED)


def _is_there(parent: int) -> bool:
    if os.name == "nt":  # Windows keeps the number of a dead parent
        import psutil

        return psutil.pid_exists(parent)
    return os.getppid() == parent
