"""Batch jobs on processes of their own: what a killed worker, a killed scheduler and too little memory leave."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest
import tifffile
import torch

from napari_uniultra.batch.cluster import open_client, worker_count
from napari_uniultra.batch.execute import SCHEDULER_GONE, execute
from napari_uniultra.batch.loops import Loop
from napari_uniultra.batch.run import run_job
from napari_uniultra.batch.settings import (
    JobSettings,
    ModelSettings,
    OutputSettings,
    SlurmSettings,
    WorkerSettings,
    write_job,
)
from napari_uniultra.batch.task import LoopTask, Start
from napari_uniultra.batch.worker import Outcome
from napari_uniultra.core.postprocess import TidySettings
from napari_uniultra.core.settings import read_settings
from napari_uniultra.errors import ConfigError, ResourceError
from napari_uniultra.model import device
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import architecture

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test

LOOPS = 6


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., JobSettings]:
    """A job over six loops; ``make(folder, count)``."""
    torch.manual_seed(3)
    config = architecture("uniultra-mini", image_size=64)
    save_checkpoint(tmp_path / "tiny.safetensors", build_network(config), config, {"description": "random weights"})
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(LOOPS):
        stack = rng.integers(0, 255, (4, 40, 56)).astype(np.uint8)
        tifffile.imwrite(tmp_path / f"in/{number}.tif", stack, photometric="minisblack")
    prompts = {"objects": [{"id": 1, "name": "lumen", "frames": {"0": {"box": [14, 8, 42, 32]}}}]}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))

    def make(folder: str, count: int) -> JobSettings:
        values = {
            "inputs": {"loops": [str(tmp_path / "in")]},
            "start": {"prompts": str(tmp_path / "prompts.json")},
            "model": {"name": str(tmp_path / "tiny.safetensors"), "device": "cpu"},
            "outputs": {"folder": str(tmp_path / folder), "report": False, "parquet": False},
            "workers": {"count": count},
        }
        return read_settings(JobSettings, values)

    return make


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The worker processes that Dask's nannies started."""
    return [child for child in process.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]


def masks_in(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("loops/*/masks.tif")}


def test_a_killed_worker_loses_nothing(tmp_path: Path, job: Callable) -> None:
    run_job(job("alone", 0))
    killed: list[int] = []

    def kill_one(event: dict[str, Any]) -> None:
        if event["event"] == "loop" and not killed:
            victim = workers_of(psutil.Process())[0]
            killed.append(victim.pid)
            victim.kill()

    summary = run_job(job("out", 2), kill_one)
    assert killed
    # A loop that was finished, but not yet told of when its worker died, is found as it is by the next.
    assert (summary.done + summary.unchanged, summary.failures) == (LOOPS, ())
    assert summary.unchanged <= 1
    assert masks_in(tmp_path / "out") == masks_in(tmp_path / "alone")
    assert not list((tmp_path / "out").rglob("*.partial*"))
    assert not workers_of(psutil.Process())


