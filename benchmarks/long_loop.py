"""`uniultra bench --long`: whether memory and time per frame stay what they were, however long the loop."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
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

    Time is the processor's, which other work on the machine changes less than the clock's.

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
    from napari_uniultra.core.types import Cine
    from napari_uniultra.model.zoo import load_model, model_at
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
        seconds, resident = _track(session)
        saved = sum(file.stat().st_size for file in Path(folder).iterdir()) / frames
    return _report(session, model, image_size, seconds, resident, saved)


def _track(session: Any) -> tuple[list[float], list[float]]:
    """Seconds of the processor and resident MB of this process, frame by frame, once the memory is full."""
    process, seconds, resident = psutil.Process(), [], []
    start = time.process_time()
    for step in session.propagate():
        now = time.process_time()
        if step.frame > WARM_UP:
            seconds.append(now - start)
            resident.append(process.memory_info().rss / _MB)
        start = time.process_time()
    return seconds, resident


def _report(
    session: Any, model: str, image_size: int, seconds: Sequence[float], resident: Sequence[float], saved: float
) -> str:
    frames = len(session.cine)
    times = [statistics.median(part) for part in _tenths(seconds)]
    peaks = [max(part) for part in _tenths(resident)]
    rows = [
        row(f"tenth {number}", f"{1000 * took:.1f} ms a frame, {peak:.0f} MB", "", "")
        for number, (took, peak) in enumerate(zip(times, peaks, strict=True), start=1)
    ]
    means = [statistics.mean(part) for part in _tenths(seconds)]
    change, change_of_means = (100 * (own[-1] / own[1] - 1) for own in (times, means))
    rows += [
        judged("growth of memory, first tenth to last", peaks[-1] - peaks[0], 100, "MB"),
        judged("change of time per frame, second tenth to last", change, 5, "%"),
        row("the same of mean times, which autosaves are part of", f"{change_of_means:.3g} %", "", ""),
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
