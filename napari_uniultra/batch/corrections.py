"""Loops that a person looks at again: from the results to the viewer, and back into the same results."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from napari_uniultra.batch.results import SESSION, correction_file, loop_folder
from napari_uniultra.batch.run import make_plan, sum_up
from napari_uniultra.batch.settings import JobSettings, with_absolute_paths
from napari_uniultra.batch.tables import read_failures
from napari_uniultra.batch.task import LoopTask, Start, make_task
from napari_uniultra.batch.worker import FAILED, Outcome, label_loop
from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.lock import locked
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.segment.autosave import autosave_file, earlier_place


def find_task(job: JobSettings, name: str) -> LoopTask:
    """The task of the loop of that name.

    Raises
    ------
    ReadError
        When the job has no such loop, or cannot work on it.
    """
    plan = make_plan(with_absolute_paths(job), name)
    if plan.tasks:
        return plan.tasks[0]
    why = _why_failed(name, plan.failures)
    if why:
        raise ReadError(f"The loop {name} failed", why)
    raise ReadError(f"The job has no loop called {name!r}", fix="See `uniultra batch JOB.yaml --list`")


def session_of(task: LoopTask) -> Path:
    """The session among a loop's results.

    Raises
    ------
    ReadError
        When there is none yet.
    """
    session = loop_folder(task.folder, task.name) / SESSION
    if not session.is_file():
        why = _why_failed(task.name, read_failures(task.folder))
        raise ReadError(f"{task.name} has no results", why, "Run the job first")
    return session


def _why_failed(name: str, failures: Iterable[Outcome]) -> str:
    return next((entry.reason for entry in failures if entry.name == name), "")


def hand_out(task: LoopTask, autosave_folder: Path) -> Path:
    """Put a loop's session where the viewer looks for work on that loop; returns the loop's file.

    Work of the viewer's own that is newer than the results stays.

    Raises
    ------
    ReadError
        When the loop has no session yet, or cannot be read.
    """
    session = session_of(task)
    target = work_file(task, autosave_folder)
    if target.is_file() and target.stat().st_mtime > session.stat().st_mtime:
        return task.loop.path
    if has_changed(task, target):
        target.replace(earlier_place(target))  # a later run overtook it; nothing a person did is lost
    _copy(session, target)
    return task.loop.path


def work_file(task: LoopTask, autosave_folder: Path) -> Path:
    """Where the viewer keeps its work on a loop."""
    return autosave_file(read_cine(task.loop.path), autosave_folder)


def has_changed(task: LoopTask, work: Path) -> bool:
    """Whether the viewer's work differs from the results."""
    session = loop_folder(task.folder, task.name) / SESSION
    return work.is_file() and work.read_bytes() != session.read_bytes()


def take_in(job: JobSettings, name: str, session: Path) -> Path:
    """Put a corrected session into the results, and write everything anew that depends on it.

    From now on it is what the loop's results come from: no later run computes them again.

    Returns
    -------
    Path
        The folder of the loop's results.

    Raises
    ------
    ReadError
        When the session belongs to another loop, or is damaged.
    WriteError
        Also while another process works on the same results.
    """
    job = with_absolute_paths(job)
    with locked(job.folder):
        return _take_in(job, name, session)


def _take_in(job: JobSettings, name: str, session: Path) -> Path:
    from napari_uniultra.segment.session_file import load_state

    task = find_task(job, name)
    load_state(session, read_cine(task.loop.path))  # before anything is replaced
    kept = correction_file(task.folder, name)
    _copy(session, kept)
    outcome = label_loop(make_task(task.loop, job, Start("correction", kept), task.model_sha256, task.reference))
    if outcome.status == FAILED:
        raise ReadError(f"The correction of {name} could not be taken in", outcome.reason)
    failures = [entry for entry in read_failures(job.folder) if entry.name != name]
    sum_up(job, make_plan(job), tuple(failures))
    return loop_folder(task.folder, name)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
