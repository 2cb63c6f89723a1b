"""The scan area of a loop: where there is ultrasound, without burned-in text, logos, scales and traces beside it.

What moves is ultrasound, what stands still is the scanner's frame around it. On a still, what is not of the colour of
the background takes the place of what moves. The largest piece is then explained by the shapes that scanners draw (the
rectangle of a linear probe, the fan of a convex or phased one), since its dark corners cannot be seen directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize
from skimage.morphology import convex_hull_image, disk

from napari_uniultra.core.types import Cine

_SAMPLES = 12  # frames looked at
_THRESHOLDS = 2, 8  # grey values that set ultrasound apart: the first shows dark corners, the second spares noise
_FAINTEST, _SOLID = 0, 0.98  # on a still: some scanners draw no pixel of the scan area quite black; noise has gaps
_ALL = 0.97  # of the picture: what the first threshold finds is then noise of a codec as well
_GRID = 192  # side in cells of the coarse picture in which pieces are told apart
_FIT_GRID = 96  # the same for fitting a fan, whose soft edges are placed more finely than a cell
_MIN_SHARE = 0.25  # of the pixels of a cell
_CLOSE, _OPEN = 2, 6  # radii in cells: bridges between speckles; lines of text and traces are thinner
_MIN_AREA = 0.06  # of the picture: less is no scan area, but may be a block of text
_MIN_ACTIVE = 0.02  # of the pixels: a loop in which fewer change is looked at as a still
_PLAIN_BONUS, _HULL_MALUS = 0.02, 0.03  # plain shapes first, a hull that explains nothing last
_FLAT = 0.8  # near by far radius: an arc as flat as this is the top of a rectangle with something beside it
_PART = 0.02  # of the largest piece: what moves beside it and is as large belongs to it, as the apex above a dark gap
_BAR_OF_HEIGHT, _BAR_OF_ROW, _BAR_TONE, _BAR_FROM_BACKGROUND = 0.25, 0.5, 4, 16  # see `_bars`
_WHITE = 250
_MIN_FIT = 0.75  # below this no shape explains what is lit, and it is taken as it is
_MIN_FILLED = 0.7, 0.4  # of the height and width of a stated box: less, and the picture is too dark to tell
_MISSED, _EXTRA = 0.75, 0.25  # weights in fitting: dark corners are missed often, and few things are there too much


@dataclass(frozen=True)
class Fan:
    """The scan area of a convex or phased probe: a sector of a ring.

    Attributes
    ----------
    apex_xy : (float, float)
        Where the scan lines meet, in pixels measured at pixel edges; it may lie outside the picture.
    radii_px : (float, float)
        From the apex to the probe's face and to the deepest echo.
    angles_deg : (float, float)
        Of the left and the right edge from straight down, positive to the right of the picture.
    """

    apex_xy: tuple[float, float]
    radii_px: tuple[float, float]
    angles_deg: tuple[float, float]

    def mask(self, shape_hw: tuple[int, int]) -> np.ndarray:
        """The pixels (H, W) bool whose centre lies in the fan."""
        y, x = np.indices(shape_hw) + 0.5
        radius, angle = _polar(x, y, self.apex_xy)
        left, right = np.deg2rad(self.angles_deg)
        return (radius >= self.radii_px[0]) & (radius <= self.radii_px[1]) & (angle >= left) & (angle <= right)


def find_sector(cine: Cine) -> np.ndarray | None:
    """The scan area of a loop.

    Where the file states a box around it (``cine.sector``), it is looked for in that box, and the box itself is the
    answer when what is found does not fill it: a dark picture shows less than there is.

    Returns
    -------
    ndarray or None
        (H, W) bool; None where nothing looks like a scan area.
    """
    stated, frames = cine.sector, _sampled(cine)
    if stated is None or not stated.any():
        return detect_sector(frames)
    rows, columns = _box_of(stated)
    found = detect_sector(frames[:, rows, columns])
    if found is None or not found.any():
        return stated
    filled = [(part.stop - part.start) / size for part, size in zip(_box_of(found), found.shape, strict=True)]
    if filled[0] < _MIN_FILLED[0] or filled[1] < _MIN_FILLED[1]:
        return stated
    whole = np.zeros_like(stated)
    whole[rows, columns] = found
    return whole & stated


def detect_sector(frames: np.ndarray) -> np.ndarray | None:
    """The scan area by the picture alone.

    Parameters
    ----------
    frames : ndarray
        (T, H, W) or (T, H, W, 3) uint8; a dozen spread over the loop are enough.

    Returns
    -------
    ndarray or None
        (H, W) bool; None where nothing looks like a scan area.
    """
    top, bottom = _bars(frames.max(axis=0))
    found = _detect_between_bars(frames[:, top : frames.shape[1] - bottom])
    return None if found is None else np.pad(found, ((top, bottom), (0, 0)))


def _detect_between_bars(frames: np.ndarray) -> np.ndarray | None:
    shape_hw = frames.shape[1:3]
    step = max(1, round(max(shape_hw) / _GRID))
    moved = _moved(frames, _THRESHOLDS[0])
    if moved is None:
        active = _differs(frames, _FAINTEST)
        piece = _largest_piece(active, step)
        if _MIN_AREA <= piece.mean() < _ALL:
            mask, score = _best_shape(active, piece, step)
            if score >= _MIN_FIT and _share_within(active, mask, step) >= _SOLID:
                return mask
    for threshold in _THRESHOLDS:
        active = _differs(frames, threshold) if moved is None else _moved(frames, threshold)
        piece = _largest_piece(active, step, with_parts=moved is not None)
        if piece.mean() < _ALL:
            break
    if piece.mean() < _MIN_AREA:
        return None
    mask, score = _best_shape(active, piece, step)
    return mask if score >= _MIN_FIT else ndimage.binary_fill_holes(_enlarged(piece, step, shape_hw))


def _share_within(active: np.ndarray, mask: np.ndarray, step: int) -> float:
    """How much of a shape is active, away from its edge, which a fit places to about a cell."""
    inner = ndimage.binary_erosion(mask, iterations=step)
    return float(active[inner].mean()) if inner.any() else 0.0


def _best_shape(active: np.ndarray, piece: np.ndarray, step: int) -> tuple[np.ndarray, float]:
    """The shape that explains a piece best, and how well."""
    target = _enlarged(piece, step, active.shape)
    candidates = [_rectangle(active, piece, step), _hull(piece, step, active.shape), *_fans(target)]
    scores = [_fit(mask, target) + bonus for mask, bonus in candidates]
    best = int(np.argmax(scores))
    return candidates[best][0], scores[best]


def fit_fan(mask: np.ndarray, symmetric: bool = False) -> Fan | None:
    """The fan that covers a mask best.

    Parameters
    ----------
    mask : ndarray
        (H, W) bool.
    symmetric : bool
        Both edges have the same angle from straight down, as without beam steering.

    Returns
    -------
    Fan or None
        None where its sides do not meet above it.
    """
    start = _first_guess(mask, symmetric)
    if start is None:
        return None
    step = max(1, round(max(mask.shape) / _FIT_GRID))
    coarse = _shares(mask, step)
    y, x = (np.indices(coarse.shape) + 0.5) * step
    scale = np.array([10 * step, 10 * step, 10 * step, 10 * step, 0.05, 0.05][: 5 if symmetric else 6])

    def fan_of(change: np.ndarray) -> np.ndarray:
        values = start[: len(scale)] + change * scale
        return np.append(values, -values[4]) if symmetric else values

    def loss(change: np.ndarray) -> float:
        inside = _soft_fan(x, y, fan_of(change), softness=step)
        return 1 - _fit(inside, coarse)

    best = minimize(loss, np.zeros(len(scale)), method="Nelder-Mead", options={"maxfev": 600, "fatol": 1e-5})
    apex_x, apex_y, near, far, left, right = fan_of(best.x)
    return Fan(
        apex_xy=(float(apex_x), float(apex_y)),
        radii_px=(float(max(near, 0.0)), float(far)),
        angles_deg=(float(np.rad2deg(left)), float(np.rad2deg(right))),
    )


# What is ultrasound -------------------------------------------------------------------------------------------------


def _sampled(cine: Cine) -> np.ndarray:
    indices = np.unique(np.linspace(0, len(cine) - 1, _SAMPLES).round().astype(int))
    return np.stack([cine.frame(int(index)) for index in indices])


def _moved(frames: np.ndarray, threshold: int) -> np.ndarray | None:
    """(H, W) bool: what changes in the loop; None where too little does."""
    if len(frames) < 3:
        return None
    changed = (frames.max(axis=0) - frames.min(axis=0)) >= threshold
    changed = changed.any(axis=-1) if changed.ndim == 3 else changed
    return changed if threshold > _THRESHOLDS[0] or changed.mean() >= _MIN_ACTIVE else None


def _differs(frames: np.ndarray, threshold: int) -> np.ndarray:
    """(H, W) bool: what is not of the background's colour."""
    planes = _planes(frames.max(axis=0))
    background = [np.bincount(_rim(plane), minlength=256).argmax() for plane in np.moveaxis(planes, -1, 0)]
    return (np.abs(planes - background) > 2 * threshold).any(axis=-1)


