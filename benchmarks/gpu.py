"""`uniultra bench --gpu`: absolute figures of a GPU, beside the official predictor as it is fastest."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from napari_uniultra.benchmarks.loops import SHAPE_HW, boxes, loop_in_memory
from napari_uniultra.benchmarks.models import benchmark_model
from napari_uniultra.benchmarks.pairs import COLUMNS, Row, interleaved, propagation
from napari_uniultra.benchmarks.process import in_own_process
from napari_uniultra.benchmarks.report import machine, row, table
from napari_uniultra.core.words import counted
from napari_uniultra.errors import ResourceError


class Plan(NamedTuple):
    """What is measured.

    Attributes
    ----------
    models : tuple of (str, str)
        Names, and what the paper says of them.
    image_size : int
        Side of the input in pixels.
    objects : tuple of int
        Numbers of objects to track.
    repeats : int
        Pairs of timings.
    together : int
        Tracked frames that are timed as one, so that what overlaps on the device counts.
    frames : int
        Of the loop that memory is measured on.
    official : str
        The contender that is the yardstick.
    """

    models: tuple[tuple[str, str], ...] = (
        ("uniultra-mini", "the paper, on an RTX A5000: 45.09 frames/s, 9,881 MB"),
        ("uniultra-l", "the paper, on an RTX A5000: 25,759 MB"),
    )
    image_size: int = 1024
    objects: tuple[int, ...] = (1, 4, 16)
    repeats: int = 21
    together: int = 4
    frames: int = 60
    official: str = "OfficialOptimised"


def run_gpu(device: str = "cuda", plan: Plan = Plan(), quick: bool = False) -> str:  # noqa: B008 - immutable
    """Measure on a GPU and return a table in Markdown.

    Parameters
    ----------
    device : str
        As `choose_device` takes it.
    plan : Plan
    quick : bool
        Fewer repeats.

    Raises
    ------
    ResourceError
        When the machine has no such device.
    """
    _check(device)
    from napari_uniultra.benchmarks import contenders

    plan = plan._replace(repeats=3) if quick else plan
    lines: list[str] = []
    for name, known in plan.models:
        model = benchmark_model(name, device, plan.image_size)
        pair = contenders.Ours(model), getattr(contenders, plan.official)(model)
        lines.append(row(f"**{model.name}** ({known})", "", "", ""))
        lines.append(_images(pair, plan.repeats))
        lines += _tracking(pair, plan)
        lines += _fastest(model, pair[1], plan)
        lines.append(_half_beside_full(model, plan.frames))
        del model, pair
        _leave_gpu()  # to the processes that follow
        lines.append(_compiling(name, device, plan))
        lines += _peaks(name, device, plan)
    yardstick = getattr(contenders, plan.official).name
    height, width = SHAPE_HW
    heading = (
        f"{plan.image_size} px, loop of {height} x {width} pixels; {machine('sam2', device=device)}; the official one "
        f"is {yardstick}; medians of times, memory that PyTorch reserved at most in a process of its own"
    )
    return table(heading, COLUMNS, lines)


def _check(device: str) -> None:
    from napari_uniultra.model.device import available_devices

    if device.startswith("cuda") and "cuda" not in available_devices():
        raise ResourceError(
            "There is no GPU to measure",
            "PyTorch finds no CUDA device on this machine",
            "Run it on a machine with an NVIDIA GPU and a CUDA build of PyTorch; 'uniultra bench' measures the CPU",
        )


def _images(contenders: Sequence[Any], repeats: int, note: str = "") -> str:
    """A box on a new image, to its mask in the CPU's memory: frames a second."""
    frames, box = loop_in_memory(2), boxes(1)[0]

    def segments(contender: Any) -> Callable[[], None]:
        contender.open(frames)
        numbers = cycle((0, 1))

        def segment() -> None:
            frame = next(numbers)
            contender.embed(frame)
            contender.box(1, frame, box)

        for _ in frames:
            segment()
        return segment

    timed = interleaved("", [segments(contender) for contender in contenders], repeats)
    ratios = tuple(1 / ratio for ratio in timed.ratios)
    ours, official = 1000 / timed.ours, 1000 / timed.official
    return Row(f"images alone: embed, box to mask{note}", ours, official, ratios, "frames/s").markdown()


def _fastest(model: Any, official: Any, plan: Plan) -> list[str]:
    """The same in half precision and compiled."""
    from napari_uniultra.benchmarks.contenders import Ours

    pair = Ours(replace(model, half=True, compiled=True)), official
    note = "; half, compiled"
    return [_images(pair, plan.repeats, note), *_tracking(pair, plan, note)]


def _tracking(pair: Sequence[Any], plan: Plan, note: str = "") -> list[str]:
    return [propagation(pair, objects, plan.repeats, note, plan.together).markdown() for objects in plan.objects]


def _leave_gpu() -> None:
    gc.collect()  # compiled models hold themselves in circles
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _compiling(name: str, device: str, plan: Plan) -> str:
    """Seconds of the first frames of a compiled model, in fresh processes: from nothing, and from what was kept."""
    with TemporaryDirectory() as folder:
        settings = dict(model=name, device=device, image_size=plan.image_size, kept_in=folder)
        first, again = (in_own_process("compile", **settings)["seconds"] for _ in range(2))
    return row("compiling, and first 3 frames", f"{first:.0f} s, kept: {again:.0f} s", "", "")


def _half_beside_full(model: Any, frames: int) -> str:
    """How alike the masks are that are tracked in half and in full precision."""
    from napari_uniultra.benchmarks.contenders import Ours, prompt
    from napari_uniultra.core.metrics import dice

    loop, masks, note = loop_in_memory(frames), [], ""
    for half in (True, False):
        contender = Ours(replace(model, half=half))
        contender.open(loop)
        prompt(contender, boxes(1))
        masks.append([found[1] for _, found in contender.propagate()])
        if half and not contender.session.model.half:
            note = "; too large numbers, went on in full"
    alike = [dice(*pair) for pair in zip(*masks, strict=True)]
    mean, least = sum(alike) / len(alike), min(alike)
    return row(
        f"half beside full precision, {frames} frames{note}", f"Dice {mean:.4f} (worst frame {least:.4f})", "", ""
    )


def _peaks(name: str, device: str, plan: Plan) -> list[str]:
    """Peak memory of tracking, each in a process of its own."""
    rows = []
    for objects in plan.objects:
        settings = dict(model=name, frames=plan.frames, objects=objects, device=device, image_size=plan.image_size)
        ours, official = (
            in_own_process("track", contender=contender, **settings)["peak_mb"] for contender in ("Ours", plan.official)
        )
        case = f"peak memory, {plan.frames} frames, {counted(objects, 'object')}"
        rows.append(Row(case, ours, official, (ours / official,), "MB").markdown())
    return rows
