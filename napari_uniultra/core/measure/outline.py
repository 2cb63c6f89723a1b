"""The outline of a mask as a polygon, and the chords across it.

All lengths are in the unit of ``spacing``: (row, column) size of a pixel in mm, or (1, 1) for pixels. Positions are
(x, y) from the upper left corner of the frame, measured at pixel edges, times that size.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from skimage.measure import find_contours

from napari_uniultra.core.types import PIXELS, Spacing

_SMOOTHING = (
    1.5  # pixels along the outline; evens out the stairs of pixels, which would make every slanted outline too long
)


def outline_of(mask: np.ndarray, spacing: Spacing = PIXELS) -> np.ndarray:
    """The outline of a mask's largest piece, without its holes, through the middles of its outer pixel edges.

    Parameters
    ----------
    mask : ndarray
        (H, W) bool.
    spacing : (float, float)
        (row, column).

    Returns
    -------
    ndarray
        (N, 2) float (x, y), the first point repeated as the last; (0, 2) for an empty mask.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.empty((0, 2))
    top, left = rows[0], columns[0]
    piece = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(float)
    largest = max(find_contours(piece, 0.5), key=polygon_area)
    return (largest[:, ::-1] + (left - 0.5, top - 0.5)) * (spacing[1], spacing[0])


def polygon_area(points: np.ndarray) -> float:
    """The area inside a closed polygon (N, 2)."""
    x, y = (points - points[0]).T
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2


def perimeter_of(outline: np.ndarray, spacing: Spacing = PIXELS) -> float:
    """The length of an outline, after its stairs were evened out.

    The low-pass filter is 2G - G^2 with a Gaussian G: unlike G alone it does not shrink small outlines.
    """
    if len(outline) < 2:
        return 0.0
    points = _evenly_spaced(outline, max(spacing))
    once = _blurred(points)
    smooth = 2 * once - _blurred(once)
    return float(np.linalg.norm(smooth - np.roll(smooth, 1, axis=0), axis=1).sum())


def _evenly_spaced(outline: np.ndarray, step: float) -> np.ndarray:
    """Points (N, 2) along a closed outline, about ``step`` apart; the end is not repeated."""
    reached = np.concatenate([[0.0], np.linalg.norm(np.diff(outline, axis=0), axis=1).cumsum()])
    wanted = np.linspace(0, reached[-1], max(8, round(reached[-1] / step)), endpoint=False)
    return np.column_stack([np.interp(wanted, reached, values) for values in outline.T])


def _blurred(points: np.ndarray) -> np.ndarray:
    return gaussian_filter1d(points, _SMOOTHING, axis=0, mode="wrap")


def principal_axis(outline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centroid (2,) of the area inside an outline, and the unit vector (2,) along which it extends most."""
    x, y = (outline - outline[0]).T
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    area = cross.sum() / 2
    pairs = ((x[:-1], x[1:]), (y[:-1], y[1:]))
    centroid = np.array([(cross * (a + b)).sum() for a, b in pairs]) / (6 * area)
    second = [(cross * (a * a + a * b + b * b)).sum() / 12 for a, b in pairs]
    (x0, x1), (y0, y1) = pairs
    mixed = (cross * (x0 * y1 + 2 * x0 * y0 + 2 * x1 * y1 + x1 * y0)).sum() / 24
    covariance = np.array([[second[0], mixed], [mixed, second[1]]]) / area - np.outer(centroid, centroid)
    _, vectors = np.linalg.eigh(covariance)
    return centroid + outline[0], vectors[:, -1]


def along_and_across(points: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Points (N, 2) as (along, across) a line through ``origin`` with the unit vector ``direction``."""
    moved = points - origin
    return np.column_stack([moved @ direction, moved @ (-direction[1], direction[0])])


def chords(outline: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the lines "first coordinate = position" run inside a closed polygon.

    Parameters
    ----------
    outline : ndarray
        (N, 2), as `along_and_across` gives it.
    positions : ndarray
        (P,) ascending.

    Returns
    -------
    index : ndarray
        (K,) int, which position each chord belongs to; a line may have several chords, or none.
    ends : ndarray
        (K, 2) second coordinate of each chord's ends, ascending.
    """
    (u0, v0), (u1, v1) = outline[:-1].T, outline[1:].T
    crossed = (u0 <= positions[:, None]) != (u1 <= positions[:, None])
    index, edge = np.nonzero(crossed)
    share = (positions[index] - u0[edge]) / (u1[edge] - u0[edge])
    across = v0[edge] + share * (v1[edge] - v0[edge])
    order = np.lexsort((across, index))  # a closed outline is crossed an even number of times: in, out, in, out
    return index[order][::2], across[order].reshape(-1, 2)


def longest_chords(outline: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(P, 2) ends of the longest chord at each position, NaN where there is none."""
    index, ends = chords(outline, positions)
    result = np.full((len(positions), 2), np.nan)
    by_length = np.argsort(ends[:, 1] - ends[:, 0], kind="stable")  # of several, the longest is written last
    result[index[by_length]] = ends[by_length]
    return result