def _planes(picture: np.ndarray) -> np.ndarray:
    return (picture[..., None] if picture.ndim == 2 else picture).astype(int)


def _bars(picture: np.ndarray) -> tuple[int, int]:
    """How many rows at the top and at the bottom are a bar for text: across the picture, of one tone, brighter than
    the background (the commonest) but not white, as echoes next to the probe may be.
    """
    planes = _planes(picture)
    background = np.array([np.bincount(plane.ravel()).argmax() for plane in np.moveaxis(planes, -1, 0)])
    tones = np.median(planes, axis=1)  # (H, channels)
    even = (np.abs(planes - tones[:, None]).max(axis=-1) <= _BAR_TONE).mean(axis=1) >= _BAR_OF_ROW
    of_bar = even & ((tones - background).max(axis=-1) > _BAR_FROM_BACKGROUND) & (tones.min(axis=-1) < _WHITE)
    limit = int(_BAR_OF_HEIGHT * len(planes))
    top, bottom = (len(planes) if rows.all() else int(rows.argmin()) for rows in (of_bar, of_bar[::-1]))
    return (top if top <= limit else 0), (bottom if bottom <= limit else 0)


def _rim(plane: np.ndarray) -> np.ndarray:
    return np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])


def _largest_piece(active: np.ndarray, step: int, with_parts: bool = False) -> np.ndarray:
    """The largest connected piece on a coarse grid of cells of ``step`` pixels, without thin things.

    Where it moves, and so is no text, other pieces may be parts of it.
    """
    cells = _shares(active, step) > _MIN_SHARE
    margin = _CLOSE + _OPEN  # what touches the edge of the picture goes on beyond it
    cells = ndimage.binary_closing(np.pad(cells, margin, mode="edge"), disk(_CLOSE))
    cells = ndimage.binary_fill_holes(cells)
    cells = ndimage.binary_opening(cells, disk(_OPEN))[margin:-margin, margin:-margin]
    labels, _ = ndimage.label(cells)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if not sizes.any():
        return np.zeros_like(cells)
    return (sizes >= _PART * sizes.max())[labels] if with_parts else labels == sizes.argmax()


