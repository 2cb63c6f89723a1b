"""Where the work is done: processes of this machine, a Dask cluster that is there, or Slurm jobs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from napari_uniultra.batch.settings import SlurmSettings, WorkerSettings
from napari_uniultra.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from distributed import Client

_GB = 1 << 30
_CONNECT_S = 20

# A loop holds what it needs until it is done, so there is nothing to spill and no use in pausing; a worker that takes
# more than its memory is ended, and the loop tried again. One loop at a time a worker: the queue stays with the
# scheduler, so that a worker's death counts against the one loop it worked on.
_CONFIG = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.memory.recent-to-old-time": "10s",
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 1,
    "distributed.comm.timeouts.connect": f"{_CONNECT_S}s",
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.log-format": "%(message)s",
    "distributed.diagnostics.computations.max-history": 1,
}


def worker_count(settings: WorkerSettings, device: str) -> int:
    """How many workers this machine takes: as asked, or one per GPU, or by its cores and memory."""
    if settings.count is not None:
        return settings.count
    if device in ("auto", "cuda"):
        import torch

        from napari_uniultra.model.device import available_devices

        if "cuda" in available_devices():
            return torch.cuda.device_count()
    if device == "mps":
        return 1
    import psutil

    by_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by_memory = psutil.virtual_memory().available / (settings.memory_gb * _GB)
    return max(1, min(by_cores // settings.threads, math.floor(by_memory)))


@contextmanager
def open_client(settings: WorkerSettings, device: str) -> Iterator[Client]:
    """A Dask client on the cluster that the settings ask for; a cluster made here ends with it.

    Raises
    ------
    ResourceError
        When the scheduler does not answer.
    ConfigError
        When Slurm is asked for without dask-jobqueue.
    """
    import dask
    from distributed import Client

    with dask.config.set(_CONFIG), ExitStack() as stack:
        if settings.scheduler:
            try:
                client = Client(settings.scheduler, timeout=_CONNECT_S, set_as_default=False)
            except (OSError, ValueError, TimeoutError) as error:
                why = "nothing answers there" if isinstance(error, OSError) else str(error)
                fix = "Start one with `dask scheduler`, and workers with `dask worker ADDRESS --nthreads 1`"
                raise ResourceError(f"There is no scheduler at {settings.scheduler}", why, fix) from error
        elif settings.slurm.jobs:
            cluster = stack.enter_context(slurm_cluster(settings))
            cluster.scale(jobs=settings.slurm.jobs)
            client = Client(cluster, set_as_default=False)
        else:
            cluster = stack.enter_context(_local_cluster(settings, worker_count(settings, device)))
            client = Client(cluster, set_as_default=False)
        yield stack.enter_context(client)


def _local_cluster(settings: WorkerSettings, count: int) -> Any:
    from distributed import LocalCluster

    try:
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,  # a worker does one loop at a time; its model may use several threads
            memory_limit=int(settings.memory_gb * _GB),
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        )
    except RuntimeError as error:
        why = "they end at once, as when each of them begins the job again"
        fix = 'Call it in a script below `if __name__ == "__main__":`, or set workers.count to 0'
        raise ResourceError("The worker processes do not start", why, fix) from error


def slurm_cluster(settings: WorkerSettings) -> Any:
    """A cluster of Slurm jobs with one worker each; none is asked for yet.

    Raises
    ------
    ConfigError
        When dask-jobqueue is not installed.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        fix = "Run `pip install dask-jobqueue`"
        raise ConfigError("Slurm jobs need dask-jobqueue, which is not installed", fix=fix) from error
    slurm = settings.slurm
    return SLURMCluster(
        queue=slurm.queue or None,
        account=slurm.account or None,
        walltime=slurm.time,
        cores=1,  # of Dask's own: a worker does one loop at a time
        job_cpu=slurm.cores,
        processes=1,
        memory=f"{settings.memory_gb:g}GiB",
        job_script_prologue=list(slurm.prologue),
        job_extra_directives=_directives(slurm),
    )


def _directives(slurm: SlurmSettings) -> list[str]:
    return [*([f"--gres=gpu:{slurm.gpus}"] if slurm.gpus else []), *slurm.directives]
