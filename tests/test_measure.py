"""Areas, lengths and thickness against shapes whose measures are known, and against measured heads and muscles."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import ellipe

from napari_uniultra.core.measure import (
    MaskShape,
    Measurement,
    area_curve,
    area_mm2,
    area_px,
    fit_ellipse,
    measure_shape,
    measurement_rows,
    outline_of,
    thickness_between,
    thickness_of,
)
from napari_uniultra.core.types import Cine, Step

ONE_PERCENT = 0.01
ISOTROPIC, ANISOTROPIC = (1.0, 1.0), (0.5, 0.25)


def square(side: int) -> np.ndarray:
    mask = np.zeros((10, 12), bool)
    mask[:side, :side] = True
    return mask


def coordinates(spacing: tuple[float, float], degrees: float, size_mm: float = 260.0) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres in mm from a centre that is on no pixel, turned by an angle."""
    rows, columns = (round(size_mm / step) for step in spacing)
    y, x = np.mgrid[:rows, :columns] + 0.5
    x, y = x * spacing[1] - size_mm / 2 - 0.3, y * spacing[0] - size_mm / 2 + 0.2
    angle = np.deg2rad(degrees)
    return x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)


def ellipse(long: float, short: float, degrees: float, spacing: tuple[float, float] = ISOTROPIC) -> np.ndarray:
    u, v = coordinates(spacing, degrees)
    return (u / long) ** 2 + (v / short) ** 2 <= 1


def rectangle(long: float, short: float, degrees: float, spacing: tuple[float, float] = ISOTROPIC) -> np.ndarray:
    u, v = coordinates(spacing, degrees)
    return (np.abs(u) <= long / 2) & (np.abs(v) <= short / 2)


def measured(mask: np.ndarray, spacing: tuple[float, float]) -> MaskShape:
    shape = measure_shape(mask, spacing)
    assert shape is not None
    return shape


def test_area_by_hand() -> None:
    assert area_px(square(4)) == 16
    assert area_mm2(square(4), (0.5, 0.25)) == 2.0
    assert area_mm2(square(0), (0.5, 0.25)) == 0.0


@pytest.mark.parametrize("spacing", [ISOTROPIC, ANISOTROPIC])
def test_disc(spacing: tuple[float, float]) -> None:
    mask = ellipse(50, 50, 0, spacing)
    shape = measured(mask, spacing)
    assert area_mm2(mask, spacing) == pytest.approx(np.pi * 50**2, rel=ONE_PERCENT)
    for length, expected in [
        (shape.perimeter, 2 * np.pi * 50),
        (shape.ellipse_circumference, 2 * np.pi * 50),
        (shape.longest_diameter, 100),
        (shape.perpendicular_diameter, 100),
        (shape.equivalent_diameter, 100),
    ]:
        assert length == pytest.approx(expected, rel=ONE_PERCENT)
    assert not shape.cut_by_border


@pytest.mark.parametrize("degrees", [0, 10, 30, 45, 77, 90, 135])
@pytest.mark.parametrize("spacing", [ISOTROPIC, ANISOTROPIC])
def test_ellipse(spacing: tuple[float, float], degrees: float) -> None:
    mask = ellipse(75, 50, degrees, spacing)
    shape = measured(mask, spacing)
    circumference = 4 * 75 * ellipe(1 - (50 / 75) ** 2)
    for length, expected in [
        (shape.perimeter, circumference),
        (shape.ellipse_circumference, circumference),
        (shape.longest_diameter, 150),
        (shape.perpendicular_diameter, 100),
        (shape.equivalent_diameter, 2 * np.sqrt(75 * 50)),
    ]:
        assert length == pytest.approx(expected, rel=ONE_PERCENT)
    found = fit_ellipse(outline_of(mask, spacing))
    assert found is not None
    assert found.half_axes == pytest.approx((75, 50), rel=ONE_PERCENT)
    assert np.cos(2 * (found.angle_rad - np.deg2rad(degrees))) == pytest.approx(1, abs=1e-3)
    assert found.centre == pytest.approx((130.3, 129.8), abs=0.1)


