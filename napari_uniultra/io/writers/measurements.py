"""Measurements as a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.measure import Measurement
from napari_uniultra.errors import WriteError


def write_measurements_csv(path: str | os.PathLike[str], rows: Iterable[Measurement]) -> None:
    """Write one line per frame and object; what is unknown is empty.

    The columns are frame, time_s, object_id, object, area_mm2 (or area_px where the spacing is unknown),
    predicted_iou and object_score. UTF-8, comma-separated, with a header line.

    Raises
    ------
    WriteError
        When the rows mix mm and pixels, or the disk refuses.
    """
    rows = list(rows)
    units = {row.unit for row in rows} or {"px"}
    if len(units) > 1:
        raise WriteError("The measurements were not written", "some are in mm2 and some in pixels", "Write them apart")
    header = ["frame", "time_s", "object_id", "object", f"area_{units.pop()}", "predicted_iou", "object_score"]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(_cells(row) for row in rows)


def _cells(row: Measurement) -> list[str | int]:
    return [
        row.frame,
        _number(row.time_s, 6),
        row.object_id,
        row.object_name,
        _number(row.area, 4),
        _number(row.predicted_iou, 4),
        _number(row.object_score, 4),
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}".rstrip("0").rstrip(".")
