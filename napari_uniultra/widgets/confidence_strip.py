"""Confidence along the loop: a row of cells for each object, a cell for each frame.

A cell's colour is the predicted IoU: blue where it will do, orange to red-brown where it is weak, grey where the model
does not see the object, and a lighter grey where no model judged. The two hues differ for every kind of colour vision,
and in lightness. Where a column of pixels stands for several frames, it shows the worst of them, so that no weak frame
is lost in a long loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np
from qtpy.QtCore import QEvent, QPoint, QPointF, QRect, Qt, Signal
from qtpy.QtGui import (
    QColor,
    QFontMetricsF,
    QHelpEvent,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPolygonF,
    QResizeEvent,
)
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_uniultra.core.palette import Colour
from napari_uniultra.core.types import WEAK_IOU
from napari_uniultra.plugin.confidence import Confidence
from napari_uniultra.plugin.layers import Key

# (predicted IoU, colour); the jump at the limit makes a weak frame stand out.
_SCALE = (
    (0.0, (110, 40, 0)),
    (WEAK_IOU - 1e-6, (255, 150, 60)),
    (WEAK_IOU, (196, 222, 240)),
    (1.0, (0, 104, 176)),
)
NOT_SEEN: Colour = (128, 128, 128)
FILLED: Colour = (172, 172, 172)
WEAK_EDGE: Colour = (225, 90, 0)
ROW_PX, _GAP_PX, _EDGE_PX, _MARGIN_PX, _SWATCH_PX = 16, 5, 3, 6, 10
_NAMES_PX = 110  # at most
_MARK_PX = 4


def heat_colours(predicted_iou: np.ndarray, object_score: np.ndarray) -> np.ndarray:
    """Colours of cells, (N, 3) uint8, from predicted IoU, infinite where no model judged, and object score, (N,)."""
    values, colours = zip(*_SCALE, strict=True)
    heat = np.stack([np.interp(predicted_iou, values, channel) for channel in zip(*colours, strict=True)], axis=-1)
    heat[np.isinf(predicted_iou)] = FILLED
    heat[object_score < 0] = NOT_SEEN
    return heat.round().astype(np.uint8)


class ConfidenceStrip(QWidget):
    """The rows. Values in; the frame that is clicked or dragged to out."""

    frame_chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._confidence = Confidence(1)
        self._rows: dict[int, tuple[str, Colour]] = {}
        self._prompted: dict[int, list[int]] = {}
        self._accepted: dict[int, list[tuple[int, int]]] = {}
        self._accepted_keys: frozenset[Key] = frozenset()
        self._shown = 0
        self._starts = np.zeros(2, int)  # first frame of each column of cells, and the end
        self._cells = np.zeros((0, 1, 4), np.uint8)  # (row, column, BGRA)
        self._edges = self._cells  # above the cells: what needs a look
        self._left = 0  # where the cells begin
        self.setMouseTracking(False)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    # Values ---------------------------------------------------------------------------------------------------------

    def show_loop(self, confidence: Confidence, rows: Mapping[int, tuple[str, Colour]]) -> None:
        """Show the scores of a loop, with a row for each object: id to name and colour."""
        if confidence is self._confidence and rows == self._rows and len(self._cells) == len(rows):
            return
        self._confidence, self._rows = confidence, dict(rows)
        metrics = QFontMetricsF(self.font())  # whole pixels are rounded, and what is wider by a fraction is cut
        words = [math.ceil(metrics.horizontalAdvance(name)) + 1 for name, _ in rows.values()]
        self._left = _SWATCH_PX + 3 * _MARGIN_PX + min(max(words, default=0), _NAMES_PX)
        self.setFixedHeight(max(len(rows), 1) * (ROW_PX + _GAP_PX) + _GAP_PX)
        self._make_cells()

    def show_marks(self, prompted: Iterable[Key], accepted: Iterable[Key]) -> None:
        """Mark the (object id, frame) with prompts, and those that were accepted."""
        by_object: dict[int, list[int]] = {}
        for object_id, frame in sorted(prompted):
            by_object.setdefault(object_id, []).append(frame)
        keys = frozenset(accepted)
        if by_object != self._prompted or keys != self._accepted_keys:
            self._prompted, self._accepted_keys = by_object, keys
            self._accepted = {
                object_id: _runs(sorted(frame for other, frame in keys if other == object_id))
                for object_id in {object_id for object_id, _ in keys}
            }
            self.update()

    def show_scores(self, frames: Iterable[int]) -> None:
        """The scores of some frames have changed."""
        columns = np.unique(np.searchsorted(self._starts, list(frames), side="right") - 1)
        columns = columns[(columns >= 0) & (columns < self._cells.shape[1])]
        if len(columns) and len(self._rows):
            self._colour(columns)
            left, right = self._edge(self._starts[columns[0]]), self._edge(self._starts[columns[-1] + 1])
            self.update(QRect(left - 1, 0, right - left + 2, self.height()))

    def show_frame(self, frame: int) -> None:
        """Move the cursor to the frame that is shown in the viewer."""
        if frame != self._shown:
            before, self._shown = self._shown, frame
            for own in (before, frame):
                self.update(self._cursor(own).adjusted(-2, -2, 2, 2))

    # Cells ----------------------------------------------------------------------------------------------------------

    def _make_cells(self) -> None:
        frames = self._confidence.num_frames
        columns = max(1, min(frames, self._plot().width()))
        self._starts = np.arange(columns + 1) * frames // columns
        self._cells = np.zeros((len(self._rows), columns, 4), np.uint8)
        self._edges = np.zeros_like(self._cells)
        if len(self._rows):
            self._colour(np.arange(columns))
        self.update()

    def _colour(self, columns: np.ndarray) -> None:
        for row, object_id in enumerate(self._rows):
            iou = self._lowest(self._confidence.predicted_iou(object_id), columns)
            score = self._lowest(self._confidence.object_score(object_id), columns)
            known = np.isfinite(score)
            self._cells[row, columns] = 0
            self._cells[row, columns[known], :3] = heat_colours(iou[known], score[known])[:, ::-1]
            self._cells[row, columns[known], 3] = 255
            weak = (iou < WEAK_IOU) | (score < 0)
            self._edges[row, columns] = 0
            self._edges[row, columns[weak]] = (*WEAK_EDGE[::-1], 255)

    def _lowest(self, values: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The lowest of ``values`` (T,) in each of some columns; infinite where none is known."""
        filled = np.append(np.where(np.isnan(values), np.inf, values), np.inf)
        bounds = np.stack([self._starts[columns], self._starts[columns + 1]], axis=1).ravel()
        return np.minimum.reduceat(filled, bounds)[::2]

    # Places ---------------------------------------------------------------------------------------------------------

    def _plot(self) -> QRect:
        return QRect(self._left, 0, max(1, self.width() - self._left - _MARGIN_PX), self.height())

    def _edge(self, frame: int) -> int:
        """x of a frame's left edge."""
        plot = self._plot()
        return plot.left() + round(int(frame) * plot.width() / self._confidence.num_frames)

    def _cursor(self, frame: int) -> QRect:
        left, right = self._edge(frame), self._edge(frame + 1)
        return QRect(left, 0, max(right - left, 2), self.height() - 1)

    @staticmethod
    def _top(row: int) -> int:
        return _GAP_PX + row * (ROW_PX + _GAP_PX)

    def frame_at(self, x: float) -> int:
        """The frame at a position in the widget, the nearest one beside it."""
        plot = self._plot()
        frame = int((x - plot.left()) * self._confidence.num_frames // plot.width())
        return min(max(frame, 0), self._confidence.num_frames - 1)

    def words_at(self, position: QPoint) -> str:
        """What is known at a position in the widget, in words; empty beside the rows."""
        row = position.y() // (ROW_PX + _GAP_PX)
        if not 0 <= row < len(self._rows) or position.x() < self._plot().left():
            return ""
        object_id, frame = list(self._rows)[row], self.frame_at(position.x())
        score = self._confidence.at(object_id, frame)
        words = [f"Frame {frame}, {self._rows[object_id][0]}", "Not segmented yet" if score is None else score.words]
        words += ["Marked by you"] if frame in self._prompted.get(object_id, ()) else []
        words += ["Accepted"] if (object_id, frame) in self._accepted_keys else []
        return "\n".join(words)

    # Painting -------------------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw what lies in the part that needs it."""
        painter = QPainter(self)
        area = self.rect() if event is None else event.rect()
        for row, object_id in enumerate(self._rows):
            self._paint_row(painter, row, object_id)
            self._paint_marks(painter, area, row, object_id)
        if self._rows:
            painter.setPen(self.palette().color(self.foregroundRole()))
            painter.drawRect(self._cursor(self._shown).adjusted(-1, 0, 0, 0))

    def _paint_row(self, painter: QPainter, row: int, object_id: int) -> None:
        (name, colour), plot, top = self._rows[object_id], self._plot(), self._top(row)
        painter.fillRect(_MARGIN_PX, top + (ROW_PX - _SWATCH_PX) // 2, _SWATCH_PX, _SWATCH_PX, QColor(*colour))
        painter.setPen(self.palette().color(self.foregroundRole()))
        room = QRect(2 * _MARGIN_PX + _SWATCH_PX, top, plot.left() - 3 * _MARGIN_PX - _SWATCH_PX, ROW_PX)
        words = self.fontMetrics().elidedText(name, Qt.TextElideMode.ElideRight, room.width())
        painter.drawText(room, Qt.AlignmentFlag.AlignVCenter, words)
        painter.fillRect(plot.left(), top, plot.width(), ROW_PX, QColor(128, 128, 128, 40))
        _paint_line(painter, QRect(plot.left(), top, plot.width(), ROW_PX), self._cells[row])
        _paint_line(painter, QRect(plot.left(), top - _EDGE_PX, plot.width(), _EDGE_PX), self._edges[row])

    def _paint_marks(self, painter: QPainter, area: QRect, row: int, object_id: int) -> None:
        top, foreground = self._top(row), self.palette().color(self.foregroundRole())
        for first, last in self._accepted.get(object_id, ()):
            left, right = self._edge(first), self._edge(last + 1)
            painter.fillRect(left, top + ROW_PX - _EDGE_PX, max(right - left, 2), _EDGE_PX, foreground)
        painter.setPen(QColor(0, 0, 0))
        painter.setBrush(QColor(255, 255, 255))
        for frame in self._prompted.get(object_id, ()):
            middle = (self._edge(frame) + self._edge(frame + 1)) / 2
            if area.left() - _MARK_PX <= middle <= area.right() + _MARK_PX:
                painter.drawPolygon(triangle(middle, top))
        painter.setBrush(Qt.BrushStyle.NoBrush)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Another width holds another number of columns."""
        super().resizeEvent(event)
        self._make_cells()

    # The mouse ------------------------------------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Go to the frame under the pointer."""
        self._choose(event)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """While a button is held: go along."""
        self._choose(event)

    def _choose(self, event: QMouseEvent) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton and self._rows:
            self.frame_chosen.emit(self.frame_at(event.position().x()))

    def event(self, event: QEvent | None) -> bool:
        """Say what is under the pointer."""
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            QToolTip.showText(event.globalPos(), self.words_at(event.pos()), self)
            return True
        return super().event(event)


def _paint_line(painter: QPainter, place: QRect, line: np.ndarray) -> None:
    """Draw one line of pixels (N, 4) BGRA, stretched over a place."""
    painter.drawImage(place, QImage(line.data, len(line), 1, 4 * len(line), QImage.Format.Format_ARGB32))


def triangle(x: float, top: float) -> QPolygonF:
    """The mark of a frame with prompts, pointing down into its cell."""
    corners = ((x - _MARK_PX, top), (x + _MARK_PX, top), (x, top + 1.6 * _MARK_PX))
    return QPolygonF([QPointF(*corner) for corner in corners])


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers in an ascending list."""
    cuts = [0, *(i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1), len(numbers)]
    return [(numbers[first], numbers[end - 1]) for first, end in pairwise(cuts) if end > first]
