"""Whose turn it is to train on this computer: one run at a time, the one that has waited longest.

Every run that waits has a process, and each takes its turn by itself: the queue needs nobody to serve it, and goes on
when the viewer is closed. A lock decides, which a killed process loses. What trains on other computers is none of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from napari_uniultra.core.lock import InUseError, locked, owner
from napari_uniultra.core.process import Process, is_here, is_of, is_running, this_process
from napari_uniultra.core.stop_file import STOP
from napari_uniultra.runner.place import slot_folder
from napari_uniultra.runner.registry import list_runs
from napari_uniultra.runner.run import JOB, Run, read_json

_LOOK_S = 0.5
_UNNOTED_S = 30.0  # whoever starts a process notes it at once


@contextmanager
def turn(run: Run) -> Iterator[bool]:
    """Wait until no run trains here and none has waited longer; False when this one is asked to stop meanwhile.

    A process that nobody noted as the run's ends here: who started it told of that.
    """
    began = time.monotonic()
    while not (run.folder / STOP).exists():
        if not _is_noted(run):
            if time.monotonic() - began > _UNNOTED_S:
                sys.exit(f"This process is not noted in {JOB}: it ends, and another start begins anew.")
        elif not waits_for(run):
            with ExitStack() as stack:
                try:
                    stack.enter_context(locked(slot_folder()))
                except InUseError:
                    pass  # another process was quicker
                else:
                    yield True
                    return
        time.sleep(_LOOK_S)
    (run.folder / STOP).unlink(missing_ok=True)
    yield False


def waits_for(run: Run) -> str:
    """What of this computer goes before a run that waits, in words; "" when it is next."""
    queued = read_json(run.folder / JOB).get("queued", "")
    for other in list_runs():
        if other == run:
            continue
        if _trains(other):
            return f"Waits for “{other.info.title}”, which trains on this computer"
        job = read_json(other.folder / JOB)
        if _is_at_work(job) and job.get("queued", "") < queued:
            return f"Waits for “{other.info.title}”, which was started earlier"
    return ""


def _trains(run: Run) -> bool:
    """Whether a process of this computer trains in a run's folder, as far as that can be read."""
    try:
        return any(_is_at_work(owner(stage)) for stage in run.stages)
    except OSError:
        return False


def _is_at_work(process: Process | None) -> bool:
    return bool(process) and is_here(process) and is_running(process)


def _is_noted(run: Run) -> bool:
    """Whether this process is known as the run's."""
    return is_of(this_process(), read_json(run.folder / JOB))
