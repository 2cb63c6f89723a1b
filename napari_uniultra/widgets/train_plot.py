"""Curves of training: the loss and a validation metric over steps, of one run or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping

import pyqtgraph
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_uniultra.core.palette import colour_of
from napari_uniultra.runner.history import Curve, History

_BACKGROUND, _FOREGROUND = (38, 41, 48), (210, 210, 210)
_HEIGHT = 130  # pixels of each of the two
_METRICS = {"tracked_dice": "Tracked Dice", "dice": "Dice"}
_SPREAD = 10  # points of a smoothed loss


class CurvesPlot(QWidget):
    """Two plots, one above the other, over the same steps.

    Parameters
    ----------
    metrics : mapping of str to str
        Validation metrics to show below the loss, with their words: the first that all runs have.
    """

    def __init__(self, metrics: Mapping[str, str] = _METRICS) -> None:
        super().__init__()
        self._metrics = metrics
        self.loss, self.metric = self._plot("Loss"), self._plot("Dice")
        self.metric.setXLink(self.loss)
        self.metric.setLabel("bottom", "Step")
        self.lines: dict[tuple[str, str], pyqtgraph.PlotDataItem] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.loss)
        layout.addWidget(self.metric)

    @staticmethod
    def _plot(words: str) -> pyqtgraph.PlotWidget:
        plot = pyqtgraph.PlotWidget(background=_BACKGROUND)
        plot.setFixedHeight(_HEIGHT)
        plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)  # its own wish is 640 wide
        plot.setMouseEnabled(x=True, y=False)
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.showGrid(x=True, y=True, alpha=0.15)
        plot.setLabel("left", words)
        for side in ("left", "bottom"):
            plot.getAxis(side).setPen(_FOREGROUND)
            plot.getAxis(side).setTextPen(_FOREGROUND)
            plot.getAxis(side).enableAutoSIPrefix(False)
        plot.getAxis("left").setWidth(52)  # the same, so that steps stand above each other
        plot.setToolTip("Over steps: drag or scroll to look at a part, double click to see all")
        plot.scene().sigMouseClicked.connect(lambda event: plot.enableAutoRange() if event.double() else None)
        return plot

    def show_runs(self, histories: Mapping[str, History]) -> None:
        """Draw the curves of runs, by their titles; lines that are there are moved and not made anew."""
        wanted: dict[tuple[str, str], Curve] = {}
        metric = self._common_metric(histories)
        for title, history in histories.items():
            for kind, name in (("loss", "loss"), ("metric", metric)):
                curve = history.curves.get(name) if name else None
                if curve is not None:
                    wanted[title, kind] = curve
        for key in [key for key in self.lines if key not in wanted]:
            self._plot_of(key[1]).removeItem(self.lines.pop(key))
        for number, title in enumerate(histories, 1):
            for kind in ("loss", "metric"):
                if (title, kind) in wanted:
                    self._draw(title, kind, wanted[title, kind], number)

    def _common_metric(self, histories: Mapping[str, History]) -> str | None:
        """What the lower plot shows, whose axis is named after it: the first metric of all runs that were validated."""
        validated = [own for own in histories.values() if any(own.last(name) is not None for name in self._metrics)]
        known = [name for name in self._metrics if all(own.last(name) is not None for own in validated)]
        metric = known[0] if validated and known else None
        if metric is not None:
            self.metric.setLabel("left", self._metrics[metric])
        return metric

    def _plot_of(self, kind: str) -> pyqtgraph.PlotWidget:
        return self.loss if kind == "loss" else self.metric

    def _draw(self, title: str, kind: str, curve: Curve, number: int) -> None:
        colour = colour_of(number)
        line = self.lines.get((title, kind))
        if line is None:
            dots = {"symbol": "o", "symbolSize": 5, "symbolBrush": colour, "symbolPen": None} if kind != "loss" else {}
            line = self._plot_of(kind).plot(pen=pyqtgraph.mkPen(colour, width=2), **dots)
            self.lines[title, kind] = line
        line.setPen(pyqtgraph.mkPen(colour, width=2, style=Qt.PenStyle.SolidLine))
        line.setData(curve.steps, _smoothed(curve.values) if kind == "loss" else curve.values)


def _smoothed(values: list[float]) -> list[float]:
    """A running mean over the last points, so that the trend of a noisy loss is seen."""
    found, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - _SPREAD] if index >= _SPREAD else 0.0)
        found.append(total / min(index + 1, _SPREAD))
    return found
