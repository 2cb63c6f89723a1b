"""Ours and the official predictor, timed in turn, so that both meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from napari_uniultra.benchmarks.loops import boxes, loop_in_memory
from napari_uniultra.benchmarks.report import row
from napari_uniultra.core.words import counted

WARM_UP = 16  # frames until the memory bank is full: seven frames and sixteen pointers
COLUMNS = ("case", "napari-uniultra", "official sam2", "ratio (range)")


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
        own = (f"{value:.4g} {self.unit}" for value in (self.ours, self.official))
        return row(self.case, *own, f"{ratio:.2f}{spread}")


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes, with all that it has given a GPU to do."""
    _wait_for_gpu()
    start = time.perf_counter()
    work()
    _wait_for_gpu()
    return time.perf_counter() - start


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def interleaved(case: str, work: Sequence[Callable[[], Any]], repeats: int) -> Row:
    """Time ours and the other one in turn, in ms; what is first in a pair changes."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for index in (0, 1) if repeat % 2 == 0 else (1, 0):
            times[index].append(timed(work[index]))
    ratios = tuple(ours / official for ours, official in zip(*times, strict=True))
    ours, official = (1000 * statistics.median(own) for own in times)
    return Row(case, ours, official, ratios, "ms")


def propagation(contenders: Sequence[Any], objects: int, repeats: int, note: str = "", together: int = 1) -> Row:
    """Time a frame of tracking, with the memory full; ``note`` says what is particular about it.

    So many frames as are timed ``together`` may overlap, as when they are tracked one after another.
    """
    from napari_uniultra.benchmarks.contenders import prompt

    frames = loop_in_memory(WARM_UP + repeats * together + 1, discs=max(objects, 4))
    steps = []
    for contender in contenders:
        contender.open(frames)
        prompt(contender, boxes(objects))
        running = iter(contender.propagate())
        list(islice(running, WARM_UP))
        steps.append(running)
    case = f"propagate one frame, {counted(objects, 'object')}{note}"
    found = interleaved(case, [lambda r=running: list(islice(r, together)) for running in steps], repeats)
    return replace(found, ours=found.ours / together, official=found.official / together)
