"""A whole batch: find the loops, label what is not done, and sum up what there is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_uniultra.batch.execute import execute
from napari_uniultra.batch.loops import Loop, find_loops
from napari_uniultra.batch.naming import IDENTIFYING, NAMES, write_names
from napari_uniultra.batch.progress import Progress
from napari_uniultra.batch.report import REPORT, write_report
from napari_uniultra.batch.results import (
    CORRECTIONS,
    LOOPS,
    RECORD,
    Record,
    counts,
    holds,
    loop_folder,
    read_record,
    sweep,
)
from napari_uniultra.batch.settings import JobSettings, check_job, with_absolute_paths, write_job
from napari_uniultra.batch.starts import MASK_SUFFIXES, Starts, file_for
from napari_uniultra.batch.tables import (
    AGREEMENT_CSV,
    FAILURES,
    MANIFEST,
    MEASUREMENTS_CSV,
    MEASUREMENTS_PARQUET,
    NOT_IN_MANIFEST,
    clear_tables,
    write_agreement,
    write_failures,
    write_manifest,
    write_measurements,
)
from napari_uniultra.batch.task import LoopTask, make_task
from napari_uniultra.batch.worker import FAILED, UNCHANGED, Outcome
from napari_uniultra.core.atomic import check_writable, write_error
from napari_uniultra.core.lock import locked
from napari_uniultra.core.stop_file import STOP, stopped_by
from napari_uniultra.errors import ReadError, UniUltraError, WriteError

_log = logging.getLogger(__name__)

JOB, LOG = "job.yaml", "batch.log"
_OF_ALL_LOOPS = (
    MEASUREMENTS_CSV,
    MEASUREMENTS_PARQUET,
    AGREEMENT_CSV,
    FAILURES,
    REPORT,
    MANIFEST,
    NOT_IN_MANIFEST,
    f"{IDENTIFYING}/{NAMES}",
    f"{IDENTIFYING}/{JOB}",
)

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """What a job comes to.

    Attributes
    ----------
    tasks : tuple of LoopTask
        All that can be done, whether or not it was done before.
    failures : tuple of Outcome
        Inputs that cannot be worked on.
    paths : mapping of str to Path
        Name to file.
    """

    tasks: tuple[LoopTask, ...]
    failures: tuple[Outcome, ...]
    paths: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """What became of a job.

    Attributes
    ----------
    done, unchanged : int
        Loops labelled now, and those whose results were there.
    failures : tuple of Outcome
    written : tuple of Path
        The files about all loops together.
    """

    done: int
    unchanged: int
    failures: tuple[Outcome, ...]
    written: tuple[Path, ...]


def run_job(job: JobSettings, tell: Tell = lambda event: None, force: bool = False) -> Summary:
    """Do a job; what an earlier run finished, and what holds still, is not done again.

    Stopped by Ctrl-C, or by a file ``STOP`` in the folder of results, what was finished is summed up before
    KeyboardInterrupt goes on.

    Parameters
    ----------
    tell : callable
        Is given the events: "start", "loop" for each loop that ends, "end".
    force : bool
        Replace files that have the names of results, though no batch wrote them.

    Raises
    ------
    ConfigError, ReadError, PromptError, CheckpointError
        When the job itself cannot be understood.
    ResourceError
        When there is no cluster to be had.
    WriteError
        When the folder of results cannot be written to, at the beginning or any more, or holds what is not ours.
    """
    job = with_absolute_paths(job)
    check_job(job)
    if not force:
        check_replaced(job.folder)
    with locked(job.folder), _logging_to(job.folder / LOG):
        prepare_folder(job)
        plan = make_plan(job)
        if job.outputs.identifying:
            write_names(job.folder, plan.paths)
        outcomes: dict[str, Outcome] = {}
        try:
            with stopped_by(job.folder / STOP):
                _label(job, plan, outcomes, tell)
        finally:
            failures = (*plan.failures, *(entry for entry in outcomes.values() if entry.status == FAILED))
            written = sum_up(job, plan, failures)
        unchanged = sum(entry.status == UNCHANGED for entry in outcomes.values())
        failed_now = len(failures) - len(plan.failures)
        summary = Summary(len(outcomes) - unchanged - failed_now, unchanged, failures, tuple(written))
        end = {"done": summary.done, "unchanged": unchanged, "failed": len(failures)}
        tell({"event": "end", **end, "written": [str(path) for path in written]})
        _log.info("end: %d done, %d unchanged, %d failed", *end.values())
    return summary


def check_replaced(folder: Path) -> None:
    """Refuse a folder without results of a batch in which something has the name of one.

    Raises
    ------
    WriteError
    """
    if (folder / LOG).is_file() or any((folder / LOOPS).rglob(RECORD)):
        return
    foreign = next((folder / name for name in _OF_ALL_LOOPS if (folder / name).exists()), None)
    if foreign is not None:
        fix = "Choose another outputs.folder, or replace it with `uniultra batch --force`"
        raise WriteError(f"{foreign} exists already", "no batch wrote it", fix)


def prepare_folder(job: JobSettings) -> None:
    """Remove what a killed run left half done of the results, and keep the job with them.

    Raises
    ------
    WriteError
        When it cannot be written to.
    """
    sweep(job.folder)
    for name in (LOOPS, CORRECTIONS, IDENTIFYING):
        sweep(job.folder / name, deep=True)
    check_writable(job.folder)
    if job.outputs.identifying:
        write_job(job_file(job.folder), job)


def job_file(folder: Path) -> Path:
    """Where a folder of results keeps its job."""
    return folder / IDENTIFYING / JOB


def make_plan(job: JobSettings, only: str | None = None) -> Plan:
    """Find the loops, and what each starts from; ``only`` is the name of the one that counts.

    Raises
    ------
    ReadError, PromptError, CheckpointError
        When the table, the prompts of all loops, or the model cannot be read.
    """
    from napari_uniultra.model.catalogue import model_sha256

    loops, refused = find_loops(job.inputs, job.folder, job.outputs.names)
    failures = [Outcome(entry.name, FAILED, "ReadError", entry.reason) for entry in refused]
    starts, sha256 = Starts(job.start, job.folder), model_sha256(job.model.name)
    root = (job.folder / LOOPS).resolve()
    tasks = []
    for loop in loops:
        if only not in (None, loop.name):
            continue
        try:
            if not loop_folder(job.folder, loop.name).resolve().is_relative_to(root):
                raise ReadError("Its results would lie outside the folder of results")
            tasks.append(make_task(loop, job, starts.of(loop), sha256, _reference(job, loop)))
        except (UniUltraError, OSError) as error:
            failures.append(Outcome(loop.name, FAILED, type(error).__name__, " ".join(loop.plain(str(error)).split())))
    paths = {loop.name: loop.path for loop in loops} | {entry.name: entry.path for entry in refused if entry.path}
    return Plan(tuple(tasks), tuple(failures), paths)


def _reference(job: JobSettings, loop: Loop) -> Path | None:
    given = loop.given.get("reference")
    if given is not None or not job.inputs.references:
        return given
    return file_for(Path(job.inputs.references), loop.names, (*MASK_SUFFIXES, ".json", ""))


def _label(job: JobSettings, plan: Plan, outcomes: dict[str, Outcome], tell: Tell) -> None:
    progress = Progress(len(plan.tasks) + len(plan.failures))
    tell({"event": "start", "loops": progress.loops, "folder": str(job.folder)})

    def ended(outcome: Outcome) -> None:
        words = outcome.status if outcome.status != FAILED else f"{FAILED}: {outcome.reason}"
        _log.info("%s: %s", outcome.name, words)
        tell(progress.add(outcome))

    for failure in plan.failures:
        ended(failure)
    todo = {}
    for task in plan.tasks:
        if _is_done(task):
            outcomes[task.name] = Outcome(task.name, UNCHANGED)
            ended(outcomes[task.name])
        else:
            todo[task.name] = task
    with closing(execute(list(todo.values()), job.workers, job.model.device)) as running:
        for outcome in running:
            outcomes[outcome.name] = outcome = _with_earlier(todo[outcome.name], outcome)
            ended(outcome)
            if outcome.kind == WriteError.__name__:
                check_writable(job.folder)  # when nothing can be written any more, no loop will fare better


def _with_earlier(task: LoopTask, outcome: Outcome) -> Outcome:
    """What became of a loop; of one that failed it is said when results of an earlier run count on."""
    if outcome.status != FAILED or not counts(task, read_record(task.folder, task.name)):
        return outcome
    return replace(outcome, reason=f"{outcome.reason} The results shown are of an earlier run.")


def _is_done(task: LoopTask) -> bool:
    try:
        return holds(task, read_record(task.folder, task.name))
    except UniUltraError:
        return False  # the worker will find out why


def sum_up(job: JobSettings, plan: Plan, failures: tuple[Outcome, ...]) -> list[Path]:
    """Write the tables, the manifest and the report of all loops that are done, now or by an earlier run of this job.

    Raises
    ------
    WriteError
    """
    records, folder = list(_records(plan.tasks)), job.folder
    if not records:
        clear_tables(folder)
    write_failures(folder, failures)
    written = write_measurements(folder, records, job.outputs.parquet) if records else []
    agreement = write_agreement(folder, records)
    written += [] if agreement is None else [agreement]
    if job.outputs.report:
        shown = job_file(folder) if job.outputs.identifying else Path("JOB.yaml")
        written.append(write_report(folder, records, failures, shown, job.outputs.report_pictures))
    manifest = write_manifest(folder, records, plan.paths) if job.outputs.manifest and job.outputs.identifying else None
    written += [] if manifest is None else [manifest]
    return written


def _records(tasks: Iterable[LoopTask]) -> Iterator[Record]:
    """Records of the loops whose results are of this job, and not of what a file held before."""
    for task in tasks:
        record = read_record(task.folder, task.name)
        if counts(task, record):
            yield record


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """What this package says of a batch goes into a file as well."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise write_error(path, error) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("napari_uniultra.batch")
    level, logger.level = logger.level, logging.INFO
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level = level
        handler.close()
