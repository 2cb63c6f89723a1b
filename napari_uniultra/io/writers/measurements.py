"""Measurements as tables: one of every frame and object, one of the heart's cycles."""

from __future__ import annotations

import os
from collections.abc import Iterable

from napari_uniultra.core.csv_table import Table, write_table
from napari_uniultra.core.measure import CycleMeasurement, Measurement
from napari_uniultra.errors import WriteError

_LENGTHS = (
    "perimeter",
    "longest_diameter",
    "perpendicular_diameter",
    "equivalent_diameter",
    "ellipse_circumference",
    "thickness",
)


def write_measurements_csv(path: str | os.PathLike[str], rows: Iterable[Measurement]) -> None:
    """Write one line per frame and object, as `measurement_table` has them; what is unknown is empty.

    UTF-8, comma-separated, with a header line.

    Raises
    ------
    WriteError
        When the rows mix mm and pixels, or the disk refuses.
    """
    write_table(path, *measurement_table(rows))


def write_cycles_csv(path: str | os.PathLike[str], cycles: Iterable[CycleMeasurement], in_mm: bool) -> None:
    """Write one line per heart cycle, as `cycle_table` has them.

    Raises
    ------
    WriteError
        When the disk refuses.
    """
    write_table(path, *cycle_table(cycles, in_mm))


def measurement_table(rows: Iterable[Measurement]) -> Table:
    """Header and cells of measurements, as text.

    The columns are frame, time_s, object_id, object, area_mm2, predicted_iou, object_score, perimeter_mm,
    longest_diameter_mm, perpendicular_diameter_mm, equivalent_diameter_mm, ellipse_circumference_mm, thickness_mm,
    area_change_percent and cut_by_border (1 or 0); px takes the place of mm and mm2 where the spacing is unknown.

    Raises
    ------
    WriteError
        When the rows mix mm and pixels.
    """
    rows = list(rows)
    units = {row.unit for row in rows} or {"px"}
    if len(units) > 1:
        raise WriteError("The measurements were not written", "some are in mm2 and some in pixels", "Write them apart")
    area_unit = units.pop()
    length_unit = "mm" if area_unit == "mm2" else "px"
    header = ["frame", "time_s", "object_id", "object", f"area_{area_unit}", "predicted_iou", "object_score"]
    header += [f"{length}_{length_unit}" for length in _LENGTHS]
    return [*header, "area_change_percent", "cut_by_border"], [_cells(row) for row in rows]


def _cells(row: Measurement) -> list[str]:
    shape = row.shape
    return [
        str(row.frame),
        _number(row.time_s, 6),
        str(row.object_id),
        row.object_name,
        _number(row.area, 4),
        _number(row.predicted_iou, 4),
        _number(row.object_score, 4),
        *(_number(None if shape is None else getattr(shape, length), 4) for length in _LENGTHS),
        _percent(row.area_change),
        "" if shape is None else str(int(shape.cut_by_border)),
    ]


def cycle_table(cycles: Iterable[CycleMeasurement], in_mm: bool) -> Table:
    """Header and cells of heart cycles, as text; times in ms, areas in mm2 or px, volumes in ml or px3."""
    area, volume = ("mm2", "ml") if in_mm else ("px", "px3")
    header = ["object_id", "object", "ed_frame", "es_frame", "ed_time_ms", "es_time_ms", f"ed_area_{area}"]
    header += [f"es_area_{area}", "fractional_area_change_percent", f"ed_volume_{volume}", f"es_volume_{volume}"]
    return [*header, "ejection_fraction_percent"], [_cycle_cells(cycle) for cycle in cycles]


def _cycle_cells(cycle: CycleMeasurement) -> list[str]:
    return [
        str(cycle.object_id),
        cycle.object_name,
        str(cycle.ed_frame),
        str(cycle.es_frame),
        _number(cycle.ed_time_ms, 3),
        _number(cycle.es_time_ms, 3),
        _number(cycle.ed_area, 4),
        _number(cycle.es_area, 4),
        _percent(cycle.fractional_area_change),
        _number(cycle.ed_volume, 4),
        _number(cycle.es_volume, 4),
        _percent(cycle.ejection_fraction),
    ]


def _percent(share: float | None) -> str:
    return _number(None if share is None else 100 * share, 2)


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return ""
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
