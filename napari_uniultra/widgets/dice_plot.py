"""Dice over the frames of a loop, a line for every object."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyqtgraph

from napari_uniultra.widgets.area_plot import AreaPlot


class DicePlot(AreaPlot):
    """The plot of areas with another scale: from 0 to 1, over frames."""

    def show_dice(self, curves: Mapping[int, np.ndarray], frames: int) -> None:
        """Draw Dice (T,) of objects, by the id that gives their colour; NaN leaves a gap."""
        self.show_curves(np.arange(frames, dtype=float), curves, next(iter(curves), 0), "frame", "")
        self.plot.setLabel("left", "Dice")
        self.plot.setYRange(0.0, 1.0, padding=0.03)

    def _line(self, positions: np.ndarray, curve: np.ndarray, number: int, chosen: bool) -> pyqtgraph.PlotDataItem:
        return super()._line(positions, curve, number, chosen=True)  # all count the same here