@pytest.mark.parametrize("degrees", [0, 10, 30, 45, 77, 90, 135])
@pytest.mark.parametrize("spacing", [ISOTROPIC, ANISOTROPIC])
def test_rectangle(spacing: tuple[float, float], degrees: float) -> None:
    mask = rectangle(150, 100, degrees, spacing)
    shape = measured(mask, spacing)
    diagonal = np.hypot(150, 100)
    for length, expected in [
        (shape.perimeter, 500),
        (shape.longest_diameter, diagonal),
        (shape.perpendicular_diameter, 100 * diagonal / 150),  # a line through the middle, from long side to long side
        (shape.equivalent_diameter, np.sqrt(4 / np.pi * 150 * 100)),
        (shape.thickness, 100),
    ]:
        assert length == pytest.approx(expected, rel=ONE_PERCENT)


def test_small_and_empty_masks() -> None:
    assert measure_shape(np.zeros((9, 9), bool)) is None
    one = np.zeros((9, 9), bool)
    one[4, 4] = True
    shape = measured(one, ISOTROPIC)
    assert shape.equivalent_diameter == pytest.approx(np.sqrt(4 / np.pi))
    assert shape.longest_diameter == 1
    assert shape.ellipse_circumference is None
    line = np.zeros((9, 40), bool)
    line[4, 5:35] = True
    assert measured(line, ISOTROPIC).longest_diameter == 30
    assert measured(line, ISOTROPIC).thickness == pytest.approx(1)


def test_lengths_are_of_the_largest_piece_and_holes_do_not_count() -> None:
    mask = ellipse(50, 50, 0)
    whole = measured(mask, ISOTROPIC)
    mask[2:5, 2:5] = True
    mask[125:135, 125:135] = False
    shape = measured(mask, ISOTROPIC)
    assert shape.perimeter == whole.perimeter
    assert shape.longest_diameter == whole.longest_diameter
    assert area_px(mask) == pytest.approx(np.pi * 50**2 + 9 - 100, rel=ONE_PERCENT)


@pytest.mark.parametrize("place", [(0, 5), (9, 5), (5, 0), (5, 11)])
def test_objects_cut_by_the_image_are_flagged(place: tuple[int, int]) -> None:
    mask = np.zeros((10, 12), bool)
    mask[4:6, 4:6] = True
    assert not measured(mask, ISOTROPIC).cut_by_border
    mask[place] = True
    assert measured(mask, ISOTROPIC).cut_by_border


def test_objects_cut_by_the_scan_area_are_flagged() -> None:
    sector = np.zeros((20, 20), bool)
    sector[2:18, 2:18] = True
    mask = np.zeros((20, 20), bool)
    mask[3:8, 5:8] = True
    assert not measure_shape(mask, sector=sector).cut_by_border
    mask[2, 5] = True
    assert measure_shape(mask, sector=sector).cut_by_border


def test_a_head_cut_by_the_image_keeps_its_circumference() -> None:
    whole = ellipse(75, 50, 20)
    cut = whole[:, :170]
    assert measured(cut, ISOTROPIC).cut_by_border
    expected = 4 * 75 * ellipe(1 - (50 / 75) ** 2)
    assert measured(cut, ISOTROPIC).ellipse_circumference == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("degrees", [0, 25, 90])
def test_thickness_of_a_bent_band(degrees: float) -> None:
    u, v = coordinates((0.5, 0.25), degrees)
    radius = np.hypot(u, v + 150)  # a wall of 12 mm along a circle
    mask = (np.abs(radius - 150) <= 6) & (np.abs(u) < 60)
    thickness = thickness_of(mask, (0.5, 0.25))
    assert thickness.mean == pytest.approx(12, rel=0.02)
    assert thickness.minimum > 11
    assert thickness.maximum < 13


@pytest.mark.parametrize("degrees", [0, 30, 90, 120])
def test_thickness_between_two_masks(degrees: float) -> None:
    u, v = coordinates(ANISOTROPIC, degrees)
    inside = np.abs(u) < 70
    first, second = inside & (np.abs(v + 20) < 4), inside & (np.abs(v - 24) < 4)
    for pair in ((first, second), (second, first)):
        assert thickness_between(*pair, ANISOTROPIC).mean == pytest.approx(36, rel=ONE_PERCENT)
    assert thickness_between(first, np.zeros_like(first)) is None
    assert thickness_between(first & (u < -40), second & (u > 40)) is None


