"""What a session measures, as tables that go into its file. No Qt, no napari."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from napari_uniultra.core.csv_table import csv_text
from napari_uniultra.core.measure import (
    CycleMeasurement,
    Measurement,
    area_curve,
    chosen_cycles,
    long_axis,
    measure_cycle,
    measurement_rows,
)
from napari_uniultra.core.types import PIXELS, Cine
from napari_uniultra.io.writers.measurements import cycle_table, measurement_table


def session_tables(session: Any, cine: Cine) -> dict[str, str]:
    """Measurements of every frame and object, and of the heart's cycles, by file name as CSV.

    Parameters
    ----------
    session : CineSession
    cine : Cine
        The session's loop, with the spacing and the times as they are known now.
    """
    steps = (session.step(frame) for frame in session.frames_with_results)
    rows = measurement_rows(cine, steps, session.names)
    tables = {"measurements.csv": csv_text(measurement_table(rows))}
    cycles = list(_cycles(session, cine, rows))
    if cycles:
        tables["beats.csv"] = csv_text(cycle_table(cycles, cine.spacing_mm is not None))
    return tables


def _cycles(session: Any, cine: Cine, rows: list[Measurement]) -> Iterator[CycleMeasurement]:
    markers, spacing = session.markers, cine.spacing_mm or PIXELS
    for object_id, name in sorted(session.names.items()):
        curve = area_curve(rows, object_id, len(cine))
        for cycle in chosen_cycles(markers.cycles.get(object_id, ()), curve, cine.frame_times_s):
            ed, es = (session.step(frame).masks[object_id] for frame in (cycle.ed, cycle.es))
            axes = (
                markers.axes.get((object_id, cycle.ed)) or long_axis(ed, spacing),
                markers.axes.get((object_id, cycle.es)) or long_axis(es, spacing),
            )
            yield measure_cycle(cycle, (ed, es), axes, cine.spacing_mm, cine.frame_times_s, object_id, name)
