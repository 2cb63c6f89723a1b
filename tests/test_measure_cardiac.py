"""Cycles and volumes against curves and bodies whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_uniultra.core.measure import (
    Cycle,
    disc_volume,
    ejection_fraction,
    find_cycles,
    fractional_area_change,
    long_axis,
    measure_cycle,
)


def ellipse(long: float, short: float, degrees: float, spacing: tuple[float, float]) -> np.ndarray:
    """(H, W) bool; half axes in mm, the centre in the middle of a field of 160 mm."""
    rows, columns = (round(160 / step) for step in spacing)
    y, x = np.mgrid[:rows, :columns] + 0.5
    x, y = x * spacing[1] - 80, y * spacing[0] - 80
    angle = np.deg2rad(degrees)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    return (u / long) ** 2 + (v / short) ** 2 <= 1


@pytest.mark.parametrize("degrees", [0, 20, 60, 90, 150])
@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.4, 0.8)])
def test_prolate_ellipsoid(degrees: float, spacing: tuple[float, float]) -> None:
    mask = ellipse(60, 40, degrees, spacing)
    axis = long_axis(mask, spacing)
    length = np.linalg.norm((np.array(axis[1]) - axis[0]) * (spacing[1], spacing[0]))
    assert length == pytest.approx(120, rel=0.01)
    assert axis[0][1] <= axis[1][1]
    assert disc_volume(mask, axis, spacing) == pytest.approx(4 / 3 * np.pi * 60 * 40**2, rel=0.01)


def test_a_cylinder_and_an_axis_that_the_user_moved() -> None:
    mask = np.zeros((200, 100), bool)
    mask[20:180, 30:70] = True
    assert disc_volume(mask, ((50, 20), (50, 180))) == pytest.approx(np.pi / 4 * 40**2 * 160, rel=1e-6)
    assert disc_volume(mask, ((50, 20), (50, 100))) == pytest.approx(np.pi / 4 * 40**2 * 80, rel=1e-6)
    assert disc_volume(mask, ((50, 20), (50, 20))) == 0
    assert disc_volume(np.zeros_like(mask), ((50, 20), (50, 100))) == 0
    assert long_axis(np.zeros_like(mask)) is None


def beating(frames: int, period: float, phase: float = 0.0) -> np.ndarray:
    return 1000 + 200 * np.cos(2 * np.pi * (np.arange(frames) - phase) / period)


def test_cycles_of_a_beating_curve() -> None:
    times = np.arange(72) / 25
    assert find_cycles(beating(72, 24), times) == [Cycle(0, 12), Cycle(24, 36), Cycle(48, 60)]
    assert find_cycles(beating(72, 24)) == [Cycle(0, 12), Cycle(24, 36), Cycle(48, 60)]
    assert find_cycles(beating(60, 24, phase=12), times[:60]) == [Cycle(12, 24), Cycle(36, 48)]


def test_cycles_of_a_noisy_curve_and_of_one_with_gaps() -> None:
    times = np.arange(72) / 25
    curve = beating(72, 24) + np.random.default_rng(0).normal(0, 8, 72)
    found = np.array([(cycle.ed, cycle.es) for cycle in find_cycles(curve, times)])
    np.testing.assert_allclose(found, [(0, 12), (24, 36), (48, 60)], atol=3)
    curve[[3, 13, 26, 60]] = np.nan
    found = np.array([(cycle.ed, cycle.es) for cycle in find_cycles(curve, times)])
    np.testing.assert_allclose(found, [(0, 12), (24, 36), (48, 60)], atol=4)
    assert np.isfinite(curve[found]).all()


def test_less_than_a_cycle_and_nothing_that_beats() -> None:
    assert find_cycles(beating(12, 24, phase=12)) == [Cycle(11, 0)]  # filling only
    assert find_cycles(beating(13, 24)) == [Cycle(0, 12)]
    assert find_cycles(beating(30, 24)[10:]) == [Cycle(14, 2)]  # from an end-systole to the next systole
    assert find_cycles(beating(33, 24)) == [Cycle(0, 12)]  # a second beat that the loop's end cuts off
    assert find_cycles(np.full(30, 7.0)) == []
    assert find_cycles(np.full(30, np.nan)) == []
    assert find_cycles(np.array([5.0])) == []
    assert find_cycles(np.zeros(10)) == []


def test_fractions_by_hand() -> None:
    assert fractional_area_change(30, 18) == pytest.approx(0.4)
    assert ejection_fraction(120, 48) == pytest.approx(0.6)
    assert ejection_fraction(0, 0) is None


def test_a_whole_cycle() -> None:
    spacing = (0.4, 0.5)
    masks = ellipse(60, 40, 80, spacing), ellipse(50, 30, 80, spacing)
    axes = tuple(long_axis(mask, spacing) for mask in masks)
    found = measure_cycle(Cycle(2, 9), masks, axes, spacing, np.arange(12) * 0.04, 3, "left ventricle")
    expected_ml = [4 / 3 * np.pi * a * b**2 / 1000 for a, b in ((60, 40), (50, 30))]
    assert (found.ed_volume, found.es_volume) == pytest.approx(expected_ml, rel=0.01)
    assert found.ejection_fraction == pytest.approx(1 - 50 * 30**2 / (60 * 40**2), abs=0.01)
    assert found.fractional_area_change == pytest.approx(1 - 50 * 30 / (60 * 40), abs=0.01)
    assert (found.ed_time_ms, found.es_time_ms) == pytest.approx((80, 360))
    assert (found.object_id, found.object_name) == (3, "left ventricle")
    bare = measure_cycle(Cycle(2, 9), masks, (None, axes[1]))
    assert (bare.ed_time_ms, bare.ed_volume, bare.ejection_fraction) == (None, None, None)
    assert bare.es_volume is not None
