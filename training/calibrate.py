"""Turns a network's own estimates of its masks' IoU into the IoU to expect, from the scores of an evaluation.

The scores must not come from the cases that are reported on: evaluate the ``train`` part, or any other data.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import isotonic_regression

from napari_uniultra.errors import ReadError
from napari_uniultra.model.config import Curve

_POINTS = 8  # of a curve; each stands for as many scores
_LEAST = 5  # scores that a point stands for


@dataclass(frozen=True)
class Calibration:
    """Curves for `ModelConfig.prompted_iou` and `ModelConfig.tracked_iou`; empty where there were too few scores."""

    prompted: Curve
    tracked: Curve


def calibrate(scores: str | Path) -> Calibration:
    """Fit both curves to the ``scores.csv`` of an evaluation of a model that is not calibrated yet.

    Raises
    ------
    ReadError
        If it cannot be read, or holds no predicted IoU.
    """
    try:
        with open(scores, encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["predicted_iou"] and not row["failure"]]
            pairs = [
                (float(row["predicted_iou"]), float(row["iou"]), int(row["since_prompt"] or 0) > 0) for row in rows
            ]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError) as error:
        raise ReadError(
            f"The scores {scores} cannot be read", str(error), "Name a scores.csv of an evaluation"
        ) from error
    if not pairs:
        raise ReadError(f"{scores} holds no predicted IoU", fix="Evaluate a model, not only other tools' masks")
    return Calibration(
        *(_curve([(own, true) for own, true, is_tracked in pairs if is_tracked == asked]) for asked in (False, True))
    )


def _curve(pairs: list[tuple[float, float]]) -> Curve:
    """A rising curve through the mean estimate and the mean IoU of groups of equal size; () for too few of them."""
    count = min(_POINTS, len(pairs) // _LEAST)
    if count < 2:
        return ()
    groups = np.array_split(np.array(sorted(pairs)), count)
    means = np.array([group.mean(axis=0) for group in groups])
    estimates, place = np.unique(means[:, 0].round(4), return_inverse=True)  # equal ones are one point
    sizes = np.bincount(place, [len(group) for group in groups])
    true = np.bincount(place, [group[:, 1].sum() for group in groups]) / sizes
    if len(estimates) < 2:
        return ()
    rising = isotonic_regression(true, weights=sizes).x
    return tuple((float(x), round(float(y), 4)) for x, y in zip(estimates, rising, strict=True))
