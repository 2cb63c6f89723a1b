"""`uniultra bench --long`: whether memory and time per frame stay what they were, however long the loop."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from napari_uniultra.benchmarks.loops import SyntheticLoop, boxes
from napari_uniultra.benchmarks.pairs import WARM_UP
from napari_uniultra.benchmarks.report import JUDGED_COLUMNS, judged, machine, row, table
from napari_uniultra.errors import ConfigError

FEWEST = 10 * WARM_UP  # frames: below, a tenth says nothing
_SHAPE_HW = (240, 320)
_CACHES = "cache_bytes", "memory_bytes"
_MB = 1 << 20


def run_long(model: str, frames: int, image_size: int = 128) -> str:
    """Track one object through a loop and return a table in Markdown.

    The loop is drawn as it is looked at and takes no memory; an autosave is written as in the viewer. The input is
    small, so that it ends in minutes: what grows with the loop does so by the frame, whatever the input's size. The
    session's caches are smaller alike, so that they are full as early as at the model's own size.

    Time is the processor's, which other work on the machine changes less than the clock's. A machine may be faster or
    slower minutes later; so the loop's last tenth is left out of the ten parts and compared, in turn, with a session
    that began shortly before it and tracks the same frames.

    Parameters
    ----------
    model : str
        A model's name or path.
    frames : int
        At least `FEWEST`.
    image_size : int
        Side of the model's input in pixels.

    Raises
    ------
    ConfigError
        For fewer frames.
    """
    from napari_uniultra.core.prompts import box_of_mask
    from napari_uniultra.core.types import Cine
    from napari_uniultra.model.load import load_model, model_at
    from napari_uniultra.segment.session import CineSession

    if frames < FEWEST:
        raise ConfigError(f"{frames} frames are too few to compare tenths of a loop", fix=f"Take {FEWEST} or more")
    with tempfile.TemporaryDirectory() as folder:
        cine, loaded = Cine(SyntheticLoop(frames, _SHAPE_HW)), load_model(model, "cpu")
        smaller = (image_size / loaded.image_size) ** 2
        limits = {name: int(CineSession.__init__.__kwdefaults__[name] * smaller) for name in _CACHES}
        loaded = model_at(model, "cpu", image_size)
        session = CineSession(cine, loaded, autosave=Path(folder) / "autosave.json", **limits)
        session.add_box(1, 0, boxes(1, _SHAPE_HW)[0])
        steps = session.propagate()
        last = frames - frames // 10
        seconds, resident = _track(islice(steps, last))
        late = CineSession(cine, loaded, autosave=Path(folder) / "late.json", **limits)
        begin = last - WARM_UP
        late.add_box(1, begin, box_of_mask(session.step(begin).masks[1]) or boxes(1, _SHAPE_HW)[0])
        late_steps = late.propagate(start=begin)
        list(islice(late_steps, WARM_UP))
        pairs = [(_seconds(steps), _seconds(late_steps)) for _ in range(frames - last)]
        saved = (Path(folder) / "autosave.json").stat().st_size / frames
    return _report(session, model, image_size, seconds, resident, pairs, saved)


def _track(steps: Iterable[Any]) -> tuple[list[float], list[float]]:
    """Seconds of the processor and resident MB of this process, frame by frame, once the memory is full."""
    process, seconds, resident = psutil.Process(), [], []
    start = time.process_time()
    for step in steps:
        now = time.process_time()
        if step.frame > WARM_UP:
            seconds.append(now - start)
            resident.append(process.memory_info().rss / _MB)
        start = time.process_time()
    return seconds, resident


def _seconds(steps: Iterator[Any]) -> float:
    """Of the processor, for one more step."""
    start = time.process_time()
    next(steps)
    return time.process_time() - start


def _report(
    session: Any,
    model: str,
    image_size: int,
    seconds: Sequence[float],
    resident: Sequence[float],
    pairs: Sequence[tuple[float, float]],
    saved: float,
) -> str:
    frames = len(session.cine)
    times = [statistics.median(part) for part in _tenths(seconds)]
    peaks = [max(part) for part in _tenths(resident)]
    rows = [
        row(f"part {number} of 10", f"{1000 * took:.1f} ms a frame, {peak:.0f} MB", "", "")
        for number, (took, peak) in enumerate(zip(times, peaks, strict=True), start=1)
    ]
    longer = 100 * (statistics.median(own / late for own, late in pairs) - 1)
    own, late = (statistics.mean(times) for times in zip(*pairs, strict=True))
    rows += [
        judged("growth of memory, first part to last", peaks[-1] - peaks[0], 100, "MB"),
        judged("time per frame beside a session that began just before, same frames", longer, 5, "%"),
        row("the same of mean times, which autosaves are part of", f"{100 * (own / late - 1):.3g} %", "", ""),
        row("results that are kept, by frame", f"{_kept_bytes(session) / frames:.0f} bytes", "", ""),
        row("autosave, by frame", f"{saved:.0f} bytes", "", ""),
    ]
    height, width = session.cine.shape_hw
    heading = (
        f"{model} at {image_size} px (small, and caches alike, so that this ends in minutes), one object, {frames} "
        f"frames of {height} x {width} pixels; {machine()}; medians of processor time, peaks of resident memory"
    )
    return table(heading, JUDGED_COLUMNS, rows)


def _kept_bytes(session: Any) -> int:
    """Of the arrays that make up what was found: masks as bits, and object pointers."""
    return sum(result.mask.bits.nbytes + result.pointer.nbytes for _, result in session._state.results())


def _tenths(values: Sequence[float]) -> list[Sequence[float]]:
    size = len(values) / 10
    return [values[round(part * size) : round((part + 1) * size)] for part in range(10)]
