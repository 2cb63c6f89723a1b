"""`uniultra bench` by itself: ours and the official predictor in one process, on the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from napari_uniultra.benchmarks.loops import SHAPE_HW, boxes, loop_in_memory
from napari_uniultra.benchmarks.pairs import COLUMNS, Row, interleaved, propagation
from napari_uniultra.benchmarks.process import in_own_process
from napari_uniultra.benchmarks.report import machine, row, table


def run_benchmarks(model: str = "uniultra-mini", quick: bool = False, image_size: int | None = None) -> str:
    """Measure everything and return a report in Markdown.

    Parameters
    ----------
    model : str
        A model's name or path, or the name of an architecture, whose weights are then random.
    quick : bool
        Fewer repeats, and memory for 20 and 60 frames instead of 60 and 600.
    image_size : int, optional
        Side of the input in pixels, if not the model's own. Memory and start-up are left out then, and with random
        weights.

    Raises
    ------
    CheckpointError
        When there is no such model.
    """
    from napari_uniultra.benchmarks.contenders import Official, Ours
    from napari_uniultra.benchmarks.models import benchmark_model

    loaded = benchmark_model(model, "cpu", image_size)
    repeats = 3 if quick else 7
    contenders = Ours(loaded), Official(loaded)
    rows = [
        _embedding(contenders, repeats),
        _prompt_to_mask(contenders, repeats * 3),
        *(propagation(contenders, objects, repeats * 3) for objects in (1, 4)),
        *_lighter(loaded, contenders, repeats * 3),
    ]
    lengths = (20, 60) if quick else (60, 600)
    height, width = SHAPE_HW
    heading = (
        f"{loaded.name}, {loaded.config.image_size} px, loop of {height} x {width} pixels; {machine('sam2')}; medians"
    )
    lines = [own.markdown() for own in rows]
    if image_size is None and loaded.sha256:
        lines += [*_memory_rows(model, lengths), _start_up(model)]
    return table(heading, COLUMNS, lines)


def _lighter(model: Any, contenders: Sequence[Any], repeats: int) -> Iterator[Row]:
    """What takes less than the official predictor by being something else: close-ups, and a light memory."""
    from napari_uniultra.benchmarks.contenders import Official, OursClosely
    from napari_uniultra.benchmarks.models import with_full_memory
    from napari_uniultra.model.config import MemoryConfig

    ours, official = contenders
    if model.config.memory != MemoryConfig():
        official = Official(with_full_memory(model))
        yield propagation((ours, official), 1, repeats, ", official with the full memory")
    yield propagation((OursClosely(model), official), 1, repeats, ", ours in close-ups")


def _embedding(contenders: Sequence[Any], repeats: int) -> Row:
    frames = loop_in_memory(2)
    for contender in contenders:
        contender.open(frames)
        contender.embed(0)
    return interleaved("embed a frame", [lambda c=c: c.embed(1) for c in contenders], repeats)


def _prompt_to_mask(contenders: Sequence[Any], repeats: int) -> Row:
    frames, box = loop_in_memory(1), boxes(1)[0]
    for contender in contenders:
        contender.open(frames)
        contender.box(1, 0, box)
    return interleaved("box to mask, embedded frame", [lambda c=c: c.box(1, 0, box) for c in contenders], repeats)


def _memory_rows(model: str, lengths: tuple[int, int]) -> Iterator[str]:
    """Peak memory of tracking short and long loops, each in a process of its own."""
    peaks = {
        name: [in_own_process("track", contender=name, model=model, frames=frames)["peak_mb"] for frames in lengths]
        for name in ("Ours", "Official")
    }
    for index, frames in enumerate(lengths):
        ours, official = peaks["Ours"][index], peaks["Official"][index]
        yield Row(f"peak memory, {frames} frames", ours, official, (ours / official,), "MB").markdown()
    growth = [f"{peaks[name][1] - peaks[name][0]:.0f} MB" for name in ("Ours", "Official")]
    yield row(f"growth from {lengths[0]} to {lengths[1]} frames", *growth, "")


def _start_up(model: str) -> str:
    """From a fresh process to a loaded model."""
    seconds = [in_own_process("load", contender=name, model=model)["seconds"] for name in ("Ours", "Official")]
    return Row("start-up: import and load", *seconds, (seconds[0] / seconds[1],), "s").markdown()
