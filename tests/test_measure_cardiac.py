"""Cycles and volumes against curves and bodies whose numbers are known."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch

from napari_uniultra.core.measure import (
    Cycle,
    Markers,
    disc_volume,
    ejection_fraction,
    find_cycles,
    fractional_area_change,
    long_axis,
    measure_cycle,
)
from napari_uniultra.core.types import Cine
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import architecture
from napari_uniultra.model.loaded import Model
from napari_uniultra.plugin.session_tables import session_tables
from napari_uniultra.segment.session import CineSession


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


def measured_on(areas: dict[int, float], frames: int = 60) -> np.ndarray:
    curve = np.full(frames, np.nan)
    curve[list(areas)] = list(areas.values())
    return curve


def test_cycles_of_a_part_of_a_loop() -> None:
    times = np.arange(60) / 25
    for first, last in ((0, 30), (0, 46), (11, 46)):  # from a maximum, or a frame before a minimum, past a maximum
        curve = np.full(60, np.nan)
        curve[first:last] = beating(60, 24)[first:last]
        expected = [Cycle(0, 12)] if first == 0 else [Cycle(24, 36)]
        expected += [Cycle(24, 36)] if (first, last) == (0, 46) else []
        assert find_cycles(curve, times) == find_cycles(curve) == expected
    for last in range(2, 60):
        curve = measured_on(dict(enumerate(beating(60, 24)[:last])))
        assert all(np.isfinite(curve[[cycle.ed, cycle.es]]).all() for cycle in find_cycles(curve, times))


def test_cycles_of_a_few_frames() -> None:
    assert find_cycles(measured_on({10: 60.0, 30: 100.0})) == [Cycle(30, 10)]
    assert find_cycles(measured_on({10: 100.0, 30: 60.0})) == [Cycle(10, 30)]
    assert find_cycles(measured_on({10: 100.0, 20: 50.0, 30: 90.0})) == [Cycle(10, 20)]
    assert find_cycles(measured_on({10: 50.0, 20: 100.0, 30: 60.0, 40: 90.0})) == [Cycle(20, 30)]
    # A maximum between two frames that are as large, 9 frames from the one and 10 from the other.
    assert find_cycles(measured_on({5: 50.0, 10: 100.0, 29: 100.0, 40: 50.0, 50: 90.0})) == [Cycle(10, 40)]
    assert find_cycles(measured_on({7: 100.0})) == []


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


# What a session keeps -------------------------------------------------------------------------------------------------


def disc(radius: int) -> np.ndarray:
    """(64, 64) bool; around a pixel's corner, so that it has no pixels in doubt."""
    y, x = np.mgrid[:64, :64] + 0.5
    return np.hypot(x - 32, y - 32) <= radius


def beats_of(session: CineSession) -> list[dict[str, str]]:
    tables = session_tables(session, session.cine)
    return list(csv.DictReader(io.StringIO(tables.get("beats.csv", ""))))


@pytest.fixture
def session() -> CineSession:
    config = architecture("uniultra-mini", image_size=64)
    model = Model(build_network(config).eval(), config, torch.device("cpu"), "tiny", "0" * 64, {})
    return CineSession(Cine(np.zeros((12, 64, 64), np.uint8)), model)


def test_a_frame_without_the_object_is_no_end_systole(session: CineSession) -> None:
    for frame, radius in enumerate((20, 19, 17, 15, 14, 15, 17, 19, 20)):
        session.add_mask(1, frame, disc(radius))
    session.mark_absent(1, 6)
    (beat,) = beats_of(session)
    assert (beat["ed_frame"], beat["es_frame"]) == ("0", "4")
    change = 100 * (1 - np.count_nonzero(disc(14)) / np.count_nonzero(disc(20)))
    assert float(beat["fractional_area_change_percent"]) == pytest.approx(change, abs=0.01)


def test_beats_of_objects_that_overlap_have_the_areas_of_the_measurements(session: CineSession) -> None:
    for frame, radius in enumerate((20, 18, 14, 18, 20)):
        session.add_mask(1, frame, disc(radius))
        session.add_mask(2, frame, disc(10))  # on top of the first one
    tables = session_tables(session, session.cine)
    (beat,) = csv.DictReader(io.StringIO(tables["beats.csv"]))
    assert float(beat["ed_area_px"]) == np.count_nonzero(disc(20))
    assert float(beat["es_area_px"]) == np.count_nonzero(disc(14))


def test_a_beat_set_by_hand_on_a_frame_without_the_object_is_searched_again(session: CineSession) -> None:
    for frame, radius in enumerate((20, 18, 14, 18, 20)):
        session.add_mask(1, frame, disc(radius))
    session.set_markers(Markers({1: (Cycle(0, 1),)}))
    assert [(beat["ed_frame"], beat["es_frame"]) for beat in beats_of(session)] == [("0", "1")]
    session.mark_absent(1, 1)
    assert [(beat["ed_frame"], beat["es_frame"]) for beat in beats_of(session)] == [("0", "2")]


def test_beats_of_a_session_with_few_masks(session: CineSession) -> None:
    session.add_mask(1, 1, disc(14))
    assert beats_of(session) == []
    session.add_mask(1, 3, disc(20))
    (beat,) = beats_of(session)
    assert (beat["ed_frame"], beat["es_frame"]) == ("3", "1")
