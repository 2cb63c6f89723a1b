"""What spreading a batch over processes costs and gains: run ``python -m napari_uniultra.benchmarks.batch``.

- Throughput: loops of a real model, one thread each, by one worker and by two.
- Overhead: 200 loops of 60 frames whose model is simulated by waiting, so that what is left is the scheduling.
- Queue: the memory of a scheduler that 5,000 loops wait in; the model is simulated here, too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile

from napari_uniultra.batch.cluster import open_client
from napari_uniultra.batch.execute import run_on
from napari_uniultra.batch.loops import Loop
from napari_uniultra.batch.settings import ModelSettings, OutputSettings, WorkerSettings
from napari_uniultra.batch.task import LoopTask, Start
from napari_uniultra.batch.worker import DONE, Outcome
from napari_uniultra.core.postprocess import TidySettings

FRAMES = 60
_MB = 1 << 20
_WARM_UP = 2  # loops a worker does before the clock runs: it loads the model with the first


def simulated_loop(task: LoopTask, frame_s: float = 0.01) -> Outcome:
    """A model that takes ``frame_s`` for a frame, by waiting."""
    start = time.perf_counter()
    for _ in range(FRAMES):
        time.sleep(frame_s)
    return Outcome(task.name, DONE, frames=FRAMES, seconds=time.perf_counter() - start)


def endless_loop(task: LoopTask) -> Outcome:
    """A loop that keeps its worker until it is ended."""
    time.sleep(3600)
    return Outcome(task.name, DONE)


def tasks(count: int, folder: Path) -> list[LoopTask]:
    """Tasks as large as real ones."""
    rest = "0" * 64, ModelSettings(), "0" * 64, TidySettings(), OutputSettings()
    start = Start("prompts", folder / "prompts" / "some-study.json")
    return [
        LoopTask(Loop(f"site/subject-{number:05d}/loop", folder / f"subject-{number:05d}.dcm"), folder, start, *rest)
        for number in range(count)
    ]


def measure_overhead(loops: int, workers: int = 2) -> dict[str, float]:
    """What the workers' time in all is above the time in which they worked, as a share of the latter."""
    some = tasks(loops, Path("results"))
    with open_client(WorkerSettings(count=workers, memory_gb=1), "cpu") as client:
        client.wait_for_workers(workers)
        list(run_on(client, some[:workers], simulated_loop))  # each imports what it needs
        start = time.perf_counter()
        outcomes = list(run_on(client, some, simulated_loop))
        seconds = time.perf_counter() - start
    worked = sum(outcome.seconds for outcome in outcomes) / workers
    return {"loops": len(outcomes), "seconds": seconds, "worked": worked, "overhead": seconds / worked - 1}


def measure_queue(loops: int) -> dict[str, float]:
    """Megabytes of this process, which holds scheduler and client, before and while ``loops`` loops wait."""
    process = psutil.Process()
    with open_client(WorkerSettings(count=1, memory_gb=1), "cpu") as client:
        client.wait_for_workers(1)
        before = process.memory_info().rss / _MB
        waiting = tasks(loops, Path("results"))
        futures = []
        for first in range(0, loops, 500):
            futures += client.map(endless_loop, waiting[first : first + 500], pure=False)
        scheduler = client.cluster.scheduler
        deadline = time.monotonic() + 120
        while len(scheduler.tasks) < loops and time.monotonic() < deadline:
            time.sleep(0.1)
        queued = len(scheduler.tasks)
        after = process.memory_info().rss / _MB
        client.cancel(futures, force=True)
    return {"queued": queued, "before_mb": before, "with_queue_mb": after}


def measure_throughput(loops: int, frames: int, model: str) -> dict[str, float]:
    """Frames per second with one worker and with two, each with one thread, after a warm-up of their own."""
    from napari_uniultra.batch.run import make_plan
    from napari_uniultra.batch.settings import JobSettings
    from napari_uniultra.core.settings import read_settings

    rates = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_loops(folder / "in", loops + 2 * _WARM_UP, frames)
        prompts = {"objects": [{"id": 1, "frames": {"0": {"box": [200, 150, 500, 420]}}}]}
        (folder / "prompts.json").write_text(json.dumps(prompts))
        for count in (1, 2):
            values = {
                "inputs": {"loops": [str(folder / "in")]},
                "start": {"prompts": str(folder / "prompts.json")},
                "model": {"name": model, "device": "cpu"},
                "outputs": {"folder": str(folder / f"out{count}")},
                "workers": {"count": count, "threads": 1},
            }
            job = read_settings(JobSettings, values)
            rates[count] = _rate(make_plan(job).tasks, job.workers)
    return {"one": rates[1], "two": rates[2], "ratio": rates[2] / rates[1]}


def _write_loops(folder: Path, count: int, frames: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        stack = rng.gamma(2.0, 25.0, (frames, 600, 800)).clip(0, 255).astype(np.uint8)
        tifffile.imwrite(folder / f"{number:03d}.tif", stack, photometric="minisblack")


def _rate(some: tuple[LoopTask, ...], workers: WorkerSettings) -> float:
    from napari_uniultra.batch.worker import label_loop

    warm = 2 * _WARM_UP
    with open_client(workers, "cpu") as client:
        client.wait_for_workers(workers.count)
        list(run_on(client, some[:warm], label_loop))
        start = time.perf_counter()
        outcomes = list(run_on(client, some[warm:], label_loop))
        seconds = time.perf_counter() - start
    assert all(outcome.status == DONE for outcome in outcomes), [outcome.reason for outcome in outcomes]
    return sum(outcome.frames for outcome in outcomes) / seconds


def main() -> None:
    """Measure and print; each measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("overhead", "queue", "throughput"))
    parser.add_argument("--loops", type=int, help="200 for overhead, 5000 for queue, 12 for throughput")
    parser.add_argument("--frames", type=int, default=20, help="of a loop, for throughput")
    parser.add_argument("--model", default="uniultra-mini")
    arguments = parser.parse_args()
    if arguments.what is None:
        for what in ("throughput", "overhead", "queue"):
            subprocess.run([sys.executable, "-m", "napari_uniultra.benchmarks.batch", what], check=True)
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{arguments.what}: {multiprocessing.cpu_count()} cores, load before {load:.1f}")
    if arguments.what == "overhead":
        found = measure_overhead(arguments.loops or 200)
        print(f"  simulated model: {found['seconds']:.1f} s for {found['worked']:.1f} s of work, "
              f"overhead {found['overhead']:.1%}")  # fmt: skip
    elif arguments.what == "queue":
        found = measure_queue(arguments.loops or 5000)
        print(f"  simulated model: {found['queued']:.0f} loops wait; scheduler and client together "
              f"{found['before_mb']:.0f} MB before, {found['with_queue_mb']:.0f} MB with them")  # fmt: skip
    else:
        found = measure_throughput(arguments.loops or 12, arguments.frames, arguments.model)
        print(f"  {found['one']:.2f} frames/s with one worker, {found['two']:.2f} with two: {found['ratio']:.2f}x")


if __name__ == "__main__":
    main()
