"""An evaluation as text: Markdown for people, CSV for spreadsheets, JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from napari_uniultra.core.csv_table import write_table
from napari_uniultra.training.evaluation.scores import Score
from napari_uniultra.training.evaluation.summary import Drift, Reliability, Row, Statistic

HEADINGS = {
    "dice": ("Dice", 3),
    "iou": ("mIoU", 3),
    "hd_px": ("HD px", 1),
    "hd95_px": ("HD95 px", 1),
    "nsd_px": ("NSD px", 3),
    "hd_mm": ("HD mm", 2),
    "hd95_mm": ("HD95 mm", 2),
    "nsd_mm": ("NSD mm", 3),
    "thickness_error_mm": ("thickness error mm", 2),
}
NOTHING = "–"


def score_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of rows; only the metrics that apply to some row have a column."""
    present = [name for name in HEADINGS if any(name in row.metrics for row in rows)]
    heads = ["data set", "prompt", "jitter px", "method", "scored", "failed"]
    heads += [cell for name in present for cell in _heads_of(name)]
    heads.append("over ellipse")
    return heads, [_cells(row, present) for row in rows]


def drift_table(drifts: Sequence[Drift]) -> tuple[list[str], list[list[str]]]:
    """One line a tracked object."""
    heads = [
        "loop",
        "object",
        "method",
        "prompt",
        "frames",
        "mean Dice",
        "last",
        "lowest",
        "below 0.5 at frame",
        "thickness error mm",
    ]
    cells = [
        [
            drift.case,
            drift.object,
            drift.method,
            drift.prompt,
            str(len(drift.frames)),
            number(sum(drift.dice) / len(drift.dice), 3),
            number(drift.dice[-1], 3),
            number(min(drift.dice), 3),
            NOTHING if drift.lost_at is None else str(drift.lost_at),
            number(drift.mean_thickness_error_mm, 2),
        ]
        for drift in drifts
    ]
    return heads, cells


def reliability_table(found: Sequence[Reliability]) -> tuple[list[str], list[list[str]]]:
    """One line for each data set and prompt."""
    heads = ["data set", "prompt", "masks", "mean absolute error", "predicted − true"]
    cells = [
        [own.data_set, own.prompt, str(own.count), number(own.mean_absolute_error, 3), f"{own.bias:+.3f}"]
        for own in found
    ]
    return heads, cells


def bins_table(own: Reliability) -> tuple[list[str], list[list[str]]]:
    """The bins of one reliability."""
    heads = ["predicted IoU", "masks", "mean predicted", "mean true"]
    cells = [
        [f"{low:.1f} to {high:.1f}", str(count), number(predicted, 3), number(true, 3)]
        for low, high, count, predicted, true in own.bins
    ]
    return heads, cells


def markdown(heads: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    widths = [max(len(head), *(len(line[i]) for line in cells), 3) for i, head in enumerate(heads)]
    lines = [heads, ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def number(value: float | None, digits: int) -> str:
    """A number with so many decimals; a dash where there is none."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def write_csv(path: Path, scores: Iterable[Score]) -> None:
    """One line a score, whole or not at all. Distances that do not exist are ``inf``; what does not apply is empty.

    Raises
    ------
    WriteError
    """
    columns = [field.name for field in fields(Score) if field.name != "drawn"]
    write_table(path, [*columns, "box", "points"], (_csv_cells(score, columns) for score in scores))


def json_ready(value: Any) -> Any:
    """A value for JSON, with None for what is not a finite number."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _heads_of(name: str) -> list[str]:
    title, _ = HEADINGS[name]
    return [f"{title} ± sd", "95 % interval"] if name == "dice" else [title]


def _cells(row: Row, present: Sequence[str]) -> list[str]:
    failed = sum(row.failures.values())
    reasons = ", ".join(f"{count} {why}" for why, count in row.failures.items())
    cells = [row.data_set, row.prompt, number(row.jitter, 0), row.method, str(row.scored)]
    cells.append(f"{failed} ({reasons})" if failed else "0")
    for name in present:
        digits = HEADINGS[name][1]
        own = row.metrics.get(name)
        if name == "dice" and own is not None:
            cells += [f"{number(own.mean, digits)} ± {number(own.sd, digits)}", _interval(own, digits)]
        else:
            cells.append(NOTHING if own is None else _mean(own, digits))
    over = row.over_ellipse
    cells.append(NOTHING if over is None else f"{over.mean:+.3f}")
    return cells


def _mean(own: Statistic, digits: int) -> str:
    return number(own.mean, digits) + (f" ({own.dropped} dropped)" if own.dropped else "")


def _interval(own: Statistic, digits: int) -> str:
    return NOTHING if own.low is None else f"{own.low:.{digits}f} to {own.high:.{digits}f}"


def _csv_cells(score: Score, columns: Iterable[str]) -> list[Any]:
    box = "" if score.drawn is None or score.drawn.box is None else _numbers(score.drawn.box)
    points = "" if score.drawn is None else ";".join(_numbers(point) for point in score.drawn.points)
    return [*(_csv_cell(getattr(score, name)) for name in columns), box, points]


def _csv_cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)
