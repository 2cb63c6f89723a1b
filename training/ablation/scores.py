"""Scores of a model on the data sets of a table, with the paper's conventions, kept beside the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from napari_uniultra import __version__
from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.errors import ReadError
from napari_uniultra.model.loaded import Model
from napari_uniultra.training.ablation.plan import Asked
from napari_uniultra.training.ablation.presets import DataSet, read_data_sets
from napari_uniultra.training.ablation.quick import QUICK_SIZE
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.evaluation.others import OtherTool
from napari_uniultra.training.evaluation.run import ALL, Evaluation, evaluate
from napari_uniultra.training.evaluation.scores import Score
from napari_uniultra.training.evaluation.settings import EvaluationSettings
from napari_uniultra.training.evaluation.stills import ELLIPSE
from napari_uniultra.training.evaluation.summary import Row, table

SetScores = dict[str, dict[str, float]]  # data set -> metric -> mean over its images
_OF_ROW = {"dice": ("dice", 100.0), "iou": ("iou", 100.0), "hd": ("hd_px", 1.0)}


def score_settings(asked: Asked, prompt: str = "box") -> EvaluationSettings:
    """How tables are scored: at 1024 px, smooth 1, infinite distances dropped; a quick run at its own small size."""
    settings = EvaluationSettings(part=asked.part, prompts=(prompt,), pictures=0).as_paper()
    return replace(settings, canvas=QUICK_SIZE) if asked.is_quick else settings


def chosen_sets(names: Sequence[str], asked: Asked) -> dict[str, list[Case]]:
    """The cases to score by data set: the paper's ones that the data have, or else every source that they have.

    Raises
    ------
    ReadError
        When the part holds no case.
    """
    known = read_data_sets()
    named = {name: _cases_of(known[name], asked) for name in names}
    found = {name: own for name, own in named.items() if own}
    if found:
        return found
    cases = _of_part(asked.manifest.cases, asked.part)
    if not cases:
        raise ReadError(
            f"The part {asked.part!r} of the data holds no case",
            f"there are {len(asked.manifest.cases)} in all",
            "Choose another --part, or divide the data with 'uniultra data split'",
        )
    return {source: [c for c in cases if _source(c) == source] for source in sorted({_source(c) for c in cases})}


def score_model(model: Model, sets: Mapping[str, Sequence[Case]], settings: EvaluationSettings) -> SetScores:
    """Means over images by data set: Dice and mIoU in %, HD in px, and in numbers what entered them.

    ``images`` were scored, ``failed`` of them without a mask; ``left_out`` could not be read and are in no mean.
    """
    return _means(sets, settings, evaluate(_all(sets), settings, model))


def score_masks(folder: str | Path, sets: Mapping[str, Sequence[Case]], settings: EvaluationSettings) -> SetScores:
    """The same of masks that another tool wrote."""
    return _means(sets, settings, evaluate(_all(sets), settings, others=[OtherTool(folder)]))


def kept(folder: Path, sets: Mapping[str, Sequence[Case]], settings: EvaluationSettings) -> Path:
    """The file that keeps the scores of these settings and cases."""
    cases = {name: [repr(case) for case in own] for name, own in sets.items()}
    parts = json.dumps([__version__, asdict(settings), cases], sort_keys=True)
    return folder / f"scores-{hashlib.sha256(parts.encode()).hexdigest()[:12]}.json"


def read_scores(path: Path) -> SetScores | None:
    """What `write_kept` wrote, or None."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_kept(path: Path, values: Any) -> None:
    """Keep scores, or what was measured.

    Raises
    ------
    WriteError
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")


def _source(case: Case) -> str:
    return case.source or "data"


def _cases_of(data_set: DataSet, asked: Asked) -> list[Case]:
    """Of the part, or of all parts for a data set on which nothing is trained."""
    cases = [case for case in asked.manifest.cases if case.source == data_set.source]
    return cases if data_set.external else _of_part(cases, asked.part)


def _of_part(cases: Iterable[Case], part: str) -> list[Case]:
    return [case for case in cases if part in (ALL, case.part)]


def _all(sets: Mapping[str, Sequence[Case]]) -> list[Case]:
    """Every case once."""
    return list({case.name: case for own in sets.values() for case in own}.values())


def _means(sets: Mapping[str, Sequence[Case]], settings: EvaluationSettings, evaluation: Evaluation) -> SetScores:
    asked = [score for score in evaluation.scores if score.method != ELLIPSE]
    damaged = {case for case, _ in evaluation.not_scored}
    means = {}
    for name, cases in sets.items():
        own, left_out = _own(asked, name), sum(case.name in damaged for case in cases)
        if own or left_out:
            counts = _of_row(table(own, settings)[0]) if own else {"images": 0, "failed": 0}
            means[name] = {**counts, "left_out": left_out}
    return means


def _own(scores: Sequence[Score], name: str) -> list[Score]:
    """The scores of whole images of a data set, or of one of its structures."""
    known = read_data_sets().get(name, DataSet(name))
    own = [score for score in scores if score.data_set == known.source]
    return [score for score in own if (score.is_image if known.object is None else score.object == known.object)]


def _of_row(row: Row) -> dict[str, float]:
    means = {ours: row.metrics[name].mean * factor for ours, (name, factor) in _OF_ROW.items() if name in row.metrics}
    return {**means, "images": row.scored, "failed": sum(row.failures.values())}
