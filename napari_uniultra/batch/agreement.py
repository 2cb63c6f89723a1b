"""How well results agree with reference masks: Dice, HD95, and areas side by side (Bland and Altman)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_uniultra.core.counterparts import pair_objects
from napari_uniultra.core.masks import Masks
from napari_uniultra.core.metrics import dice, hausdorff95
from napari_uniultra.core.types import PIXELS
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.masks import read_masks

COLUMNS = ("loop", "frame", "object_id", "object", "dice", "hd95", "length_unit", "area", "reference_area", "area_unit")


@dataclass(frozen=True)
class Agreement:
    """One object on one frame, against its reference.

    Attributes
    ----------
    dice : float
    hd95 : float
        In mm, or px where ``in_mm`` is false; infinite when one of the two is empty.
    area, reference_area : float
        In mm2, or px.
    """

    frame: int
    object_id: int
    name: str
    dice: float
    hd95: float
    area: float
    reference_area: float
    in_mm: bool

    def cells(self, loop: str) -> list[str]:
        """As a line of a table with the columns `COLUMNS`."""
        units = ("mm", "mm2") if self.in_mm else ("px", "px")
        numbers = (
            [f"{value:.4f}" for value in (self.dice, self.hd95)],
            [f"{value:.4f}" for value in (self.area, self.reference_area)],
        )
        return [loop, str(self.frame), str(self.object_id), self.name, *numbers[0], units[0], *numbers[1], units[1]]


def compare(masks: Masks, reference: Path, frames: str = "annotated") -> list[Agreement]:
    """Compare a loop's masks with those in a file, object by object.

    Objects belong together as `pair_objects` says.

    Parameters
    ----------
    frames : {"annotated", "all"}
        Frames on which the reference shows something, or all.

    Raises
    ------
    ReadError
        When the reference cannot be read, does not fit, or has none of the objects.
    """
    truth = read_masks(reference, len(masks))
    if truth.labels.shape != masks.labels.shape:
        raise ReadError(
            "The reference masks do not fit the loop", f"they are {truth.labels.shape}, it is {masks.labels.shape}"
        )
    pairs = pair_objects(masks, truth)
    if not pairs:
        theirs, own = (", ".join(map(each.name, each.ids)) or "nothing" for each in (truth, masks))
        why, fix = f"it has {theirs}, the loop has {own}", "Give what is the same the same names, or none"
        raise ReadError("The reference has none of the loop's objects", why, fix)
    chosen = range(len(masks)) if frames == "all" else [n for n, labels in enumerate(truth.labels) if labels.any()]
    spacing = masks.spacing_mm or PIXELS
    pixel = spacing[0] * spacing[1]
    found = []
    for frame in chosen:
        for own, theirs in pairs:
            mine, other = masks.labels[frame] == own, truth.labels[frame] == theirs
            distance = hausdorff95(mine, other, spacing)
            areas = np.count_nonzero(mine) * pixel, np.count_nonzero(other) * pixel
            overlap = dice(mine, other)
            entry = Agreement(frame, own, masks.name(own), overlap, distance, *areas, masks.spacing_mm is not None)
            found.append(entry)
    return found


@dataclass(frozen=True)
class BlandAltman:
    """Differences of two ways to measure (Bland and Altman, 1986).

    Attributes
    ----------
    bias : float
        Mean of own - reference.
    low, high : float
        bias -+ 1.96 standard deviations (n - 1): the limits of agreement.
    """

    count: int
    bias: float
    low: float
    high: float


def bland_altman(own: Iterable[float], reference: Iterable[float]) -> BlandAltman:
    """The bias and the limits of agreement; with fewer than two pairs the limits are NaN."""
    differences = np.asarray(list(own), float) - np.asarray(list(reference), float)
    count = len(differences)
    bias = float(differences.mean()) if count else math.nan
    spread = 1.96 * float(differences.std(ddof=1)) if count > 1 else math.nan
    return BlandAltman(count, bias, bias - spread, bias + spread)
