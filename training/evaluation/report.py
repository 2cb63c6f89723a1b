"""An evaluation as one HTML file that needs nothing else: tables, charts and pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from napari_uniultra.core.words import counted
from napari_uniultra.io.charts import Series, chart
from napari_uniultra.io.report_parts import figure, page, table
from napari_uniultra.training.evaluation.pictures import FOUND_COLOUR, TRUTH_COLOUR, Picture
from napari_uniultra.training.evaluation.settings import BOX
from napari_uniultra.training.evaluation.stills import MODEL
from napari_uniultra.training.evaluation.summary import Drift, Reliability, Row
from napari_uniultra.training.evaluation.tables import (
    bins_table,
    drift_table,
    number,
    reliability_table,
    score_table,
)

if TYPE_CHECKING:
    from napari_uniultra.training.evaluation.run import Evaluation

_FAILED_KEPT = (
    "A failed case stays in every mean: Dice, IoU and NSD enter as 0, a distance that does not exist as the image's "
    "diagonal."
)
_FAILED_DROPPED = (
    "A failed case enters the means of Dice, IoU and NSD (with the smoothing); distances that do not exist are left "
    "out of the means of HD, as the paper's released code does, and their number is given."
)


def report_html(evaluation: Evaluation) -> str:
    """The report as HTML."""
    rows, drifts, trust = evaluation.table(), evaluation.drifts(), evaluation.reliability()
    sections = [
        _head(evaluation),
        _tables(evaluation, rows),
        _sweep(rows),
        _drift(drifts),
        _reliability(trust),
        _not_scored(evaluation.not_scored),
        _pictures(evaluation),
    ]
    return page("Evaluation", sections)


def _head(evaluation: Evaluation) -> str:
    settings, model = evaluation.settings, evaluation.model
    what = "Masks of other tools"
    if model:
        what = f"Model {model['name']}, input {model['image_size']} px, SHA-256 {model['sha256'][:16] or 'unknown'}"
    cases = len({(score.data_set, score.case) for score in evaluation.scores})
    left = counted(evaluation.left, "case")
    stopped = f"<p><b>Stopped before its end: {left} missing.</b></p>" if evaluation.left else ""
    canvas = "the image's own pixels" if settings.canvas is None else f"pixels of a {settings.canvas} px square"
    facts = (
        f"Part {settings.part!r}, {counted(cases, 'case')}, seed {settings.seed}. Box sides moved outwards by 0 to "
        f"{settings.jitter:g} px at 1024. Scored in {canvas}; smooth {settings.smooth:g}; tolerance of NSD "
        f"{settings.tolerance_px:g} px and {settings.tolerance_mm:g} mm."
    )
    return (
        f"<h1>Evaluation</h1><p><b>{escape(what)}</b></p><p>{escape(facts)}</p>{stopped}"
        '<p class="note">Research use only: not a medical device. Names and pictures of cases are in this file: '
        "share it as you would share the data.</p>"
    )


def _tables(evaluation: Evaluation, rows: Sequence[Row]) -> str:
    failed = _FAILED_DROPPED if evaluation.settings.drop_infinite else _FAILED_KEPT
    note = (
        f"{failed} Intervals are of the mean, from {counted(evaluation.settings.resamples, 'resample')} of whole "
        'subjects (of cases, where the subject is unknown). "ellipse" is the ellipse inscribed in the very box that '
        'the model was given: what the box alone is worth. "over ellipse" is the mean difference of Dice.'
    )
    parts = [f'<h2>Scores</h2><p class="note">{escape(note)}</p>']
    for by, title in (("object", "By object"), ("image", "By image: all objects of a frame together")):
        own = [row for row in rows if row.by == by]
        if own:
            parts.append(f"<h3>{title}</h3>{table(*score_table(own))}")
    return "".join(parts)


def _sweep(rows: Sequence[Row]) -> str:
    lines: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row.by == "object" and row.prompt == BOX and row.jitter is not None:
            lines[row.data_set, row.method].append((row.jitter, row.metrics["dice"].mean))
    if max(map(len, lines.values()), default=0) < 2:
        return ""
    parts = ["<h2>How much of the score is the box</h2>"]
    for data_set in dict.fromkeys(key[0] for key in lines):
        own = [Series(method, sorted(line)) for (name, method), line in lines.items() if name == data_set]
        parts.append(f"<h3>{escape(data_set)}</h3>")
        parts.append(chart(own, "largest jitter of a box's side, px at 1024", "mean Dice"))
    return "".join(parts)


def _drift(drifts: Sequence[Drift]) -> str:
    if not drifts:
        return ""
    parts = ["<h2>Over time</h2>", table(*drift_table(drifts))]
    for data_set in dict.fromkeys(drift.data_set for drift in drifts):
        own = [drift for drift in drifts if drift.data_set == data_set]
        series = [
            Series(f"{drift.case} {drift.object}, {drift.method}, {drift.prompt}", _points(drift)) for drift in own
        ]
        parts.append(f"<h3>{escape(data_set)}</h3>")
        parts.append(chart(series, "frames from where tracking began", "Dice"))
    return "".join(parts)


def _points(drift: Drift) -> list[tuple[float, float]]:
    return list(zip(map(float, drift.frames), drift.dice, strict=True))


def _reliability(found: Sequence[Reliability]) -> str:
    if not found:
        return ""
    note = (
        "Predicted IoU against the true one: on the dashed line the model knows how good it is. A dot's area is the "
        "number of masks."
    )
    parts = ["<h2>Can the predicted IoU be trusted?</h2>", f'<p class="note">{note}</p>']
    parts.append(table(*reliability_table(found)))
    for own in (own for own in found if own.data_set == "all"):
        largest = max(count for _, _, count, _, _ in own.bins)
        points = [(predicted, true) for _, _, _, predicted, true in own.bins]
        sizes = [2 + 8 * (count / largest) ** 0.5 for _, _, count, _, _ in own.bins]
        series = [Series(own.prompt, points, sizes), Series("predicted = true", [(0, 0), (1, 1)], dashed=True)]
        parts.append(f"<h3>{escape(own.prompt)}</h3>{chart(series, 'predicted IoU', 'true IoU', x_max=1.0)}")
        parts.append(table(*bins_table(own)))
    return "".join(parts)


def _not_scored(cases: Sequence[tuple[str, str]]) -> str:
    if not cases:
        return ""
    note = "Their own files cannot be used, so there is no truth to score against; they are in no mean."
    return f'<h2>Cases that were not scored</h2><p class="note">{note}</p>' + table(["case", "why"], cases)


def _pictures(evaluation: Evaluation) -> str:
    if not evaluation.pictures:
        return ""
    keys = (
        f'<span class="key" style="color:rgb{TRUTH_COLOUR}">■ truth</span>'
        f'<span class="key" style="color:rgb{FOUND_COLOUR}">■ found</span> dotted: the box'
    )
    parts = [f"<h2>Worst and best</h2><p>{keys}</p>"]
    for (data_set, prompt, method), (worst, best) in evaluation.pictures.items():
        who = "" if method == MODEL else f", {method}"
        parts.append(f"<h3>{escape(f'{data_set}, {prompt}{who}')}</h3>")
        for title, shown in (("worst", worst), ("best", best)):
            if shown:
                parts.append(f"<p>{title}</p>{''.join(map(_figure, shown))}")
    return "".join(parts)


def _figure(picture: Picture) -> str:
    score = picture.score
    words = f"{score.case}, frame {score.frame}: Dice {number(score.dice, 3)}"
    if score.failure:
        words += f", {score.failure}"
    return figure(picture.png, words)
