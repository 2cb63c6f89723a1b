"""Starting, stopping and ending the process of a run. It outlives whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import psutil

from napari_uniultra.core.atomic import write_error
from napari_uniultra.core.lock import InUseError, describe_process, is_running, owner
from napari_uniultra.runner.registry import keep_draft
from napari_uniultra.runner.run import JOB, LOG, RESULT, Run, now, read_json, write_json
from napari_uniultra.training.layout import JOINT, STOP

_started: list[subprocess.Popen[bytes]] = []  # by this process, which has to be told when they end


def start(run: Run) -> None:
    """Start a run, or go on with it, in a process of its own; it waits until no other run trains on this computer.

    Raises
    ------
    InUseError
        When it runs already.
    WriteError
    """
    reap()
    if run.status().state.is_active:
        raise InUseError(f"{run.info.title} is running already")
    keep_draft(run)
    try:
        for leftover in (run.folder / STOP, run.folder / JOINT / STOP, run.folder / RESULT):
            leftover.unlink(missing_ok=True)
        with open(run.folder / LOG, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "napari_uniultra.runner.job", str(run.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=run.folder,
                env={**os.environ, "PYTHONSAFEPATH": "1"},  # nothing is imported from the run's folder
                **_detached(),
            )
    except OSError as error:
        raise write_error(run.folder, error) from error
    _started.append(process)
    with suppress(psutil.NoSuchProcess):  # it may have ended by now
        write_json(run.folder / JOB, {**describe_process(process.pid), "queued": now()})


def ask_to_stop(run: Run) -> None:
    """Let a run end after the step in progress, with a checkpoint; one that waits leaves the queue.

    Raises
    ------
    WriteError
    """
    try:
        for stage in run.stages:
            (stage / STOP).touch()
    except OSError as error:
        raise write_error(run.folder, error) from error


def end_now(run: Run) -> None:
    """End the process of a run at once; what came after its last checkpoint is lost."""
    known = [read_json(run.folder / JOB), *(owner(stage) for stage in run.stages)]
    for process in known:
        if process and is_running(process):
            with suppress(psutil.Error):
                found = psutil.Process(process["pid"])
                for one in (*found.children(recursive=True), found):
                    with suppress(psutil.Error):
                        one.kill()
    reap()


def reap() -> None:
    """Take note of processes of ours that have ended."""
    _started[:] = [process for process in _started if process.poll() is None]


def _detached() -> dict[str, object]:
    """Options for a process that a closed window, terminal or Ctrl-C does not reach."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}
