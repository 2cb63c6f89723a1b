"""What is measured: ours and the official predictor in one process, in turn, so that both meet the same machine."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np

from napari_uniultra.core.types import Box
from napari_uniultra.errors import ResourceError

HEIGHT, WIDTH = 600, 800
WARM_UP = 16  # frames until the memory bank is full: seven frames and sixteen pointers


@dataclass(frozen=True)
class Row:
    """One measured case.

    Attributes
    ----------
    case : str
    ours, official : float
        Medians.
    ratios : tuple of float
        Ours over official, pair by pair.
    unit : str
    """

    case: str
    ours: float
    official: float
    ratios: tuple[float, ...]
    unit: str

    def markdown(self) -> str:
        ratio = statistics.median(self.ratios)
        spread = f" ({min(self.ratios):.2f}-{max(self.ratios):.2f})" if len(self.ratios) > 1 else ""
        return f"| {self.case} | {self.ours:.4g} {self.unit} | {self.official:.4g} {self.unit} | {ratio:.2f}{spread} |"


def run_benchmarks(model: str = "uniultra-mini", quick: bool = False) -> str:
    """Measure everything and return a report in Markdown.

    Parameters
    ----------
    model : str
        A model's name or path.
    quick : bool
        Fewer repeats, and memory for 20 and 60 frames instead of 60 and 600.
    """
    import torch

    from napari_uniultra.benchmarks.contenders import Official, Ours
    from napari_uniultra.model.zoo import load_model

    loaded = load_model(model, device="cpu")
    repeats = 3 if quick else 7
    contenders = Ours(loaded), Official(loaded)
    rows = [
        _embedding(contenders, repeats),
        _prompt_to_mask(contenders, repeats * 3),
        *(_propagation(contenders, objects, repeats * 3) for objects in (1, 4)),
    ]
    lengths = (20, 60) if quick else (60, 600)
    memory = _memory_rows(model, lengths)
    header = (
        f"{loaded.name}, {loaded.config.image_size} px, loop of {HEIGHT} x {WIDTH} pixels; "
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}, sam2 {version('sam2')}"
    )
    table = ["| case | napari-uniultra | official sam2 | ratio (range) |", "|---|---|---|---|"]
    return "\n".join([header, "", *table, *(row.markdown() for row in rows), *memory, _start_up(model)]) + "\n"


class SyntheticLoop:
    """Four dark discs that drift over speckle, (T, H, W) uint8, drawn when a frame is asked for.

    A loop of any length thus takes no memory of its own, which would hide what the predictors take.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, frames: int) -> None:
        self.shape = (frames, HEIGHT, WIDTH)
        self._speckle = np.random.default_rng(0).rayleigh(40.0, (HEIGHT, WIDTH))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, t: int) -> np.ndarray:
        if not 0 <= t < len(self):
            raise IndexError(t)
        y, x = np.ogrid[:HEIGHT, :WIDTH]
        frame = np.roll(self._speckle, t % 50, axis=1)
        for left, top, right, bottom in boxes(4):
            centre_x, centre_y = (left + right) / 2 + 10 * np.sin(t / 15), (top + bottom) / 2
            frame = np.where((x - centre_x) ** 2 + (y - centre_y) ** 2 < 60**2, frame * 0.2, frame)
        return frame.clip(0, 255).astype(np.uint8)


def loop_in_memory(frames: int) -> np.ndarray:
    """The same loop as an array, so that drawing it is not timed."""
    return np.stack(list(SyntheticLoop(frames)))


def boxes(count: int) -> list[Box]:
    """The discs' boxes on the first frame."""
    centres = [(200, 150), (600, 150), (200, 450), (600, 450)]
    return [(x - 60.0, y - 60.0, x + 60.0, y + 60.0) for x, y in centres[:count]]


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _interleaved(case: str, work: Sequence[Callable[[], Any]], repeats: int) -> Row:
    """Time ours and the official one in turn; what is first in a pair changes."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for index in (0, 1) if repeat % 2 == 0 else (1, 0):
            times[index].append(_timed(work[index]))
    ratios = tuple(ours / official for ours, official in zip(*times, strict=True))
    ours, official = (1000 * statistics.median(own) for own in times)
    return Row(case, ours, official, ratios, "ms")


def _embedding(contenders: Sequence[Any], repeats: int) -> Row:
    frames = loop_in_memory(2)
    for contender in contenders:
        contender.open(frames)
        contender.embed(0)
    return _interleaved("embed a frame", [lambda c=c: c.embed(1) for c in contenders], repeats)


def _prompt_to_mask(contenders: Sequence[Any], repeats: int) -> Row:
    frames, box = loop_in_memory(1), boxes(1)[0]
    for contender in contenders:
        contender.open(frames)
        contender.box(1, 0, box)
    return _interleaved("box to mask, embedded frame", [lambda c=c: c.box(1, 0, box) for c in contenders], repeats)


def _propagation(contenders: Sequence[Any], objects: int, repeats: int) -> Row:
    from napari_uniultra.benchmarks.contenders import prompt

    frames = loop_in_memory(WARM_UP + repeats + 1)
    steps = []
    for contender in contenders:
        contender.open(frames)
        prompt(contender, boxes(objects))
        running = iter(contender.propagate())
        list(islice(running, WARM_UP))
        steps.append(running)
    case = f"propagate one frame, {objects} object{'s' * (objects > 1)}"
    return _interleaved(case, [lambda r=running: next(r) for running in steps], repeats)


def _memory_rows(model: str, lengths: tuple[int, int]) -> Iterator[str]:
    """Peak memory of tracking short and long loops, each in a process of its own."""
    peaks = {
        name: [_in_own_process("track", name, model, str(frames))["peak_mb"] for frames in lengths]
        for name in ("Ours", "Official")
    }
    for index, frames in enumerate(lengths):
        ours, official = peaks["Ours"][index], peaks["Official"][index]
        yield Row(f"peak memory, {frames} frames", ours, official, (ours / official,), "MB").markdown()
    growth = [peaks[name][1] - peaks[name][0] for name in ("Ours", "Official")]
    yield f"| growth from {lengths[0]} to {lengths[1]} frames | {growth[0]:.0f} MB | {growth[1]:.0f} MB | |"


def _start_up(model: str) -> str:
    """From a fresh process to a loaded model."""
    seconds = [_in_own_process("load", name, model)["seconds"] for name in ("Ours", "Official")]
    return Row("start-up: import and load", *seconds, (seconds[0] / seconds[1],), "s").markdown()


def _in_own_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "napari_uniultra.benchmarks.process", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ResourceError("A benchmark process failed", done.stderr.strip()[-500:])
    return json.loads(done.stdout.splitlines()[-1])
