"""`uniultra bench --interaction`: how long a person waits for a model, a first mask, and each prompt after it."""

from __future__ import annotations

import statistics
from typing import Any

from napari_uniultra.benchmarks.pairs import timed
from napari_uniultra.benchmarks.process import in_own_process
from napari_uniultra.benchmarks.report import JUDGED_COLUMNS, judged, machine, row, table

_BOX = (157.0, 56.0, 212.0, 127.0)  # pixels: the left ventricle of the sample
_CLICK = (185.0, 90.0)


def run_interaction(model: str = "uniultra-mini", quick: bool = False) -> str:
    """Measure in fresh processes, on the CPU, and return a table in Markdown.

    Parameters
    ----------
    model : str
        A model's name or path.
    quick : bool
        Two processes of few prompts, instead of five.
    """
    found = [in_own_process("interact", model=model, prompts=5 if quick else 21) for _ in range(2 if quick else 5)]
    imported, loaded, masked = (
        statistics.median(each[name] for each in found) for name in ("import_s", "load_s", "first_mask_s")
    )
    rows = [
        row("import torch, fresh process", f"{imported:.3g} s", "", ""),
        judged("load the model, after that", loaded, 2, "s"),
        judged("first mask: open the sample loop, draw a box", masked, 3, "s"),
    ]
    for kind in ("box", "click"):
        times = [1000 * seconds for each in found for seconds in each["prompts_s"][kind]]
        rows.append(judged(f"{kind} on an embedded frame, median", statistics.median(times), 60, "ms"))
        rows.append(judged(f"{kind} on an embedded frame, slowest of {len(times)}", max(times), 60, "ms"))
    return table(f"{model} at its own input size; {machine()}; medians of {len(found)}", JUDGED_COLUMNS, rows)


def first_mask(model: Any) -> Any:
    """Open the real sample loop and draw a box on its first frame; returns the session."""
    from napari_uniultra import sample_data
    from napari_uniultra.io.readers import read_cine
    from napari_uniultra.segment.session import CineSession

    session = CineSession(read_cine(sample_data.heart_path()), model)
    session.add_box(1, 0, _BOX)
    return session


def prompt_times(session: Any, count: int) -> dict[str, list[float]]:
    """Seconds from each prompt to its mask on a frame that is embedded: boxes, and clicks that refine them.

    The boxes lie side by side, so that what a model looks at closely is seen anew each time.
    """
    times: dict[str, list[float]] = {"box": [], "click": []}
    x0, y0, x1, y1 = _BOX
    for number in range(count):
        box = x0 + number % 20, y0, x1 + number % 20, y1 + number // 20
        session.set_prompt(1, 0, None)
        times["box"].append(timed(lambda box=box: session.add_box(1, 0, box)))
        times["click"].append(timed(lambda: session.add_points(1, 0, [_CLICK], [1])))
    return times