def test_head_circumferences_of_hc18(shared_data: Path) -> None:
    folder = shared_data / "still" / "hc18"
    errors = []
    with open(folder / "pixel_size_mm_and_HC_mm.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            mask = np.asarray(Image.open(folder / "masks" / row["file"])) > 0
            spacing = (float(row["mm_per_px"]),) * 2
            found = fit_ellipse(outline_of(mask, spacing))
            errors.append(abs(found.circumference / float(row["HC_mm"]) - 1))
    assert len(errors) == 173
    assert np.mean(errors) < ONE_PERCENT
    assert np.max(errors) < 0.02


def test_muscle_thickness_of_observed_lines(shared_data: Path) -> None:
    """The masks of the muscle loops were drawn from an observer's two lines."""
    errors = []
    for folder in sorted((shared_data / "cine").glob("muscle_*")):
        meta = json.loads((folder / "meta.json").read_text())
        spacing = tuple(meta["spacing_mm"])
        for record in meta["records"]:
            mask = np.asarray(Image.open(folder / "masks" / f"{record['frame_index']:05d}.png")) > 0
            expected = distance_of_lines(record["superficial_line"], record["deep_line"], spacing)
            errors.append(abs(thickness_of(mask, spacing).mean / expected - 1))
    assert len(errors) == 50
    assert np.max(errors) < ONE_PERCENT


def distance_of_lines(first: list, second: list, spacing: tuple[float, float]) -> float:
    """Halfway along two lines, at a right angle to the line midway between them."""
    first, second = (np.array(line) * (spacing[1], spacing[0]) for line in (first, second))
    middle = (first + second) / 2
    along = middle[1] - middle[0]
    return abs(float(np.cross(along, (second - first).mean(axis=0)))) / float(np.linalg.norm(along))


def test_rows_of_steps() -> None:
    cine = Cine(np.zeros((3, 10, 12), np.uint8), spacing_mm=(0.5, 0.25), frame_times_s=[0, 0.04, 0.1])
    steps = [
        Step(2, {2: square(2), 1: square(0)}, {1: 0.2, 2: 0.9}, {1: -4.0, 2: 5.0}),
        Step(0, {1: square(4)}, {1: 0.8}, {}),
    ]
    shapes = {side: measure_shape(square(side), (0.5, 0.25)) for side in (2, 4)}
    assert measurement_rows(cine, iter(steps), {1: "lumen"}) == [
        Measurement(0, 0.0, 1, "lumen", 2.0, "mm2", 0.8, None, shapes[4], 0.0),
        Measurement(2, 0.1, 1, "lumen", 0.0, "mm2", 0.2, -4.0, None, -1.0),
        Measurement(2, 0.1, 2, "Object 2", 0.5, "mm2", 0.9, 5.0, shapes[2], 0.0),
    ]


def test_the_curve_of_steps_has_no_area_where_the_object_is_absent() -> None:
    steps = [Step(0, {1: square(4)}, {}, {}), Step(1, {1: square(0)}, {}, {1: -4.0}), Step(2, {1: square(3)}, {}, {})]
    rows = measurement_rows(Cine(np.zeros((4, 10, 12), np.uint8)), steps)
    assert [row.area for row in rows] == [16, 0, 9]
    np.testing.assert_array_equal(area_curve(rows, 1, 4), [16, np.nan, 9, np.nan])


def test_rows_of_labels_without_spacing_or_times() -> None:
    labels = np.stack([square(3) * 2, square(0) * 1, square(1) * 1])
    labels[0, 9, 9:] = 1
    rows = measurement_rows(Cine(np.zeros((3, 10, 12), np.uint8)), labels)
    assert [(row.frame, row.time_s, row.object_id, row.object_name, row.area, row.unit) for row in rows] == [
        (0, None, 1, "Object 1", 3.0, "px"),
        (0, None, 2, "Object 2", 9.0, "px"),
        (2, None, 1, "Object 1", 1.0, "px"),
    ]
    assert rows[2].area_change == pytest.approx(-2 / 3)
    assert all(row.shape.cut_by_border for row in rows)
    np.testing.assert_array_equal(area_curve(rows, 1, 3), [3, np.nan, 1])


def test_more_objects_than_a_byte_holds() -> None:
    labels = np.arange(1, 401, dtype=np.uint16).reshape(1, 20, 20)
    rows = measurement_rows(Cine(np.zeros((1, 20, 20), np.uint8)), labels)
    assert [row.object_id for row in rows] == list(range(1, 401))
    assert measurement_rows(Cine(np.zeros((1, 20, 20), np.uint8)), np.zeros_like(labels)) == []
