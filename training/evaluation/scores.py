"""Scores of answers against the truth, one for each object and one for each image as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from napari_uniultra.core.metrics import boundary_distances, dice, iou
from napari_uniultra.core.types import PIXELS, Prompt
from napari_uniultra.training.evaluation.answers import EMPTY, IMAGE, FrameAnswer
from napari_uniultra.training.evaluation.cases import LabelledCase, union
from napari_uniultra.training.evaluation.settings import EvaluationSettings

NAN = float("nan")
_LAYER_ASPECT = 2  # a layer is at least this many times as wide as it is thick


@dataclass(frozen=True)
class Score:
    """One object on one frame, or all of a frame's objects together.

    What does not apply is NaN: millimetres where the spacing is unknown, a predicted IoU that nobody predicted. A
    failed case has Dice, IoU and NSD of 0 and infinite distances.

    Attributes
    ----------
    data_set, case, group : str
    frame : int
        Its number in the file.
    object : str
        Its name, or "image" for all objects together.
    method, prompt : str
        As in `FrameAnswer`.
    jitter : float
        Of the box, in px at 1024.
    since_prompt : int or None
        Frames since the last prompt, of whichever object; None for a single frame.
    dice, iou : float
        0 to 1.
    hd_px, hd95_px, hd_mm, hd95_mm : float
    nsd_px, nsd_mm : float
        0 to 1, at the tolerances of the settings.
    diagonal_px, diagonal_mm : float
        Of the image: the largest distance there can be.
    thickness_error_mm : float
        Of a layer that lies across the image of a loop.
    predicted_iou : float
        0 to 1
    failure : str
        Why there is no mask, or "".
    drawn : Prompt or None
    """

    data_set: str
    case: str
    group: str
    frame: int
    object: str
    method: str
    prompt: str
    jitter: float
    since_prompt: int | None
    dice: float
    iou: float
    hd_px: float
    hd95_px: float
    nsd_px: float
    hd_mm: float = NAN
    hd95_mm: float = NAN
    nsd_mm: float = NAN
    diagonal_px: float = NAN
    diagonal_mm: float = NAN
    thickness_error_mm: float = NAN
    predicted_iou: float = NAN
    failure: str = ""
    drawn: Prompt | None = None

    @property
    def is_image(self) -> bool:
        """Whether it is of all objects together."""
        return self.object == IMAGE


def scores_of(case: LabelledCase, answer: FrameAnswer, settings: EvaluationSettings) -> Iterator[Score]:
    """A score for every object that was asked for, then one for all of them together."""
    truth = case.truth(answer.index)
    shape = case.cine.shape_hw
    names = [name for name in (*answer.masks, *answer.failures) if name != IMAGE]
    for name in names:
        target = truth.get(name, np.zeros(shape, bool))
        yield _score(case, answer, settings, name, answer.masks.get(name), target)
    together = answer.masks.get(IMAGE)
    is_failed = IMAGE in answer.failures or (names and all(name in answer.failures for name in names))
    if together is None and not is_failed:
        together = union((answer.masks[name] for name in names if name in answer.masks), shape)
    targets = [mask for name, mask in truth.items() if name in names or not names]
    yield _score(case, answer, settings, IMAGE, together, union(targets, shape))


def _score(
    case: LabelledCase,
    answer: FrameAnswer,
    settings: EvaluationSettings,
    name: str,
    mask: np.ndarray | None,
    truth: np.ndarray,
) -> Score:
    spacing = case.spacing_mm
    height, width = truth.shape
    common = {
        "data_set": case.source,
        "case": case.name,
        "group": case.group,
        "frame": case.numbers[answer.index],
        "object": name,
        "method": answer.method,
        "prompt": answer.prompt,
        "jitter": answer.jitter,
        "since_prompt": answer.since_prompt,
        "diagonal_px": math.hypot(height, width),
        "diagonal_mm": NAN if spacing is None else math.hypot(height * spacing[0], width * spacing[1]),
        "predicted_iou": answer.predicted_iou.get(name, NAN),
        "drawn": answer.drawn.get(name),
    }
    if mask is None:
        why = answer.failures.get(name) or next(iter(answer.failures.values()), "")
        return Score(**common, failure=why, **_worst(case, truth, is_loop=answer.since_prompt is not None))
    measured = _measured(mask, truth, spacing, settings)
    if spacing is not None and answer.since_prompt is not None and is_layer(truth):
        measured["thickness_error_mm"] = abs(thickness(mask) - thickness(truth)) * spacing[0]
    return Score(**common, failure=EMPTY if truth.any() and not mask.any() else "", **measured)


def _measured(
    mask: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] | None, settings: EvaluationSettings
) -> dict[str, float]:
    near = boundary_distances(mask, truth, PIXELS)
    measured = {
        "dice": dice(mask, truth, settings.smooth),
        "iou": iou(mask, truth, settings.smooth),
        "hd_px": near.percentile(100),
        "hd95_px": near.percentile(95),
        "nsd_px": near.within(settings.tolerance_px),
    }
    if spacing is not None:
        near = boundary_distances(mask, truth, spacing)
        measured["hd_mm"] = near.percentile(100)
        measured["hd95_mm"] = near.percentile(95)
        measured["nsd_mm"] = near.within(settings.tolerance_mm)
    return measured


def _worst(case: LabelledCase, truth: np.ndarray, *, is_loop: bool) -> dict[str, float]:
    """What a case without a mask scores."""
    worst = {"dice": 0.0, "iou": 0.0, "nsd_px": 0.0, "hd_px": math.inf, "hd95_px": math.inf}
    if case.spacing_mm is not None:
        worst |= {"nsd_mm": 0.0, "hd_mm": math.inf, "hd95_mm": math.inf}
        if is_loop and is_layer(truth):
            worst["thickness_error_mm"] = thickness(truth) * case.spacing_mm[0]
    return worst


def thickness(mask: np.ndarray) -> float:
    """Median height in pixels of a layer (H, W) bool over the middle half of the image; 0 without any."""
    return float(np.median(_middle(mask).sum(axis=0)))


def is_layer(mask: np.ndarray) -> bool:
    """Whether a mask (H, W) bool lies across the image as a muscle does.

    It does when it is in every column of the middle half and at least twice as wide as it is thick.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    if not columns.size or not _middle(mask).any(axis=0).all():
        return False
    return bool(columns[-1] - columns[0] + 1 >= _LAYER_ASPECT * thickness(mask))


def _middle(mask: np.ndarray) -> np.ndarray:
    width = mask.shape[1]
    return mask[:, width // 4 : width - width // 4]
