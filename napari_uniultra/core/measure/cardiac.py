"""Heart cycles on an area curve, and what they say: fractional area change, and ejection fraction by discs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from napari_uniultra.core.measure.outline import (
    along_and_across,
    chords,
    outline_of,
    principal_axis,
)
from napari_uniultra.core.types import PIXELS, Cine, Spacing, default_name

Point = tuple[float, float]
Axis = tuple[Point, Point]

DISCS = 20  # as the American Society of Echocardiography recommends
_SHORTEST_CYCLE_S = 0.3  # 200 beats a minute
_SHORTEST_CYCLE_FRAMES = 4  # where the times are not known
_SMOOTHING = 0.05  # of a loop's frames at most; a wider filter would move the extremes
_PROMINENCE = 0.3  # of the curve's range: less is not a beat
_HIGH = 0.6  # of the curve's range: an end of the loop below that is not an end-diastole
_LEAST_CHANGE = 0.03  # of the largest area: a structure that changes less does not beat
_REFINE = 2  # frames around an extreme of the smoothed curve, in which the measured extreme is taken


@dataclass(frozen=True)
class Cycle:
    """One heart cycle: the frames of its end-diastole (largest area) and its end-systole (smallest)."""

    ed: int
    es: int


@dataclass(frozen=True)
class CycleMeasurement:
    """What one cycle of one object measures.

    Attributes
    ----------
    ed_frame, es_frame : int
    ed_time_ms, es_time_ms : float or None
        From the first frame; None when the loop's times are unknown.
    ed_area, es_area : float
        In ``mm2`` or ``px``, as the spacing is known or not.
    fractional_area_change : float
        (ED - ES) / ED area, 0 to 1.
    ed_volume, es_volume : float or None
        In ml by `disc_volume`, in cubed pixels where the spacing is unknown; None where there is no long axis.
    ejection_fraction : float or None
        (ED - ES) / ED volume.
    """

    object_id: int
    object_name: str
    ed_frame: int
    es_frame: int
    ed_time_ms: float | None
    es_time_ms: float | None
    ed_area: float
    es_area: float
    fractional_area_change: float | None
    ed_volume: float | None
    es_volume: float | None
    ejection_fraction: float | None


def find_cycles(areas: np.ndarray, frame_times_s: np.ndarray | None = None) -> list[Cycle]:
    """Find the heart's cycles on an area curve.

    An end-diastole is a clear maximum, at least 0.3 s from the next (4 frames where times are unknown); the end-systole
    is the minimum up to the next one. Both are always frames that were measured. A loop that holds less than a cycle
    gives its largest and its smallest area, in whichever order they come.

    Parameters
    ----------
    areas : ndarray
        (T,) float; NaN where the object was not measured.
    frame_times_s : ndarray, optional
        (T,) seconds.

    Returns
    -------
    list of Cycle
        In order; empty where the area hardly changes.
    """
    areas = np.asarray(areas, dtype=float)
    known = np.flatnonzero(np.isfinite(areas))
    if len(known) < 2 or np.ptp(areas[known]) <= _LEAST_CHANGE * areas[known].max():
        return []
    frames = np.arange(known[0], known[-1] + 1)  # nothing is known of the curve before and after
    smooth = gaussian_filter1d(np.interp(frames, known, areas[known]), min(1.0, _SMOOTHING * len(known)))
    peaks = sorted({_end_diastole(areas, int(frames[peak])) for peak in _peaks(smooth, frame_times_s)})
    cycles = [_cycle(areas, peak, end) for peak, end in zip(peaks, [*peaks[1:], len(areas)], strict=True)]
    found = [cycle for cycle in cycles if cycle is not None]
    return found or [Cycle(int(np.nanargmax(areas)), int(np.nanargmin(areas)))]


def chosen_cycles(
    by_hand: Sequence[Cycle], areas: np.ndarray, frame_times_s: np.ndarray | None = None
) -> Sequence[Cycle]:
    """Cycles that were set by hand, while the object is on all of their frames; otherwise those that are found."""
    frames = [frame for cycle in by_hand for frame in (cycle.ed, cycle.es)]
    is_measured = all(frame < len(areas) and np.isfinite(areas[frame]) for frame in frames)
    return by_hand if by_hand and is_measured else find_cycles(areas, frame_times_s)


def _peaks(smooth: np.ndarray, frame_times_s: np.ndarray | None) -> list[int]:
    low, spread = smooth.min(), np.ptp(smooth)
    closed = np.concatenate([[low], smooth, [low]])  # so that a maximum at an end of the curve counts
    distance: float = _SHORTEST_CYCLE_FRAMES
    if frame_times_s is not None and frame_times_s[-1] > frame_times_s[0]:
        step = (frame_times_s[-1] - frame_times_s[0]) / (len(frame_times_s) - 1)
        distance = max(1.0, _SHORTEST_CYCLE_S / step)
    peaks, _ = find_peaks(closed, height=low + _HIGH * spread, prominence=_PROMINENCE * spread, distance=distance)
    return [int(peak) - 1 for peak in peaks]


def _cycle(areas: np.ndarray, peak: int, end: int) -> Cycle | None:
    """The cycle from an end-diastole to the frame before the next; None where the loop ends before its end-systole."""
    es = peak + int(np.nanargmin(areas[peak:end]))
    emptied = areas[peak] - areas[es]
    still_falling = es == np.flatnonzero(np.isfinite(areas))[-1]
    return (
        Cycle(peak, es)
        if not still_falling and emptied >= _PROMINENCE * (np.nanmax(areas) - np.nanmin(areas))
        else None
    )


def _end_diastole(areas: np.ndarray, peak: int) -> int:
    """The frame of the largest area around a peak, or the nearest one that was measured if none around it was."""
    start = max(0, peak - _REFINE)
    around = areas[start : peak + _REFINE + 1]
    if np.isfinite(around).any():
        return start + int(np.nanargmax(around))
    known = np.flatnonzero(np.isfinite(areas))
    return int(known[np.abs(known - peak).argmin()])


def fractional_area_change(ed_area: float, es_area: float) -> float | None:
    """(ED - ES) / ED; None for an area of 0."""
    return (ed_area - es_area) / ed_area if ed_area > 0 else None


def ejection_fraction(ed_volume: float, es_volume: float) -> float | None:
    """(ED - ES) / ED; None for a volume of 0."""
    return fractional_area_change(ed_volume, es_volume)


def long_axis(mask: np.ndarray, spacing: Spacing = PIXELS) -> Axis | None:
    """The long axis of a ventricle's mask (H, W) bool: through its centroid, along its greatest extent.

    Returns
    -------
    ((x, y), (x, y)) or None
        In pixels at pixel edges, whatever the spacing; the upper end first. None for an empty mask.
    """
    outline = outline_of(mask, spacing)
    if not len(outline):
        return None
    centroid, direction = principal_axis(outline)
    along = (outline - centroid) @ direction
    points = (centroid + np.array([along.min(), along.max()])[:, None] * direction) / (spacing[1], spacing[0])
    first, second = sorted(points.tolist(), key=lambda point: point[1])
    return tuple(first), tuple(second)


def disc_volume(mask: np.ndarray, axis: Axis, spacing: Spacing = PIXELS, discs: int = DISCS) -> float:
    """Volume by the method of discs (modified Simpson) from one plane: the sum of pi/4 d^2 h.

    The axis is cut into ``discs`` pieces of height h; d is how much of the line across the middle of a piece lies in
    the mask. Parts of the mask beyond the ends of the axis do not count.

    Parameters
    ----------
    mask : ndarray
        (H, W) bool.
    axis : ((x, y), (x, y))
        In pixels at pixel edges.
    spacing : (float, float)
        (row, column) in mm; (1, 1) for pixels.

    Returns
    -------
    float
        In mm3 (1000 to a ml), or in cubed pixels.
    """
    outline = outline_of(mask, spacing)
    start, end = (np.asarray(point, dtype=float) * (spacing[1], spacing[0]) for point in axis)
    length = float(np.linalg.norm(end - start))
    if not len(outline) or length == 0:
        return 0.0
    turned = along_and_across(outline, start, (end - start) / length)
    index, ends = chords(turned, (np.arange(discs) + 0.5) / discs * length)
    diameters = np.bincount(index, weights=ends[:, 1] - ends[:, 0], minlength=discs)
    return float(np.pi / 4 * np.square(diameters).sum() * length / discs)


def measure_object_cycle(
    cine: Cine, labels: Any, cycle: Cycle, object_id: int, object_name: str = "", axes: tuple[Axis | None, ...] = ()
) -> CycleMeasurement:
    """Measure one cycle of an object in label images (T, H, W).

    ``axes`` are its long axes at end-diastole and end-systole; by default they are found.
    """
    masks = [np.asarray(labels[frame]) == object_id for frame in (cycle.ed, cycle.es)]
    if not axes:
        axes = tuple(long_axis(mask, cine.spacing_mm or PIXELS) for mask in masks)
    return measure_cycle(
        cycle, (masks[0], masks[1]), (axes[0], axes[1]), cine.spacing_mm, cine.frame_times_s, object_id, object_name
    )


def measure_cycle(
    cycle: Cycle,
    masks: tuple[np.ndarray, np.ndarray],
    axes: tuple[Axis | None, Axis | None],
    spacing_mm: tuple[float, float] | None = None,
    frame_times_s: np.ndarray | None = None,
    object_id: int = 1,
    object_name: str = "",
) -> CycleMeasurement:
    """Measure one cycle.

    Parameters
    ----------
    cycle : Cycle
    masks : (ndarray, ndarray)
        (H, W) bool at end-diastole and at end-systole.
    axes : (Axis or None, Axis or None)
        The long axis at each, as `long_axis` gives it or the user set it.
    spacing_mm, frame_times_s
        As of a `Cine`.
    """
    spacing = PIXELS if spacing_mm is None else spacing_mm
    areas = [float(np.count_nonzero(mask)) * spacing[0] * spacing[1] for mask in masks]
    to_ml = 1.0 if spacing_mm is None else 1e-3
    volumes = [
        None if axis is None else disc_volume(mask, axis, spacing) * to_ml
        for mask, axis in zip(masks, axes, strict=True)
    ]
    times = [None if frame_times_s is None else 1000 * float(frame_times_s[f]) for f in (cycle.ed, cycle.es)]
    return CycleMeasurement(
        object_id=object_id,
        object_name=object_name or default_name(object_id),
        ed_frame=cycle.ed,
        es_frame=cycle.es,
        ed_time_ms=times[0],
        es_time_ms=times[1],
        ed_area=areas[0],
        es_area=areas[1],
        fractional_area_change=fractional_area_change(*areas),
        ed_volume=volumes[0],
        es_volume=volumes[1],
        ejection_fraction=None if None in volumes else ejection_fraction(*volumes),
    )