def test_a_killed_scheduler_loses_nothing(tmp_path: Path, job: Callable) -> None:
    """The scheduler of a local cluster lives in the command's own process."""
    write_job(tmp_path / "job.yaml", job("out", 1))
    command = [sys.executable, "-m", "napari_uniultra.cli", "batch", str(tmp_path / "job.yaml"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    events = (json.loads(line) for line in process.stdout)
    first = next(event["name"] for event in events if event["event"] == "loop")
    workers = workers_of(psutil.Process(process.pid))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, "workers end when their scheduler is gone"
    before = (tmp_path / "out/loops" / first / "masks.tif").stat().st_mtime_ns
    summary = run_job(job("out", 0))
    assert summary.failures == ()
    assert summary.unchanged >= 1
    assert (tmp_path / "out/loops" / first / "masks.tif").stat().st_mtime_ns == before
    assert not list((tmp_path / "out").rglob("*.partial*"))
    run_job(job("alone", 0))
    assert masks_in(tmp_path / "out") == masks_in(tmp_path / "alone")


def test_the_script_of_the_documentation_runs_and_one_without_its_guard_is_told(
    tmp_path: Path, job: Callable, repo_root: Path
) -> None:
    text = (repo_root / "docs/batch.md").read_text(encoding="utf-8")
    script = text.partition("```python\n")[2].partition("```")[0]
    write_job(tmp_path / "job.yaml", job("out", 1))
    bare = "\n".join(line.strip() for line in script.splitlines() if not line.startswith("if "))
    ended = {}
    for name, lines in (("bare.py", bare), ("guarded.py", script)):
        (tmp_path / name).write_text(lines)
        command = [sys.executable, name]
        ended[name] = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert 'below `if __name__ == "__main__":`' in ended["bare.py"].stderr
    assert ended["guarded.py"].returncode == 0, ended["guarded.py"].stderr
    assert len(masks_in(tmp_path / "out")) == LOOPS


@pytest.mark.parametrize(
    "by_signal", [pytest.param(True, marks=pytest.mark.skipif(sys.platform == "win32", reason="there is none")), False]
)
def test_the_signal_to_end_and_a_stop_file_sum_up_what_is_finished(
    by_signal: bool, tmp_path: Path, job: Callable
) -> None:
    write_job(tmp_path / "job.yaml", job("out", 1))
    command = [sys.executable, "-m", "napari_uniultra.cli", "batch", str(tmp_path / "job.yaml"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    next(line for line in process.stdout if json.loads(line)["event"] == "loop")
    workers = workers_of(psutil.Process(process.pid))
    if by_signal:
        process.send_signal(signal.SIGTERM)
    else:
        (tmp_path / "out/STOP").touch()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert workers
    assert not alive
    with (tmp_path / "out/measurements.csv").open(newline="") as file:
        measured = {row["loop"] for row in csv.DictReader(file)}
    assert measured == {file.parent.name for file in (tmp_path / "out/loops").rglob("result.json")}
    assert measured
    assert not (tmp_path / "out/.lock").exists()


def make_tasks(tmp_path: Path, count: int) -> list[LoopTask]:
    """Tasks for work that is not labelling."""
    rest = "", ModelSettings(), "", TidySettings(), OutputSettings()
    return [LoopTask(Loop(f"loop{number}", tmp_path / "x"), tmp_path, Start(), *rest) for number in range(count)]


def test_a_worker_without_memory_is_ended_and_its_loop_listed(tmp_path: Path) -> None:
    """Bounded memory: what takes more is ended, tried again, tried on a smaller size, and then listed."""

    def work(task: LoopTask) -> Outcome:
        if task.name == "loop0":
            with (task.folder / "tries.txt").open("a") as file:
                file.write(f"{task.smaller}\n")
            hoard = []
            for _ in range(100):  # 4 GB in the end
                hoard.append(np.ones(40 << 20, np.uint8))
                time.sleep(0.02)
        return Outcome(task.name, "done", frames=1)

    workers = WorkerSettings(count=1, memory_gb=0.75)
    outcomes = {outcome.name: outcome for outcome in execute(make_tasks(tmp_path, 2), workers, "cpu", work)}
    assert outcomes["loop1"].status == "done"
    assert (outcomes["loop0"].status, outcomes["loop0"].kind) == ("failed", "ResourceError")
    tries = (tmp_path / "tries.txt").read_text().split()
    assert tries == ["False"] * 2 + ["True"] * 2


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """A Dask scheduler and one worker as processes of their own."""
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    running = subprocess.Popen([*dask, "scheduler", *options], **quiet)
    worker = subprocess.Popen(
        [*dask, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--no-nanny"],
        cwd=tmp_path,
        **quiet,
    )
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    yield json.loads(file.read_text())["address"], running
    for process in (worker, running):
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def test_a_scheduler_that_goes_away_is_told(tmp_path: Path, scheduler: tuple[str, subprocess.Popen]) -> None:
    address, process = scheduler

    def work(task: LoopTask) -> Outcome:
        time.sleep(0.3)
        return Outcome(task.name, "done", frames=1)

    outcomes = []
    for outcome in execute(make_tasks(tmp_path, 8), WorkerSettings(scheduler=address), "cpu", work):
        outcomes.append(outcome)
        if len(outcomes) == 2:
            process.kill()
    assert len(outcomes) == 8
    assert [outcome.status for outcome in outcomes[:2]] == ["done", "done"]
    assert {outcome.kind for outcome in outcomes if outcome.status == "failed"} == {SCHEDULER_GONE}
    assert "Run the job again" in outcomes[-1].reason


def test_no_scheduler_and_no_slurm_are_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_uniultra.batch.cluster._CONNECT_S", 1)
    with (
        pytest.raises(ResourceError, match="There is no scheduler at"),
        open_client(WorkerSettings(scheduler="tcp://127.0.0.1:9"), "cpu"),
    ):
        pass
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with (
        pytest.raises(ConfigError, match="dask-jobqueue"),
        open_client(WorkerSettings(slurm=SlurmSettings(jobs=1)), "cpu"),
    ):
        pass


def test_workers_by_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    free = type("Memory", (), {"available": 20 << 30})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert worker_count(WorkerSettings(memory_gb=4), "cpu") == 5
    assert worker_count(WorkerSettings(memory_gb=1), "cpu") == 16
    assert worker_count(WorkerSettings(memory_gb=1, threads=4), "cpu") == 4
    assert worker_count(WorkerSettings(memory_gb=64), "cpu") == 1
    assert worker_count(WorkerSettings(count=3), "cpu") == 3
    monkeypatch.setattr(device, "available_devices", lambda: ("cuda", "cpu"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert worker_count(WorkerSettings(memory_gb=1), "auto") == 2


def test_the_job_script_for_slurm() -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    from napari_uniultra.batch.cluster import slurm_cluster

    slurm = SlurmSettings(jobs=4, queue="gpu", account="lab", gpus=1, cores=6, directives=("--nice=100",))
    with slurm_cluster(WorkerSettings(memory_gb=12, slurm=slurm)) as cluster:
        script = cluster.job_script()
    for line in ("-p gpu", "-A lab", "--cpus-per-task=6", "--gres=gpu:1", "--nice=100", "-t 08:00:00", "--mem=12G"):
        assert f"#SBATCH {line}" in script
    assert "--nthreads 1" in script
