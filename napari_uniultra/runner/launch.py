"""Starting, stopping and ending the process of a run. It outlives whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import psutil

from napari_uniultra.core.atomic import write_error
from napari_uniultra.core.lock import InUseError
from napari_uniultra.core.places import chosen_folder
from napari_uniultra.core.process import describe_process, is_here
from napari_uniultra.core.stop_file import STOP
from napari_uniultra.errors import TrainingError, WriteError
from napari_uniultra.runner.registry import keep_draft
from napari_uniultra.runner.run import JOB, LOG, Run, State, now, write_json
from napari_uniultra.training.layout import JOINT

_END_S = 5.0  # for the system to end what was killed
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
        for leftover in (run.folder / STOP, run.folder / JOINT / STOP):
            leftover.unlink(missing_ok=True)
        run.reserve_result()
        with open(run.folder / LOG, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "napari_uniultra.runner.job", str(run.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=run.folder,
                env={**os.environ, **chosen_folder(), "PYTHONSAFEPATH": "1"},  # nothing comes from the run's folder
                **_detached(),
            )
    except OSError as error:
        raise write_error(run.folder, error) from error
    _started.append(process)
    try:
        with suppress(psutil.NoSuchProcess):  # it may have ended by now
            write_json(run.folder / JOB, {**describe_process(process.pid), "queued": now()})
    except WriteError:
        process.kill()  # nobody would know of it
        process.wait()
        raise


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
    """End the processes of a run at once; what came after its last checkpoint is lost.

    Raises
    ------
    TrainingError
        When it runs on another computer, out of reach: the numbers of processes there mean others here.
    """
    status = run.status()
    if status.state.is_active and status.host:
        fix = "Stop asks it to end after the step in progress. End it there if that takes too long"
        raise TrainingError(f"{run.info.title} cannot be ended at once", f"it runs on {status.host}", fix)
    ended = [process for _, process in run.processes() if is_here(process) and _kill(process["pid"])]
    reap()
    if ended:
        run.write_result(State.STOPPED, "Ended at once; Resume goes on from the last checkpoint")


def _kill(pid: int) -> bool:
    """End a process and those that it started; False where there is none."""
    try:
        found = psutil.Process(pid)
        processes = (*found.children(recursive=True), found)
    except psutil.Error:
        return False
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=_END_S)
    return True


def reap() -> None:
    """Take note of processes of ours that have ended."""
    _started[:] = [process for process in _started if process.poll() is None]


def _detached() -> dict[str, object]:
    """Options for a process that a closed window, terminal or Ctrl-C does not reach."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}
