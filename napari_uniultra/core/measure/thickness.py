"""Thickness: the distance between two boundaries, as of a muscle between its aponeuroses or of a vessel's wall."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_uniultra.core.measure.outline import (
    along_and_across,
    longest_chords,
    outline_of,
    principal_axis,
)
from napari_uniultra.core.types import PIXELS, Spacing

_PART = 0.8  # of the length is measured: the ends are round, or cut obliquely
_LINES = 101
_TURNS = 3  # the direction settles after two

_Sides = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Thickness:
    """Distances between two boundaries along them, in mm or pixels."""

    mean: float
    minimum: float
    maximum: float


def thickness_of(mask: np.ndarray, spacing: Spacing = PIXELS) -> Thickness | None:
    """The thickness of a mask (H, W) bool: the distance between its two long sides, over the middle 80 % of its length.

    It is measured at right angles to the line midway between the sides. None for an empty mask.
    """
    outline = outline_of(mask, spacing)
    return thickness_of_outline(outline) if len(outline) else None


def thickness_of_outline(outline: np.ndarray) -> Thickness | None:
    """As `thickness_of`, of a closed polygon (N, 2) of (x, y)."""
    return _between(lambda origin, direction: _sides(outline, origin, direction), *principal_axis(outline))


def thickness_between(first: np.ndarray, second: np.ndarray, spacing: Spacing = PIXELS) -> Thickness | None:
    """The distance between the facing boundaries of two masks (H, W) bool that lie along each other.

    Measured as in `thickness_of`, where both masks are met. None where one is empty, or nowhere beside the other.
    """
    outlines = outline_of(first, spacing), outline_of(second, spacing)
    if not all(map(len, outlines)):
        return None
    longer = max(outlines, key=lambda outline: np.ptp(outline, axis=0).max())
    origin, direction = principal_axis(longer)
    return _between(lambda origin, direction: _gap(*outlines, origin, direction), origin, direction)


def _between(sides: _Sides, origin: np.ndarray, direction: np.ndarray) -> Thickness | None:
    """Measure between two sides, turning ``direction`` until it runs along the line midway between them.

    ``sides`` gives, for an origin and a direction, positions (N,) along it and the two sides (N, 2) across it.
    """
    for _ in range(_TURNS):
        positions, across = sides(origin, direction)
        if len(positions) < 2:
            return None
        middle = across.mean(axis=1)
        slope = np.polyfit(positions, middle, 1)[0]
        turned = direction + slope * np.array([-direction[1], direction[0]])
        direction = turned / np.linalg.norm(turned)
    positions, across = sides(origin, direction)
    if len(positions) < 2:
        return None
    # Where the structure curves, its middle line is not perpendicular to the line measured along.
    slopes = np.gradient(np.polyval(np.polyfit(positions, across.mean(axis=1), 2), positions), positions)
    distances = (across[:, 1] - across[:, 0]) / np.hypot(1, slopes)
    return Thickness(float(distances.mean()), float(distances.min()), float(distances.max()))


def _sides(outline: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turned = along_and_across(outline, origin, direction)
    positions = _positions(turned[:, 0].min(), turned[:, 0].max())
    return _known(positions, longest_chords(turned, positions))


def _gap(
    first: np.ndarray, second: np.ndarray, origin: np.ndarray, direction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    turned = [along_and_across(outline, origin, direction) for outline in (first, second)]
    low, high = max(t[:, 0].min() for t in turned), min(t[:, 0].max() for t in turned)
    if low >= high:
        return np.empty(0), np.empty((0, 2))
    positions = _positions(low, high)
    ends = [longest_chords(t, positions) for t in turned]
    if np.nanmean(ends[0]) > np.nanmean(ends[1]):
        ends.reverse()
    return _known(positions, np.column_stack([ends[0][:, 1], ends[1][:, 0]]))


def _positions(low: float, high: float) -> np.ndarray:
    margin = (1 - _PART) / 2 * (high - low)
    return np.linspace(low + margin, high - margin, _LINES)


def _known(positions: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(across).all(axis=1)
    return positions[known], across[known]
