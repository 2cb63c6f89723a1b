"""The confidence strip below the picture, with its legend, following a controller."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent
from qtpy.QtWidgets import QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from napari_uniultra.core.types import WEAK_IOU
from napari_uniultra.plugin.confidence import Confidence
from napari_uniultra.plugin.controller import SegmentController
from napari_uniultra.widgets.confidence_strip import (
    FILLED,
    NOT_SEEN,
    ROW_PX,
    WEAK_EDGE,
    ConfidenceStrip,
    heat_colours,
    triangle,
)
from napari_uniultra.widgets.parts import FRAME_PX, push_button

_ROWS_SHOWN = 4  # more are scrolled to
_BAR_PX, _GAP_PX, _EDGE_PX = 90, 8, 3


class ConfidenceDock(QWidget):
    """What goes into the dock at the bottom of a viewer's window.

    Parameters
    ----------
    viewer : napari.Viewer
    controller : SegmentController
    """

    def __init__(self, viewer: Any, controller: SegmentController) -> None:
        super().__init__()
        self._viewer, self._control = viewer, controller
        self.strip = ConfidenceStrip()
        self.previous_button = push_button("◀ Weak", "Go to the frame before this one that needs a look (8)")
        self.next_button = push_button("Weak ▶", "Go to the next frame that needs a look (9)")
        self._lay_out()
        navigator = controller.navigator
        self.strip.frame_chosen.connect(navigator.go_to)
        self.previous_button.clicked.connect(lambda: navigator.previous_weak())
        self.next_button.clicked.connect(lambda: navigator.next_weak())
        controller.changed.connect(self.refresh)
        controller.scores_changed.connect(self._on_scores)
        viewer.dims.events.current_step.connect(self._on_frame)
        self._dock = viewer.window.add_dock_widget(self, name="Confidence", area="bottom")
        self.refresh()

    def _lay_out(self) -> None:
        head = QHBoxLayout()
        head.addWidget(_Legend(), 1)
        head.addWidget(self.previous_button)
        head.addWidget(self.next_button)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(self.strip)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 2, 4, 2)
        layout.setSpacing(2)
        layout.addLayout(head)
        layout.addWidget(self._scroll)

    def refresh(self) -> None:
        """Show the loop in use, its objects and marks."""
        work, known = self._control.work, self._control.snapshot
        self.setEnabled(work is not None)
        rows = {own.object_id: (own.name, own.colour) for own in self._control.objects.all}
        self.strip.show_loop(Confidence(1) if work is None else work.confidence, rows)
        height = self.strip.minimumHeight()
        self._scroll.setFixedHeight(height * min(len(rows), _ROWS_SHOWN) // max(len(rows), 1) + FRAME_PX)
        self.strip.show_marks(known.prompts, known.locked)
        self._on_frame()

    def _on_scores(self, frames: frozenset[int]) -> None:
        self.strip.show_scores(frames)

    def _on_frame(self, event: Any = None) -> None:
        self.strip.show_frame(self._control.frame)

    def take_away(self) -> None:
        """Remove the dock and let go of the viewer, which outlives it."""
        self._viewer.dims.events.current_step.disconnect(self._on_frame)
        try:
            self._viewer.window.remove_dock_widget(self._dock)
        except (RuntimeError, LookupError, AttributeError):  # the window is closing, or has taken it away already
            return
        self.deleteLater()


class _Legend(QWidget):
    """What the colours and marks of the strip mean."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip(
            "Predicted IoU: how well the model expects its outline to fit, 1 at best. "
            f"Below {WEAK_IOU}, or where it does not see the structure, have a look."
        )

    def minimumSizeHint(self) -> QSize:
        """One line of words."""
        return QSize(80, ROW_PX + 4)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw it."""
        painter = QPainter(self)
        foreground = self.palette().color(self.foregroundRole())
        top, x = (self.height() - ROW_PX) // 2, 4
        x = self._words(painter, x, "Predicted IoU  0.4")
        shades = np.ascontiguousarray(np.full((_BAR_PX, 4), 255, np.uint8))
        shades[:, :3] = heat_colours(np.linspace(0.4, 1, _BAR_PX), np.ones(_BAR_PX))[:, ::-1]
        painter.drawImage(
            QRect(x, top + 2, _BAR_PX, ROW_PX - 4),
            QImage(shades.data, _BAR_PX, 1, 4 * _BAR_PX, QImage.Format.Format_ARGB32),
        )
        x = self._words(painter, x + _BAR_PX + 4, "1") + _GAP_PX
        for colour, words in ((NOT_SEEN, "not seen"), (FILLED, "filled in")):
            painter.fillRect(x, top + 2, ROW_PX, ROW_PX - 4, QColor(*colour))
            x = self._words(painter, x + ROW_PX + 4, words) + _GAP_PX
        painter.fillRect(x, top + ROW_PX // 2 - 1, ROW_PX, _EDGE_PX, QColor(*WEAK_EDGE))
        x = self._words(painter, x + ROW_PX + 4, "needs a look") + _GAP_PX
        painter.setPen(QColor(0, 0, 0))
        painter.setBrush(QColor(255, 255, 255))
        painter.drawPolygon(triangle(x + 4, top + 4))
        x = self._words(painter, x + 12, "marked by you") + _GAP_PX
        painter.fillRect(x, top + ROW_PX - 2 * _EDGE_PX, ROW_PX, _EDGE_PX, foreground)
        self._words(painter, x + ROW_PX + 4, "accepted")

    def _words(self, painter: QPainter, x: int, words: str) -> int:
        """Draws words; returns where they end."""
        painter.setPen(self.palette().color(self.foregroundRole()))
        width = self.fontMetrics().horizontalAdvance(words)
        painter.drawText(QRect(x, 0, width + 2, self.height()), Qt.AlignmentFlag.AlignVCenter, words)
        return x + width + 4
