"""The size and shape of one mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull
from scipy.special import ellipe

from napari_uniultra.core.measure.outline import (
    along_and_across,
    longest_chords,
    outline_of,
    perimeter_of,
)
from napari_uniultra.core.measure.thickness import thickness_of_outline
from napari_uniultra.core.types import PIXELS, Spacing

_CHORDS = 256
_POINTS_OF_AN_ELLIPSE = 6  # five fix it; one more, or it says nothing about the mask


@dataclass(frozen=True)
class Ellipse:
    """An ellipse: centre (x, y), the longer and the shorter half axis, and the longer one's angle from x towards y."""

    centre: tuple[float, float]
    half_axes: tuple[float, float]
    angle_rad: float

    @property
    def circumference(self) -> float:
        """4 a E(e^2), with the complete elliptic integral of the second kind."""
        longer, shorter = self.half_axes
        return float(4 * longer * ellipe(1 - (shorter / longer) ** 2))


@dataclass(frozen=True)
class MaskShape:
    """Lengths of a mask's largest piece, in mm or in pixels as its spacing was; None where the mask has no such length.

    Attributes
    ----------
    perimeter : float
        Of the outer outline.
    longest_diameter : float
        The greatest distance between two points of the outline.
    perpendicular_diameter : float
        The longest line inside the mask at a right angle to the longest diameter.
    equivalent_diameter : float
        Of the disc with the whole mask's area.
    ellipse_circumference : float or None
        Of the ellipse fitted to the outline: the head circumference, for a fetal head.
    thickness : float or None
        Mean distance between the two long sides, see `thickness_of`.
    cut_by_border : bool
        Whether the mask reaches the edge of the image or of the scan area, so that it may go on beyond it.
    """

    perimeter: float
    longest_diameter: float
    perpendicular_diameter: float
    equivalent_diameter: float
    ellipse_circumference: float | None
    thickness: float | None
    cut_by_border: bool


def measure_shape(mask: np.ndarray, spacing: Spacing = PIXELS, sector: np.ndarray | None = None) -> MaskShape | None:
    """Measure a mask (H, W) bool; None for an empty one.

    Parameters
    ----------
    mask : ndarray
    spacing : (float, float)
        Size of a pixel in mm, (row, column); (1, 1) for lengths in pixels.
    sector : ndarray, optional
        (H, W) bool, the scan area.
    """
    outline = outline_of(mask, spacing)
    if not len(outline):
        return None
    start, end = longest_diameter(outline)
    ellipse = fit_ellipse(_inner_points(outline, mask.shape, spacing))
    thickness = thickness_of_outline(outline)
    return MaskShape(
        perimeter=perimeter_of(outline, spacing),
        longest_diameter=float(np.linalg.norm(end - start)),
        perpendicular_diameter=perpendicular_diameter(outline, start, end),
        equivalent_diameter=float(np.sqrt(4 / np.pi * np.count_nonzero(mask) * spacing[0] * spacing[1])),
        ellipse_circumference=None if ellipse is None else ellipse.circumference,
        thickness=None if thickness is None else thickness.mean,
        cut_by_border=cut_by_border(mask, sector),
    )


def longest_diameter(outline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two points (2,) of an outline (N, 2) that lie farthest apart."""
    hull = outline[ConvexHull(outline).vertices]
    distances = np.linalg.norm(hull[:, None] - hull[None], axis=2)
    first, second = np.unravel_index(distances.argmax(), distances.shape)
    return hull[first], hull[second]


def perpendicular_diameter(outline: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """The longest line inside an outline (N, 2) at a right angle to the one from ``start`` to ``end``."""
    length = float(np.linalg.norm(end - start))
    turned = along_and_across(outline, start, (end - start) / length)
    positions = (np.arange(_CHORDS) + 0.5) / _CHORDS * length
    ends = longest_chords(turned, positions)
    return float(np.nanmax(ends[:, 1] - ends[:, 0]))


def cut_by_border(mask: np.ndarray, sector: np.ndarray | None = None) -> bool:
    """Whether a mask (H, W) touches the edge of the image, or lies beside or beyond that of the scan area."""
    at_edge = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
    if at_edge or sector is None:
        return bool(at_edge)
    inside = sector[1:-1, 1:-1] & sector[:-2, 1:-1] & sector[2:, 1:-1] & sector[1:-1, :-2] & sector[1:-1, 2:]
    return bool((mask[1:-1, 1:-1] & ~inside).any())


def _inner_points(outline: np.ndarray, shape_hw: tuple[int, int], spacing: Spacing) -> np.ndarray:
    """The points of an outline that do not lie on the edge of the image: there it is the image that ends."""
    x, y = outline[:-1].T / np.array([[spacing[1]], [spacing[0]]])
    near = 0.5  # pixels
    inner = (x > near) & (y > near) & (x < shape_hw[1] - near) & (y < shape_hw[0] - near)
    return outline[:-1][inner]


def fit_ellipse(points: np.ndarray) -> Ellipse | None:
    """The ellipse that fits points (N, 2) best by algebraic least squares; None where they do not determine one.

    The direct method of Fitzgibbon, in the numerically stable form of Halir and Flusser (1998): of all conics
    a x^2 + b xy + c y^2 + d x + e y + f = 0 the one with 4ac - b^2 = 1 that minimises the sum of squares.
    """
    if len(points) < _POINTS_OF_AN_ELLIPSE:
        return None
    centre, scale = points.mean(axis=0), points.std()
    x, y = ((points - centre) / scale).T
    quadratic, linear = np.column_stack([x * x, x * y, y * y]), np.column_stack([x, y, np.ones_like(x)])
    try:
        to_linear = -np.linalg.solve(linear.T @ linear, linear.T @ quadratic)
        reduced = quadratic.T @ quadratic + quadratic.T @ linear @ to_linear
        _, vectors = np.linalg.eig(np.stack([reduced[2] / 2, -reduced[1], reduced[0] / 2]))
    except np.linalg.LinAlgError:  # all points on a line
        return None
    vectors = vectors.real
    conic = vectors[:, (4 * vectors[0] * vectors[2] - vectors[1] ** 2).argmax()]
    return _ellipse(conic, to_linear @ conic, centre, scale)


def _ellipse(quadratic: np.ndarray, linear: np.ndarray, centre: np.ndarray, scale: float) -> Ellipse | None:
    """An ellipse from the six numbers of its conic, in coordinates moved by ``centre`` and divided by ``scale``."""
    a, b, c = quadratic
    form = np.array([[a, b / 2], [b / 2, c]])
    if np.linalg.det(form) <= 1e-12 * np.abs(form).max() ** 2:
        return None
    middle = np.linalg.solve(-2 * form, linear[:2])
    level = middle @ form @ middle - linear[2]
    values, vectors = np.linalg.eigh(form / level)
    if not (values > 0).all():
        return None
    longer, shorter = scale / np.sqrt(values)
    x, y = middle * scale + centre
    return Ellipse((float(x), float(y)), (float(longer), float(shorter)), float(np.arctan2(*vectors[::-1, 0])))
