"""One evaluation from cases to scores, and its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_uniultra import __version__
from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.own_files import recorded
from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.importers import open_manifest
from napari_uniultra.training.evaluation.answers import FrameAnswer
from napari_uniultra.training.evaluation.cases import LabelledCase
from napari_uniultra.training.evaluation.others import OtherTool
from napari_uniultra.training.evaluation.pictures import Gallery, Picture
from napari_uniultra.training.evaluation.report import report_html
from napari_uniultra.training.evaluation.scores import Score, scores_of
from napari_uniultra.training.evaluation.settings import EvaluationSettings
from napari_uniultra.training.evaluation.stills import still_answers
from napari_uniultra.training.evaluation.summary import Drift, Reliability, Row, drifts, reliability, table
from napari_uniultra.training.evaluation.tables import json_ready, write_csv
from napari_uniultra.training.evaluation.tracking import tracked_answers

SCORES, SUMMARY, REPORT = "scores.csv", "summary.json", "report.html"
ALL = "all"


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes
    ----------
    settings : EvaluationSettings
    model : mapping
        Name, SHA-256 and input size; empty where only masks of other tools were scored.
    scores : tuple of Score
        By case, then frame; failed ones included.
    not_scored : tuple of (str, str)
        Cases whose own files cannot be used, and why: there is no truth to score against.
    pictures : mapping
        As `Gallery.pictures`.
    left : int
        Cases that were not reached since it was stopped.
    """

    settings: EvaluationSettings
    model: Mapping[str, Any]
    scores: tuple[Score, ...]
    not_scored: tuple[tuple[str, str], ...]
    pictures: Mapping[tuple[str, str, str], tuple[list[Picture], list[Picture]]] = field(default_factory=dict)
    left: int = 0

    def table(self) -> list[Row]:
        """Means by data set, prompt and method."""
        return table(self.scores, self.settings)

    def drifts(self) -> list[Drift]:
        """Tracked objects over time."""
        return drifts(self.scores)

    def reliability(self) -> list[Reliability]:
        """Predicted IoU against the true one."""
        return reliability(self.scores, self.settings)

    def summary(self) -> dict[str, Any]:
        """Everything but the single scores, JSON-ready."""
        return {
            "version": __version__,
            "model": dict(self.model),
            "settings": asdict(self.settings),
            "table": [asdict(row) for row in self.table()],
            "drift": [
                {**asdict(own), "lost_at": own.lost_at, "mean_thickness_error_mm": own.mean_thickness_error_mm}
                for own in self.drifts()
            ],
            "reliability": [asdict(own) for own in self.reliability()],
            "failures": [
                {"case": own.case, "frame": own.frame, "object": own.object, "method": own.method, "why": own.failure}
                for own in self.scores
                if own.failure
            ],
            "left": self.left,
            "not_scored": [{"case": case, "why": why} for case, why in self.not_scored],
            "note": "Research use only: not a medical device.",
        }


def select_cases(data: str | os.PathLike[str], part: str) -> tuple[Case, ...]:
    """The cases of a part of a manifest, or of a folder with a ``splits.json``; all of them for "all".

    Raises
    ------
    ReadError
        If it cannot be read, or holds no case of that part.
    """
    manifest = open_manifest(data)
    cases = manifest.cases if part == ALL else manifest.part(part)
    if not cases:
        raise ReadError(
            f"The part {part!r} of {Path(data).name} holds no case",
            f"there are {len(manifest.cases):,} in all",
            "Choose another part, or 'all'",
        )
    return cases


def evaluate(
    cases: Sequence[Case],
    settings: EvaluationSettings,
    model: Any = None,
    others: Iterable[OtherTool] = (),
    on_case: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score a model, other tools, or both, on the same cases; the ellipse in the same box always stands beside them.

    Parameters
    ----------
    cases : sequence of Case
    settings : EvaluationSettings
        ``image_size`` is for `model.load.model_at`: the model is used as it is.
    model : Model, optional
    others : iterable of OtherTool
    on_case : callable, optional
        Is told the name of each case when it is done.

    Raises
    ------
    ReadError
        If not one case could be scored.
    """
    scoring = Scoring(settings, model, others)
    for case in cases:
        scoring.add(case)
        if on_case is not None:
            on_case(case.name)
    return scoring.evaluation()


class Scoring:
    """An evaluation in the making, a case at a time, so that one that is stopped keeps what is finished.

    Parameters
    ----------
    settings, model, others
        As `evaluate` takes them.

    Attributes
    ----------
    done : int
        Cases that are finished, be they scored or not.
    """

    def __init__(self, settings: EvaluationSettings, model: Any = None, others: Iterable[OtherTool] = ()) -> None:
        self.done = 0
        self._settings, self._model, self._others = settings, model, list(others)
        self._gallery = Gallery(settings.pictures)
        self._scores: list[Score] = []
        self._not_scored: list[tuple[str, str]] = []

    def add(self, case: Case) -> None:
        """Score a case; what is stopped in the middle of one leaves no score of it."""
        scores: list[Score] = []
        try:
            labelled = LabelledCase(case, self._settings.every, self._settings.canvas)
            _ = labelled.starts  # reads all of it
        except ReadError as error:
            self._not_scored.append((case.name, _without_folders(str(error), case)))
        else:
            for answer in _answers(case, labelled, self._settings, self._model, self._others):
                found = list(scores_of(labelled, answer, self._settings))
                self._gallery.offer(labelled, answer, found[-1], self._settings.jitter)
                scores += found
        self._scores += scores
        self.done += 1

    def evaluation(self, left: int = 0) -> Evaluation:
        """What came out of the cases that are finished; ``left`` are those that never will be.

        Raises
        ------
        ReadError
            If not one case could be scored.
        """
        if not self._scores:
            what, why = self._not_scored[0] if self._not_scored else ("", "no case has anything to score")
            raise ReadError("Nothing could be scored", f"{what}: {why}" if what else why, "Check the manifest")
        model, facts = self._model, {}
        if model is not None:
            facts = {"name": model.name, "sha256": model.sha256, "image_size": model.image_size}
        pictures = self._gallery.pictures()
        return Evaluation(self._settings, facts, tuple(self._scores), tuple(self._not_scored), pictures, left)


def write_evaluation(evaluation: Evaluation, folder: str | os.PathLike[str]) -> list[Path]:
    """Write ``scores.csv``, ``summary.json`` and ``report.html``, each whole or not at all; returns their paths.

    The summary is also the record of what was written (`core.own_files`).

    Raises
    ------
    WriteError
    """
    scores, summary, report = paths = [Path(folder) / name for name in (SCORES, SUMMARY, REPORT)]
    about = json_ready(evaluation.summary())
    with recorded(summary, about, scores):
        write_csv(scores, evaluation.scores)
    with recorded(summary, about, report), atomic_path(report) as temporary:
        temporary.write_text(report_html(evaluation), encoding="utf-8")
    return paths


def _answers(
    case: Case, labelled: LabelledCase, settings: EvaluationSettings, model: Any, others: Sequence[OtherTool]
) -> Iterator[FrameAnswer]:
    if settings.stills:
        yield from still_answers(labelled, settings, model)
    if settings.tracking and model is not None and labelled.is_loop:
        yield from tracked_answers(labelled, settings, model)
        if settings.corrections:
            yield from tracked_answers(labelled, settings, model, corrected=True)
    for tool in others:
        yield from tool.answers(case, labelled)


def _without_folders(text: str, case: Case) -> str:
    """An error's words without the folders of this machine."""
    for path in (case.frames, *case.masks):
        text = text.replace(f"{path.parent}{os.sep}", "")
    return text
