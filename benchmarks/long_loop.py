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
_MB = 1 << 20


def run_long(model: str, frames: int, image_size: int = 128) -> str:
    """Track one object through a loop and return a table in Markdown.

    The loop is drawn as it is looked at and takes no memory; an autosave is written as in the viewer. The input is
    small, so that it ends in minutes: what grows with the loop does so by the frame, whatever the input's size.

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
    from napari_uniultra.model.zoo import model_at
    from napari_uniultra.segment.session import CineSession

    if frames < FEWEST:
        raise ConfigError(f"{frames} frames are too few to compare tenths of a loop", fix=f"Take {FEWEST} or more")
    with tempfile.TemporaryDirectory() as folder:
        loop = SyntheticLoop(frames, _SHAPE_HW)
        session = CineSession(Cine(loop), model_at(model, "cpu", image_size), autosave=Path(folder) / "autosave.json")
        session.add_box(1, 0, boxes(1, _SHAPE_HW)[0])
        seconds, resident = _track(session)
        saved = sum(file.stat().st_size for file in Path(folder).iterdir()) / frames
    return _report(session, model, image_size, seconds, resident, saved)


def _track(session: Any) -> tuple[list[float], list[float]]:
    """Seconds and resident MB of this process, frame by frame, once the memory is full."""
    process, seconds, resident = psutil.Process(), [], []
    start = time.perf_counter()
    for step in session.propagate():
        now = time.perf_counter()
        if step.frame > WARM_UP:
            seconds.append(now - start)
            resident.append(process.memory_info().rss / _MB)
        start = time.perf_counter()
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
    change = 100 * (times[-1] / times[1] - 1)
    rows += [
        judged("growth of memory, first tenth to last", peaks[-1] - peaks[0], 100, "MB"),
        judged("change of time per frame, second tenth to last", change, 5, "%"),
        row("autosave, by frame", f"{saved:.0f} bytes", "", ""),
    ]
    height, width = session.cine.shape_hw
    heading = (
        f"{model} at {image_size} px (small, so that this ends in minutes), one object, {frames} frames of "
        f"{height} x {width} pixels; {machine()}; medians of time, peaks of resident memory"
    )
    return table(heading, JUDGED_COLUMNS, rows)


def _tenths(values: Sequence[float]) -> list[Sequence[float]]:
    size = len(values) / 10
    return [values[round(part * size) : round((part + 1) * size)] for part in range(10)]
