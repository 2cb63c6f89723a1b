"""What a mask measures: lengths and areas, thickness, change over time, and the heart's cycles."""

from napari_uniultra.core.measure.cardiac import (
    Cycle,
    CycleMeasurement,
    chosen_cycles,
    disc_volume,
    ejection_fraction,
    find_cycles,
    fractional_area_change,
    long_axis,
    measure_cycle,
    measure_object_cycle,
)
from napari_uniultra.core.measure.geometry import Ellipse, MaskShape, fit_ellipse, measure_shape, outline_of
from napari_uniultra.core.measure.markers import Markers
from napari_uniultra.core.measure.rows import (
    Measurement,
    area_curve,
    area_mm2,
    area_px,
    measure_labels,
    measurement_rows,
    with_area_change,
)
from napari_uniultra.core.measure.thickness import Thickness, thickness_between, thickness_of

__all__ = [
    "Cycle",
    "CycleMeasurement",
    "Ellipse",
    "Markers",
    "MaskShape",
    "Measurement",
    "Thickness",
    "area_curve",
    "area_mm2",
    "area_px",
    "chosen_cycles",
    "disc_volume",
    "ejection_fraction",
    "find_cycles",
    "fit_ellipse",
    "fractional_area_change",
    "long_axis",
    "measure_cycle",
    "measure_labels",
    "measure_object_cycle",
    "measure_shape",
    "measurement_rows",
    "outline_of",
    "thickness_between",
    "thickness_of",
    "with_area_change",
]
