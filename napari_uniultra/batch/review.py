"""Which loops need a look: signs of trouble in a loop's measurements.

The rank is that of the strongest sign, not a calibrated probability; it is for the order in which a person looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_uniultra.core.measure import Measurement
from napari_uniultra.core.types import WEAK_IOU
from napari_uniultra.core.words import counted

_JUMP = 0.35  # of the larger area: less than this from frame to frame is common in a beating heart
_LOW_PERCENT = 5


@dataclass(frozen=True)
class Review:
    """What stands out in a loop.

    Attributes
    ----------
    rank : float
        0 to 1: the largest of 1 - ``lowest_confidence``, a jump of an area as a share of the larger one and, where an
        object is lost, 0.5 and half of the share of frames; 1 where nothing was found.
    confidence : float or None
        Mean predicted IoU, 0 to 1.
    lowest_confidence : float or None
        The predicted IoU that one frame in twenty falls below.
    signs : tuple of str
        In words.
    """

    rank: float
    confidence: float | None
    lowest_confidence: float | None
    signs: tuple[str, ...]


def review(rows: Sequence[Measurement]) -> Review:
    """Look through the measurements of one loop, which are in the order of frames."""
    ious = [row.predicted_iou for row in rows if row.predicted_iou is not None]
    mean = float(np.mean(ious)) if ious else None
    lowest = float(np.percentile(ious, _LOW_PERCENT)) if ious else None
    worst = 0.0 if lowest is None else max(0.0, 1 - lowest)
    signs = [f"confidence down to {lowest:.2f}"] if lowest is not None and lowest < WEAK_IOU else []
    for object_id in sorted({row.object_id for row in rows}):
        own = [row for row in rows if row.object_id == object_id]
        for strength, words in (_jump(own), _lost(own)):
            if words:
                worst = max(worst, strength)
                signs.append(f"{own[0].object_name}: {words}")
    if not rows:
        worst, signs = 1.0, ["nothing was found"]
    return Review(min(worst, 1.0), mean, lowest, tuple(signs))


def _jump(rows: Sequence[Measurement]) -> tuple[float, str]:
    areas = np.array([row.area for row in rows])
    if len(areas) < 2:
        return 0.0, ""
    largest = np.maximum(areas[1:], areas[:-1])
    changes = np.abs(np.diff(areas)) / np.where(largest > 0, largest, 1)
    at = int(changes.argmax())
    if changes[at] <= _JUMP:
        return 0.0, ""
    return float(changes[at]), f"its area changes by {changes[at]:.0%} at frame {rows[at + 1].frame}"


def _lost(rows: Sequence[Measurement]) -> tuple[float, str]:
    gone = sum(row.area == 0 for row in rows)
    share = gone / len(rows)
    return (0.5 + share / 2, f"absent on {gone:,} of {counted(len(rows), 'frame')}") if gone else (0.0, "")
