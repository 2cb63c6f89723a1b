"""How well a mask agrees with the truth: Dice, IoU, Hausdorff distances, normalised surface Dice.

Masks are (H, W) bool of one size. The boundary of a mask are its pixels that touch its outside, or the image's edge, by
a side; distances run between pixel centres, in the unit of ``spacing``: (row, column) in mm, or (1, 1) for pixels.

Empty masks: two empty ones agree (Dice, IoU and NSD 1, distances 0). When one of the two is empty, the overlap is 0,
NSD is 0 and the distances are infinite. Nothing is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_uniultra.core.types import PIXELS, Spacing
from napari_uniultra.errors import UniUltraError


def dice(predicted: np.ndarray, truth: np.ndarray, smooth: float = 0.0) -> float:
    """(2 I + smooth) / (P + T + smooth), 0 to 1: of the common pixels I and those of either mask.

    ``smooth=1`` is what the paper's released code computes.
    """
    common, first, second = _counts(predicted, truth)
    total = first + second + smooth
    return 1.0 if total == 0 else (2 * common + smooth) / total


def iou(predicted: np.ndarray, truth: np.ndarray, smooth: float = 0.0) -> float:
    """(I + smooth) / (U + smooth), 0 to 1: of the common pixels I and the pixels U of the union."""
    common, first, second = _counts(predicted, truth)
    union = first + second - common + smooth
    return 1.0 if union == 0 else (common + smooth) / union


def hausdorff(predicted: np.ndarray, truth: np.ndarray, spacing: Spacing = PIXELS) -> float:
    """The largest distance from a point of either boundary to the other one."""
    return boundary_distances(predicted, truth, spacing).percentile(100)


def hausdorff95(predicted: np.ndarray, truth: np.ndarray, spacing: Spacing = PIXELS) -> float:
    """As `hausdorff`, with the 95th percentile of each direction's distances in place of their maximum."""
    return boundary_distances(predicted, truth, spacing).percentile(95)


def nsd(predicted: np.ndarray, truth: np.ndarray, tolerance: float, spacing: Spacing = PIXELS) -> float:
    """The share of both boundaries' pixels that lie within ``tolerance`` of the other boundary, 0 to 1.

    Boundary pixels count equally, as in MONAI without subvoxels; DeepMind's variant weights them by length.
    """
    return boundary_distances(predicted, truth, spacing).within(tolerance)


@dataclass(frozen=True)
class BoundaryDistances:
    """Distances between two boundaries, from which all the boundary metrics follow.

    Attributes
    ----------
    to_truth : (N,) float
        From every pixel of the predicted boundary; infinite when there is no truth.
    to_predicted : (M,) float
        From every pixel of the true boundary; infinite when nothing was predicted.
    """

    to_truth: np.ndarray
    to_predicted: np.ndarray

    def percentile(self, percent: float) -> float:
        """The larger of both directions' percentiles: 100 is the Hausdorff distance, 95 is HD95."""
        both = [side for side in (self.to_truth, self.to_predicted) if side.size]
        if any(np.isinf(side).any() for side in both):  # an empty mask: all of them are
            return float("inf")
        return max((float(np.percentile(side, percent)) for side in both), default=0.0)

    def within(self, tolerance: float) -> float:
        """Normalised surface Dice, 0 to 1."""
        count = self.to_truth.size + self.to_predicted.size
        limit = tolerance * (1 + 1e-9)  # a distance of exactly the tolerance counts, however it was rounded
        near = np.count_nonzero(self.to_truth <= limit) + np.count_nonzero(self.to_predicted <= limit)
        return 1.0 if count == 0 else near / count


def boundary_distances(predicted: np.ndarray, truth: np.ndarray, spacing: Spacing = PIXELS) -> BoundaryDistances:
    """Distances between the boundaries of two masks (H, W) bool, in the unit of ``spacing`` (row, column).

    Raises
    ------
    UniUltraError
        If the masks differ in size.
    """
    from scipy.spatial import cKDTree

    _check(predicted, truth)
    points = [np.argwhere(boundary(mask)) * spacing for mask in (predicted, truth)]
    if not (len(points[0]) and len(points[1])):
        return BoundaryDistances(*(np.full(len(own), np.inf) for own in points))
    first, second = (cKDTree(own) for own in points)
    return BoundaryDistances(second.query(points[0])[0], first.query(points[1])[0])


def boundary(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask (H, W) bool that touch its outside, or the image's edge, by a side."""
    inside = np.pad(np.asarray(mask, dtype=bool), 1)
    surrounded = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return inside[1:-1, 1:-1] & ~surrounded


def _counts(predicted: np.ndarray, truth: np.ndarray) -> tuple[int, int, int]:
    _check(predicted, truth)
    first, second = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    return int(np.count_nonzero(first & second)), int(np.count_nonzero(first)), int(np.count_nonzero(second))


def _check(predicted: np.ndarray, truth: np.ndarray) -> None:
    if np.shape(predicted) != np.shape(truth):
        raise UniUltraError(
            f"Masks of the sizes {np.shape(predicted)} and {np.shape(truth)} cannot be compared",
            fix="Give both in the pixels of the image",
        )
