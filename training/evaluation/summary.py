"""Means with their spread and intervals, drift over time, and how far predicted IoUs can be trusted.

A failed case stays in every mean: Dice, IoU and NSD enter as 0 and an infinite distance as the image's diagonal, unless
the settings leave infinite distances out, as the paper's released code does; their number is given then.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_uniultra.training.evaluation.prompts import generator
from napari_uniultra.training.evaluation.scores import NAN, Score
from napari_uniultra.training.evaluation.settings import EvaluationSettings
from napari_uniultra.training.evaluation.stills import ELLIPSE

METRICS = ("dice", "iou", "hd_px", "hd95_px", "nsd_px", "hd_mm", "hd95_mm", "nsd_mm", "thickness_error_mm")
_DIAGONALS = {"hd_px": "diagonal_px", "hd95_px": "diagonal_px", "hd_mm": "diagonal_mm", "hd95_mm": "diagonal_mm"}
_LOST = 0.5  # Dice below which a structure counts as lost
_BINS = 10
_INTERVAL = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Statistic:
    """Of one metric over the scores of a row; None where there is too little for it.

    Attributes
    ----------
    count : int
        Scores that entered.
    mean : float
    sd : float or None
        Sample standard deviation, from two scores on.
    low, high : float or None
        95 % bootstrap interval of the mean, resampling subjects (cases, where subjects are unknown), from two on.
    dropped : int
        Infinite distances that were left out.
    """

    count: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    dropped: int = 0


@dataclass(frozen=True)
class Row:
    """All scores of one data set, kind of prompt and method, by object or by image.

    Attributes
    ----------
    data_set, prompt, method : str
    by : {"object", "image"}
    jitter : float or None
        px at 1024
    scored, groups : int
        Scores, and the subjects or cases that they come from.
    failures : mapping of str to int
        How many for each reason.
    metrics : mapping of str to Statistic
        Those of `METRICS` that apply.
    over_ellipse : Statistic or None
        Dice minus that of the ellipse in the same box, pair by pair.
    """

    data_set: str
    prompt: str
    method: str
    by: str
    jitter: float | None
    scored: int
    groups: int
    failures: Mapping[str, int]
    metrics: Mapping[str, Statistic]
    over_ellipse: Statistic | None = None


@dataclass(frozen=True)
class Drift:
    """One tracked object over time.

    Attributes
    ----------
    data_set, case, object, method, prompt : str
    frames : tuple of int
        Scored frames, counted from where its tracking began; for other tools from the first annotated one.
    dice, predicted_iou, thickness_error_mm : tuple of float
        By frame; the thickness of layers only, else NaN.
    """

    data_set: str
    case: str
    object: str
    method: str
    prompt: str
    frames: tuple[int, ...]
    dice: tuple[float, ...]
    predicted_iou: tuple[float, ...]
    thickness_error_mm: tuple[float, ...]

    @property
    def mean_thickness_error_mm(self) -> float:
        """Over the frames that have one; NaN without any."""
        known = [error for error in self.thickness_error_mm if not math.isnan(error)]
        return float(np.mean(known)) if known else NAN

    @property
    def lost_at(self) -> int | None:
        """The first frame with a Dice below 0.5, or None."""
        return next((frame for frame, dice in zip(self.frames, self.dice, strict=True) if dice < _LOST), None)


@dataclass(frozen=True)
class Reliability:
    """Predicted IoU against the true one.

    Attributes
    ----------
    data_set, prompt : str
    count : int
    mean_absolute_error : float
    bias : float
        Mean of predicted minus true: above 0 the model is too sure.
    bins : tuple of (low, high, count, mean predicted, mean true)
        Tenths of the predicted IoU; those without any are left out.
    """

    data_set: str
    prompt: str
    count: int
    mean_absolute_error: float
    bias: float
    bins: tuple[tuple[float, float, int, float, float], ...]


def table(scores: Iterable[Score], settings: EvaluationSettings) -> list[Row]:
    """One row for each data set, prompt, jitter, method, and by object and by image, in the order of appearance."""
    rows: dict[tuple, list[Score]] = defaultdict(list)
    for score in scores:
        jitter = None if math.isnan(score.jitter) else score.jitter
        by = "image" if score.is_image else "object"
        rows[by, score.data_set, score.prompt, jitter, score.method].append(score)
    ellipses = {_pair(score): score.dice for own in rows.values() for score in own if score.method == ELLIPSE}
    result = [_row(key, own, ellipses, settings) for key, own in rows.items()]
    order = list(dict.fromkeys((row.data_set, row.prompt) for row in result))
    return sorted(
        result, key=lambda row: (row.by != "object", order.index((row.data_set, row.prompt)), row.jitter or 0)
    )


def statistic(values: Sequence[float], groups: Sequence[str], settings: EvaluationSettings) -> Statistic:
    """Mean, spread and interval of values, of which those of one group are resampled together."""
    data = np.asarray(values, dtype=float)
    infinite = np.isinf(data)
    names = np.asarray(groups)[~infinite]
    data = data[~infinite]
    if not data.size:
        return Statistic(0, NAN, None, None, None, int(infinite.sum()))
    sd = float(data.std(ddof=1)) if data.size > 1 else None
    low, high = _interval(data, names, settings)
    return Statistic(data.size, float(data.mean()), sd, low, high, int(infinite.sum()))


def drifts(scores: Iterable[Score]) -> list[Drift]:
    """Every tracked object of every loop."""
    found: dict[tuple, list[Score]] = defaultdict(list)
    for score in scores:
        if score.since_prompt is not None and not score.is_image:
            found[score.data_set, score.case, score.object, score.method, score.prompt].append(score)
    result = []
    for key, own in found.items():
        own = sorted(own, key=lambda score: score.frame)
        first = min(score.frame - score.since_prompt for score in own)
        result.append(
            Drift(
                *key,
                frames=tuple(score.frame - first for score in own),
                dice=tuple(score.dice for score in own),
                predicted_iou=tuple(score.predicted_iou for score in own),
                thickness_error_mm=tuple(score.thickness_error_mm for score in own),
            )
        )
    return result


def reliability(scores: Iterable[Score], settings: EvaluationSettings) -> list[Reliability]:
    """Of every data set and kind of prompt for which something predicted its IoU, and of all data sets together.

    Of a jitter sweep the settings' own jitter counts.
    """
    found: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        is_usual = math.isnan(score.jitter) or score.jitter == settings.jitter
        if is_usual and not math.isnan(score.predicted_iou):
            found[score.data_set, score.prompt].append(score)
    prompts = list(dict.fromkeys(prompt for _, prompt in found))
    for prompt in prompts:
        together = [score for (_, kind), own in found.items() if kind == prompt for score in own]
        found["all", prompt] = together
    return [_reliability(*key, own) for key, own in found.items()]


def _row(key: tuple, own: list[Score], ellipses: Mapping[tuple, float], settings: EvaluationSettings) -> Row:
    by, data_set, prompt, jitter, method = key
    failures: dict[str, int] = defaultdict(int)
    for score in own:
        if score.failure:
            failures[score.failure] += 1
    groups = [score.group for score in own]
    metrics = {}
    for name in METRICS:
        applies = [score for score in own if not math.isnan(getattr(score, name))]
        if applies:
            values = [_entering(score, name, settings) for score in applies]
            metrics[name] = statistic(values, [score.group for score in applies], settings)
    pairs = [(score, ellipses.get(_pair(score))) for score in own if method != ELLIPSE and jitter is not None]
    gains = [(score.dice - ellipse, score.group) for score, ellipse in pairs if ellipse is not None]
    over = statistic(*zip(*gains, strict=True), settings) if gains else None
    return Row(data_set, prompt, method, by, jitter, len(own), len(set(groups)), dict(failures), metrics, over)


def _entering(score: Score, name: str, settings: EvaluationSettings) -> float:
    """The value with which a score enters a mean."""
    value = getattr(score, name)
    if math.isinf(value) and not settings.drop_infinite:
        return getattr(score, _DIAGONALS[name])
    return value


def _pair(score: Score) -> tuple:
    """What a model's score and the ellipse's share."""
    return score.data_set, score.case, score.frame, score.object, score.prompt, score.jitter


def _interval(data: np.ndarray, names: np.ndarray, settings: EvaluationSettings) -> tuple[float | None, float | None]:
    unique, member = np.unique(names, return_inverse=True)  # sorted: the order of the cases does not matter
    if len(unique) < 2:
        return None, None
    sums, counts = np.bincount(member, data), np.bincount(member)
    rng = generator(settings.seed, "bootstrap")
    chosen = rng.integers(len(unique), size=(settings.resamples, len(unique)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.percentile(means, _INTERVAL)
    return float(low), float(high)


def _reliability(data_set: str, prompt: str, own: Sequence[Score]) -> Reliability:
    predicted = np.array([score.predicted_iou for score in own])
    true = np.array([score.iou for score in own])
    bins = []
    place = np.clip((predicted * _BINS).astype(int), 0, _BINS - 1)
    for index in range(_BINS):
        inside = place == index
        if inside.any():
            means = float(predicted[inside].mean()), float(true[inside].mean())
            bins.append((index / _BINS, (index + 1) / _BINS, int(inside.sum()), *means))
    error = predicted - true
    return Reliability(data_set, prompt, len(own), float(np.abs(error).mean()), float(error.mean()), tuple(bins))
