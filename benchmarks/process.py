"""One measurement in a process of its own, where nothing is loaded yet and the peak of memory is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_uniultra.errors import ResourceError

_MB = 1 << 20


def in_own_process(task: str, **arguments: Any) -> dict[str, Any]:
    """What a function of this module finds in a fresh process; a ``device`` of "auto" is chosen here.

    Raises
    ------
    ResourceError
        When the process fails.
    """
    if "device" in arguments:
        from napari_uniultra.model.device import choose_device

        arguments["device"] = str(choose_device(arguments["device"]))
    command = [sys.executable, "-m", "napari_uniultra.benchmarks.process", task, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ResourceError("A benchmark process failed", done.stderr.strip()[-500:])
    return json.loads(done.stdout.splitlines()[-1])


def load(contender: str, model: str) -> dict[str, float]:
    """Seconds until a model is loaded, imports included."""
    start = time.perf_counter()
    from napari_uniultra.benchmarks import contenders
    from napari_uniultra.model.load import load_model

    getattr(contenders, contender)(load_model(model, device="cpu"))
    return {"seconds": time.perf_counter() - start}


def track(
    contender: str, model: str, frames: int, objects: int = 1, device: str = "cpu", image_size: int | None = None
) -> dict[str, float]:
    """Peak memory in MB of tracking objects through a loop that takes none itself; a GPU's where it runs there."""
    from napari_uniultra.benchmarks import contenders
    from napari_uniultra.benchmarks.loops import SyntheticLoop
    from napari_uniultra.benchmarks.models import benchmark_model

    found = getattr(contenders, contender)(benchmark_model(model, device, image_size))
    _track_through(found, SyntheticLoop(frames, discs=max(objects, 4)), objects)
    return {"peak_mb": peak_megabytes(device)}


def compile_parts(model: str, device: str, image_size: int, kept_in: str) -> dict[str, float]:
    """Seconds to track an object over three frames with a model that is compiled on the way; see `load_model`."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = kept_in
    from napari_uniultra.benchmarks import contenders
    from napari_uniultra.benchmarks.loops import loop_in_memory
    from napari_uniultra.benchmarks.models import benchmark_model

    found = contenders.Ours(replace(benchmark_model(model, device, image_size), compiled=True))
    start = time.perf_counter()
    _track_through(found, loop_in_memory(3), 1)
    return {"seconds": time.perf_counter() - start}


def _track_through(contender: Any, frames: Any, objects: int) -> None:
    from napari_uniultra.benchmarks.contenders import prompt
    from napari_uniultra.benchmarks.loops import boxes

    contender.open(frames)
    prompt(contender, boxes(objects))
    for _ in contender.propagate():
        pass


def interact(model: str, prompts: int) -> dict[str, Any]:
    """Seconds to import and load, to the first mask of a loop that is opened then, and of each prompt after it."""
    start = time.perf_counter()
    import torch  # noqa: F401 - its import is told apart from the loading

    from napari_uniultra.model.load import load_model

    imported = time.perf_counter()
    loaded = load_model(model, device="cpu")
    ready = time.perf_counter()
    from napari_uniultra.benchmarks.interaction import first_mask, prompt_times

    session = first_mask(loaded)
    masked = time.perf_counter()
    times = {"import_s": imported - start, "load_s": ready - imported, "first_mask_s": masked - ready}
    return {**times, "prompts_s": prompt_times(session, prompts)}


def train(image_size: int, checkpointing: bool, architecture: str, device: str) -> dict[str, float]:
    """Peak memory in MB and seconds of a step of fine-tuning by adapters, with or without activation checkpointing."""
    from napari_uniultra.benchmarks.training import measure_steps

    seconds = measure_steps(architecture, image_size, checkpointing, device)
    return {"seconds": seconds, "peak_mb": peak_megabytes(device)}


def peak_megabytes(device: str = "cpu") -> float:
    """The largest memory so far: what PyTorch reserved on a GPU, else what was resident of this process."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_reserved(device) / _MB
    status = Path("/proc/self/status")
    if status.exists():  # Linux: what follows would begin with the peak of the process that started this one
        return int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / (1 << 10)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MB if sys.platform == "darwin" else 1 << 10)


_TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "load": load,
    "track": track,
    "compile": compile_parts,
    "interact": interact,
    "train": train,
}

if __name__ == "__main__":
    print(json.dumps(_TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
