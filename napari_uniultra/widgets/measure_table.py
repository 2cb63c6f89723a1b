"""The measurements of one object as a table, a row for every frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt

from napari_uniultra.core.measure import Measurement

_LENGTHS = (
    ("Perimeter", "perimeter", "Length of the outline"),
    ("Longest", "longest_diameter", "The longest diameter"),
    ("Across", "perpendicular_diameter", "The longest line at a right angle to the longest diameter"),
    ("Equivalent", "equivalent_diameter", "Diameter of the disc of the same area"),
    ("Ellipse", "ellipse_circumference", "Circumference of the fitted ellipse; the head circumference of a fetal head"),
    ("Thickness", "thickness", "Mean distance between the two long sides"),
)
_NUMBERS = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class MeasurementModel(QAbstractTableModel):
    """Rows of one object."""

    def __init__(self) -> None:
        super().__init__()
        self._header: list[tuple[str, str]] = []
        self._cells: list[list[str]] = []
        self.frames: list[int] = []

    def show(self, rows: Sequence[Measurement], in_mm: bool, in_ms: bool) -> None:
        """Show other rows."""
        area, length = ("mm²", "mm") if in_mm else ("px", "px")
        self.beginResetModel()
        self._header = [("Frame", "Counted from 0")]
        self._header += [("Time\nms", "From the first frame")] if in_ms else []
        self._header += [(f"Area\n{area}", "Area of the whole mask")]
        self._header += [(f"{word}\n{length}", tip) for word, _, tip in _LENGTHS]
        self._header += [("Change\n%", "Of the area, since the first frame")]
        self._header += [
            ("Cut", "The object reaches the edge of the image or of the scan area and may go on beyond it")
        ]
        self._cells = [_cells(row, in_ms) for row in rows]
        self.frames = [row.frame for row in rows]
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Number of frames."""
        return len(self._cells)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Number of measurements."""
        return len(self._header)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A cell's text and alignment."""
        if role == Qt.ItemDataRole.DisplayRole:
            return self._cells[index.row()][index.column()]
        return _NUMBERS if role == Qt.ItemDataRole.TextAlignmentRole else None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A column's word with its unit, and what it means."""
        if orientation == Qt.Orientation.Horizontal and section < len(self._header):
            if role == Qt.ItemDataRole.DisplayRole:
                return self._header[section][0]
            if role == Qt.ItemDataRole.ToolTipRole:
                return self._header[section][1]
        return None


def _cells(row: Measurement, in_ms: bool) -> list[str]:
    shape = row.shape
    cells = [str(row.frame)]
    cells += [_number(None if row.time_s is None else 1000 * row.time_s, 0)] if in_ms else []
    cells += [_number(row.area)]
    cells += [_number(None if shape is None else getattr(shape, name)) for _, name, _ in _LENGTHS]
    cells += [_number(None if row.area_change is None else 100 * row.area_change)]
    return [*cells, "yes" if shape is not None and shape.cut_by_border else ""]


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"
