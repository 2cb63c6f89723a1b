"""Area over time: a line for every object, the frame that is shown, and the chosen beat; all three can be dragged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyqtgraph
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_uniultra.core.palette import Colour, colour_of

_SHOWN_COLOUR, _ED_COLOUR, _ES_COLOUR = (255, 255, 255), (120, 220, 120), (255, 140, 120)
_BACKGROUND, _FOREGROUND = (38, 41, 48), (210, 210, 210)
_FAINT = 90  # opacity of 255, of the objects that are not chosen
_HEIGHT = 190


class AreaPlot(QWidget):
    """The plot. It knows positions on the axis of time, and speaks of frames."""

    frame_chosen = Signal(int)
    ed_moved = Signal(int)
    es_moved = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.plot = pyqtgraph.PlotWidget(background=_BACKGROUND)
        self.plot.setFixedHeight(_HEIGHT)
        self.plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)  # its own wish is 640 wide
        self.plot.setMouseEnabled(x=True, y=False)
        self.plot.setMenuEnabled(False)
        self.plot.hideButtons()
        self.plot.showGrid(x=True, y=True, alpha=0.15)
        for side in ("left", "bottom"):
            self.plot.getAxis(side).setPen(_FOREGROUND)
            self.plot.getAxis(side).setTextPen(_FOREGROUND)
            self.plot.getAxis(side).enableAutoSIPrefix(False)
        self.plot.scene().sigMouseClicked.connect(self._on_click)
        self.shown = self._marker(_SHOWN_COLOUR, "", self.frame_chosen, while_moving=True)
        self.ed = self._marker(_ED_COLOUR, "ED", self.ed_moved)
        self.es = self._marker(_ES_COLOUR, "ES", self.es_moved)
        self._positions = np.empty(0)
        self._colours: dict[int, Colour] = {}
        self._curves: list[pyqtgraph.PlotDataItem] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)

    def _marker(
        self, colour: tuple[int, int, int], word: str, moved: Signal, while_moving: bool = False
    ) -> pyqtgraph.InfiniteLine:
        style = Qt.PenStyle.DashLine if word else Qt.PenStyle.SolidLine
        options = {"position": 0.92, "color": colour, "movable": True}
        marker = pyqtgraph.InfiniteLine(
            angle=90,
            movable=True,
            pen=pyqtgraph.mkPen(colour, width=2, style=style),
            hoverPen=pyqtgraph.mkPen(colour, width=4),
            label=word,
            labelOpts=options,
        )
        emitter = marker.sigDragged if while_moving else marker.sigPositionChangeFinished
        emitter.connect(lambda line: moved.emit(self._frame_at(line.value())))
        marker.setVisible(False)
        self.plot.addItem(marker)
        return marker

    # Showing --------------------------------------------------------------------------------------------------------

    def show_curves(
        self,
        positions: np.ndarray,
        curves: Mapping[int, np.ndarray],
        chosen: int,
        time_unit: str,
        area_unit: str,
        colours: Mapping[int, Colour] | None = None,
    ) -> None:
        """Draw area curves (T,) of objects over ``positions`` (T,); NaN leaves a gap."""
        self._positions, self._colours = positions, dict(colours or {})
        for curve in self._curves:
            self.plot.removeItem(curve)
        self._curves = [self._line(positions, curve, number, number == chosen) for number, curve in curves.items()]
        self.plot.setLabel(
            "bottom", "Time" if time_unit == "ms" else "Frame", units=None if time_unit != "ms" else "ms"
        )
        self.plot.setLabel("left", f"Area ({area_unit})")
        if len(positions) > 1:
            self.plot.setXRange(float(positions[0]), float(positions[-1]), padding=0.03)
            self.plot.enableAutoRange(axis="y")
        self.shown.setVisible(len(positions) > 0)

    def _line(self, positions: np.ndarray, curve: np.ndarray, number: int, chosen: bool) -> pyqtgraph.PlotDataItem:
        colour = (*colour_of(number, self._colours), 255 if chosen else _FAINT)
        return self.plot.plot(
            positions,
            curve,
            connect="finite",
            pen=pyqtgraph.mkPen(colour, width=2 if chosen else 1),
            symbol="o" if chosen else None,
            symbolSize=4,
            symbolBrush=colour,
            symbolPen=None,
        )

    def show_frame(self, frame: int) -> None:
        """Move the marker of the frame that is shown."""
        self._put(self.shown, frame)

    def show_cycle(self, ed: int | None, es: int | None) -> None:
        """Move the markers of end-diastole and end-systole; None hides them."""
        for marker, frame in ((self.ed, ed), (self.es, es)):
            marker.setVisible(frame is not None)
            if frame is not None:
                self._put(marker, frame)

    def _put(self, marker: pyqtgraph.InfiniteLine, frame: int) -> None:
        if frame < len(self._positions):
            blocker = QSignalBlocker(marker)
            marker.setValue(float(self._positions[frame]))
            del blocker

    # Choosing -------------------------------------------------------------------------------------------------------

    def _frame_at(self, position: float) -> int:
        return int(np.abs(self._positions - position).argmin()) if len(self._positions) else 0

    def _on_click(self, event: object) -> None:
        if event.button() == Qt.MouseButton.LeftButton and len(self._positions):
            point = self.plot.getPlotItem().vb.mapSceneToView(event.scenePos())
            self.frame_chosen.emit(self._frame_at(point.x()))
