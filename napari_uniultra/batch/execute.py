"""Runs tasks, here or on a cluster, and yields what became of each as it ends."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from napari_uniultra.batch.settings import WorkerSettings
from napari_uniultra.batch.task import LoopTask
from napari_uniultra.batch.worker import FAILED, Outcome, label_loop

if TYPE_CHECKING:
    from distributed import Client, Future

Work = Callable[[LoopTask], Outcome]

_AT_ONCE = 500  # tasks in one message to the scheduler
SCHEDULER_GONE = "SchedulerGone"


def execute(
    tasks: Sequence[LoopTask], workers: WorkerSettings, device: str, work: Work = label_loop
) -> Iterator[Outcome]:
    """Do all tasks; outcomes come in the order in which loops end.

    Closing the iterator ends the workers; what was finished stays.

    Parameters
    ----------
    work : callable
        What a worker does with a task; it does not raise for a loop that is bad.

    Raises
    ------
    ResourceError, ConfigError
        When there is no cluster to be had.
    """
    if not tasks:
        return
    if workers.count == 0 and not workers.scheduler and not workers.slurm.jobs:
        yield from map(work, tasks)
        return
    from napari_uniultra.batch.cluster import open_client

    with open_client(workers, device) as client:
        yield from run_on(client, tasks, work)


def run_on(client: Client, tasks: Sequence[LoopTask], work: Work) -> Iterator[Outcome]:
    """Do all tasks on a Dask cluster.

    A task whose worker dies is given to another one; after the second death it is tried on a smaller size, since most
    workers that die were out of memory, and then listed. When the scheduler goes away, what is left is listed.
    """
    from distributed import as_completed

    run = uuid.uuid4().hex[:8]
    waiting: dict[str, LoopTask] = {}
    queue = as_completed(loop=client.loop, raise_errors=False)
    for first in range(0, len(tasks), _AT_ONCE):
        some = tasks[first : first + _AT_ONCE]
        keys = [f"loop-{run}-{first + number}" for number in range(len(some))]
        waiting.update(zip(keys, some, strict=True))
        queue.update(client.map(work, some, key=keys, pure=False, retries=0))
    for future in queue:
        task = waiting.pop(future.key)
        outcome = _outcome(future, task)
        if outcome is None:
            key = f"{future.key}-smaller"
            waiting[key] = smaller = task.on_a_smaller_size()
            queue.add(client.submit(work, smaller, key=key, pure=False))
        else:
            yield outcome
        future.release()


def _outcome(future: Future, task: LoopTask) -> Outcome | None:
    """What became of a task, or None when it should be tried on a smaller size."""
    from distributed import KilledWorker

    if future.status == "finished":
        return _result(future, task)
    if future.cancelled():
        reason = "The scheduler went away. Run the job again: what is finished is not done twice."
        return Outcome(task.name, FAILED, SCHEDULER_GONE, reason)
    error: Any = future.exception()
    if not isinstance(error, KilledWorker):
        return Outcome(task.name, FAILED, type(error).__name__, f"An unexpected {type(error).__name__} in a worker.")
    if not task.smaller:
        return None
    reason = "Its worker was ended each time, on a smaller size too: most likely it has too little memory."
    return Outcome(task.name, FAILED, "ResourceError", reason)


def _result(future: Future, task: LoopTask) -> Outcome:
    try:
        return future.result(timeout=60)
    except Exception as error:  # the worker that held it, or the scheduler, went away at this very moment
        return Outcome(task.name, FAILED, SCHEDULER_GONE, f"The result was lost ({type(error).__name__}).")