def _shares(mask: np.ndarray, step: int) -> np.ndarray:
    """The share of True in each cell of ``step`` by ``step`` pixels; cells at the far edges may hold fewer pixels."""
    rows, columns = np.arange(0, mask.shape[0], step), np.arange(0, mask.shape[1], step)
    sums = np.add.reduceat(np.add.reduceat(mask.astype(np.int32), rows, axis=0), columns, axis=1)
    heights = np.diff([*rows, mask.shape[0]])
    widths = np.diff([*columns, mask.shape[1]])
    return sums / np.outer(heights, widths)


def _enlarged(cells: np.ndarray, step: int, shape_hw: tuple[int, int]) -> np.ndarray:
    return np.kron(cells, np.ones((step, step), bool))[: shape_hw[0], : shape_hw[1]]


# Shapes -------------------------------------------------------------------------------------------------------------


def _rectangle(active: np.ndarray, piece: np.ndarray, step: int) -> tuple[np.ndarray, float]:
    """The rectangle whose rows and columns are mostly in the piece, its edges placed where the activity begins."""
    rows, columns = (_span(piece.sum(axis=axis), step, active.shape[1 - axis]) for axis in (1, 0))
    rows = _sharpened(active[:, columns[0] : columns[1]].mean(axis=1), rows, step)
    columns = _sharpened(active[rows[0] : rows[1]].mean(axis=0), columns, step)
    mask = np.zeros(active.shape, bool)
    mask[rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask, _PLAIN_BONUS


def _span(profile: np.ndarray, step: int, size: int) -> tuple[int, int]:
    """First and last + 1, in pixels, of the cells in which the piece is at least half as wide as where it is widest."""
    wide = np.flatnonzero(profile >= 0.5 * profile.max())
    return int(wide[0]) * step, min(int(wide[-1] + 1) * step, size)


def _sharpened(profile: np.ndarray, span: tuple[int, int], step: int) -> tuple[int, int]:
    """Move both ends, by a few cells at most, to where a third of the usual activity is reached."""
    reach = 3 * step
    level = np.median(profile[span[0] : span[1]]) / 3
    low, high = max(0, span[0] - reach), min(len(profile), span[1] + reach)
    inside = np.flatnonzero(profile[low:high] >= level)
    return (low + int(inside[0]), low + int(inside[-1]) + 1) if len(inside) else span


def _hull(piece: np.ndarray, step: int, shape_hw: tuple[int, int]) -> tuple[np.ndarray, float]:
    return _enlarged(convex_hull_image(piece), step, shape_hw), -_HULL_MALUS


def _fans(target: np.ndarray) -> list[tuple[np.ndarray, float]]:
    fans = ((fit_fan(target, symmetric), bonus) for symmetric, bonus in ((True, _PLAIN_BONUS), (False, 0.0)))
    return [
        (fan.mask(target.shape), bonus)
        for fan, bonus in fans
        if fan is not None and fan.radii_px[0] < _FLAT * fan.radii_px[1]
    ]


def _first_guess(mask: np.ndarray, symmetric: bool) -> np.ndarray | None:
    """(apex x, apex y, near, far, left, right) from straight lines through the two sides; angles in radians."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) < 8:
        return None
    left, right = mask.argmax(axis=1), mask.shape[1] - mask[:, ::-1].argmax(axis=1)
    widest = rows[int(np.argmax((right - left)[rows]))]
    sides = rows[(rows >= rows[0] + 0.15 * (widest - rows[0])) & (rows <= rows[0] + 0.85 * (widest - rows[0]))]
    inside = sides[(left[sides] > 0) & (right[sides] < mask.shape[1])]  # a side beyond the picture is not seen
    sides = inside if len(inside) >= 8 else sides
    if len(sides) < 4:
        return None
    slope_left, at_left = _line(sides + 0.5, left[sides])
    slope_right, at_right = _line(sides + 0.5, right[sides])
    if slope_right - slope_left < 0.05:  # parallel, or meeting below
        return None
    if symmetric:  # the side that leans more is the one that is not hidden in the dark
        slope = max(-slope_left, slope_right)
        at_left, at_right = (np.median(side[sides] - s * (sides + 0.5)) for side, s in ((left, -slope), (right, slope)))
        slope_left, slope_right = -slope, slope
    apex_y = (at_left - at_right) / (slope_right - slope_left)
    apex_x = at_left + slope_left * apex_y
    y, x = np.nonzero(mask)
    radius, _ = _polar(x + 0.5, y + 0.5, (apex_x, apex_y))
    near, far = np.percentile(radius, [0.5, 99.5])
    return np.array([apex_x, apex_y, near, far, np.arctan(slope_left), np.arctan(slope_right)])


def _line(y: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """x = intercept + slope y through most of the points: the median of the slopes between far pairs."""
    half = len(y) // 2
    slope = float(np.median((x[half:][: half or 1] - x[: half or 1]) / (y[half:][: half or 1] - y[: half or 1])))
    return slope, float(np.median(x - slope * y))


def _polar(x: Any, y: Any, apex_xy: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the apex, and the angle from straight down in radians, positive to the right."""
    dx, dy = x - apex_xy[0], y - apex_xy[1]
    return np.hypot(dx, dy), np.arctan2(dx, dy)


def _soft_fan(x: np.ndarray, y: np.ndarray, fan: np.ndarray, softness: float) -> np.ndarray:
    """The fan with edges that fade over about ``softness`` pixels, so that a small change of it is felt."""
    radius, angle = _polar(x, y, (fan[0], fan[1]))
    edges = (radius - fan[2], fan[3] - radius, (angle - fan[4]) * radius, (fan[5] - angle) * radius)
    return np.clip(np.minimum.reduce(edges) / softness + 0.5, 0, 1)


def _box_of(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _fit(shape: np.ndarray, found: np.ndarray) -> float:
    """How well a shape explains what was found, 0 to 1: an IoU (Tversky's) in which missing some of it weighs more."""
    both = (shape * found).sum()
    return float(both / (both + _MISSED * (found.sum() - both) + _EXTRA * (shape.sum() - both) + 1e-9))
