"""A table of ours beside the paper's, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from napari_uniultra import __version__
from napari_uniultra.training.ablation.plan import Asked
from napari_uniultra.training.ablation.presets import RowSettings, TableSettings
from napari_uniultra.training.ablation.scores import SetScores, score_settings
from napari_uniultra.training.evaluation.tables import markdown, number

_METRICS = {"dice": "Dice %", "iou": "mIoU %", "hd": "HD px"}
_ORDER = tuple(_METRICS)  # of the paper's numbers in presets
_COLUMNS = {
    "trainable": ("trained, M", 1e-6),
    "ratio": ("trained, %", 100.0),
    "encoder_parameters": ("encoder, M", 1e-6),
    "operations": ("operations, G", 1e-9),
    "encoder_multiplications": ("encoder with attention, GMAC", 1e-9),
    "frames_per_second": ("frames/s", 1.0),
    "memory": ("memory, MB", 1e-6),
}
_MEAN = "mean"


@dataclass(frozen=True)
class Result:
    """What came out of a row.

    Attributes
    ----------
    scores : dict or None
        By data set; None where nothing was scored.
    columns : mapping of str to float
        In units: parameters, operations, bytes.
    """

    scores: SetScores | None = None
    columns: Mapping[str, float] = field(default_factory=dict)


def report_table(table: TableSettings, results: Sequence[Result], asked: Asked) -> str:
    """The whole page."""
    lines = [f"# {table.title}", "", "Ours, and the paper's in brackets.", ""]
    shown = _shown(table, results)
    if shown:
        side = score_settings(asked).canvas
        lines[2] += (
            f" Dice and mIoU in %, HD in px of images stretched to {side} px; means over images, smooth 1, infinite "
            "distances left out, as the paper's code has it."
        )
    heads = ["", *(f"{name} {_METRICS[metric]}" for name in shown for metric in table.metrics)]
    heads += [_COLUMNS[name][0] for name in table.columns]
    cells = [_cells(table, row, own, shown) for row, own in zip(table.rows, results, strict=True)]
    lines += [markdown(heads, cells), "", *_notes(table, results, asked)]
    return "\n".join(lines) + "\n"


def mean_of(scores: SetScores, metric: str) -> float:
    """The mean over data sets, each counting the same, as in the paper's tables of means."""
    values = [own[metric] for own in scores.values() if not math.isnan(own.get(metric, math.nan))]
    return sum(values) / len(values) if values else math.nan


def _shown(table: TableSettings, results: Sequence[Result]) -> list[str]:
    """The headings' data sets: the paper's, then others that were scored."""
    if not table.metrics:
        return []
    if table.show == "mean":
        return [_MEAN]
    ours = [name for own in results for name in own.scores or ()]
    return list(dict.fromkeys([*table.data_sets, *ours]))


def _cells(table: TableSettings, row: RowSettings, own: Result, shown: Sequence[str]) -> list[str]:
    cells = [row.label]
    for name in shown:
        paper = row.paper.get(name, ())
        for metric in table.metrics:
            ours = _score(own.scores, name, metric)
            # A table of one metric gives one number.
            theirs = paper[_ORDER.index(metric)] if len(paper) > _ORDER.index(metric) else None
            cells.append(_cell(ours, theirs))
    for name in table.columns:
        value = own.columns.get(name)
        cells.append(_cell(None if value is None else value * _COLUMNS[name][1], row.paper.get(name)))
    return cells


def _score(scores: SetScores | None, name: str, metric: str) -> float | None:
    if scores is None:
        return None
    return mean_of(scores, metric) if name == _MEAN else scores.get(name, {}).get(metric)


def _cell(ours: float | None, theirs: float | None) -> str:
    own = number(ours, 2)
    return own if theirs is None else f"{own} ({theirs:,.2f})"


def _notes(table: TableSettings, results: Sequence[Result], asked: Asked) -> list[str]:
    notes = list(table.notes)
    scored = next((own.scores for own in results if own.scores), None)
    if scored:
        counts = ", ".join(f"{name} {own['images']:.0f}" for name, own in scored.items())
        notes.append(f"Images scored, of the part {asked.part!r}: {counts}.")
        failed = sum(own["failed"] for result in results for own in (result.scores or {}).values())
        notes.append(f"Failures, which count as Dice 0: {failed:.0f}.")
        left_out = [f"{name} {own['left_out']:.0f}" for name, own in scored.items() if own["left_out"]]
        if left_out:
            notes.append(
                f"Images that cannot be read, or whose masks cannot, and that are in no mean: {', '.join(left_out)}. "
                "'uniultra data check' names them."
            )
        if not set(scored) & set(table.data_sets):
            notes.append("The data hold none of the paper's data sets: its numbers are about other images.")
    if asked.is_quick:
        notes.append("A quick run: random small networks and two steps. Our numbers mean nothing.")
    if asked.changes:
        notes.append("Changed: " + ", ".join(f"{name} = {value}" for name, value in asked.changes.items()) + ".")
    notes.append(f"napari-uniultra {__version__}. Research use only: not a medical device.")
    return [f"- {note}" for note in notes]
