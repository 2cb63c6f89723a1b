"""Spacing by hand: draw a line over the depth scale and type how long it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_uniultra.core.spacing import spacing_from_line
from napari_uniultra.errors import PromptError, UniUltraError
from napari_uniultra.plugin.loop_scale import Scale, rescale, spacing_of
from napari_uniultra.widgets.parts import push_button, tell

LINE_NAME = "UniUltra scale"
_UNKNOWN = "unknown: results are in pixels"


class SpacingControl(QWidget):
    """Shows a loop's spacing, and sets it from a line.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    image : callable
        Gives the image layer to calibrate, or None.
    """

    def __init__(self, napari_viewer: Any, image: Callable[[], Any]) -> None:
        super().__init__()
        self._viewer, self._image = napari_viewer, image
        self._line: Any = None
        self._place: tuple[Any, ...] = ()  # of the line: the loop that it is drawn on, as that lay then
        self.label = QLabel(_UNKNOWN)
        self.label.setWordWrap(True)
        self.draw_button = push_button("Draw scale…", "Draw a line over the depth scale, then type its length")
        self.length_box = QDoubleSpinBox()
        self.length_box.setRange(0.1, 1000.0)
        self.length_box.setValue(10.0)
        self.length_box.setSuffix(" mm")
        self.length_box.setToolTip("How long the line is by the scale")
        self.apply_button = push_button("Apply", "Use this scale for the loop")
        row = QHBoxLayout()
        for widget in (self.draw_button, self.length_box, self.apply_button):
            row.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.label)
        layout.addLayout(row)
        self.draw_button.clicked.connect(self.draw)
        self.apply_button.clicked.connect(self.apply)
        self.refresh()

    def refresh(self) -> None:
        """Show the spacing of the image in use. A line goes when it is another image, or has another scale by now."""
        layer = self._image()
        if self._place != _place_of(layer):
            self._put_away()
        spacing = None if layer is None else spacing_of(layer)
        self.label.setText(_UNKNOWN if spacing is None else f"{spacing[1]:.3g} x {spacing[0]:.3g} mm per pixel")
        drawing = self._line in self._viewer.layers
        self.draw_button.setEnabled(layer is not None)
        self.draw_button.setVisible(not drawing)
        self.length_box.setVisible(drawing)
        self.apply_button.setVisible(drawing)

    def draw(self) -> None:
        """Put the line tool in hand."""
        self.refresh()
        layer = self._image()
        if layer is None:
            return
        if self._line not in self._viewer.layers:
            # Two-dimensional, so that it shows on every frame; its data are pixels of the image.
            self._place = _place_of(layer)
            self._line = self._viewer.add_shapes(
                ndim=2,
                name=LINE_NAME,
                scale=layer.scale[-2:],
                translate=layer.translate[-2:],
                units=layer.units[-2:],
                edge_color="#ffd34d",
                edge_width=2,
            )
        self._viewer.layers.selection.active = self._line
        self._line.mode = "add_line"
        self.refresh()

    def apply(self) -> None:
        """Take the last line that was drawn, set the loop's spacing and put the line away."""
        self.refresh()
        layer = self._image()
        try:
            if self._line not in self._viewer.layers or not len(self._line.data):
                raise PromptError("There is no line yet", fix="Draw one over the depth scale of the picture")
            (y0, x0), (y1, x1) = np.asarray(self._line.data[-1], dtype=float)[[0, -1], -2:]
            known = spacing_of(layer)
            aspect = known[0] / known[1] if known else 1.0
            spacing = spacing_from_line((x0, y0), (x1, y1), self.length_box.value(), aspect)
        except UniUltraError as error:
            tell(error)
            return
        self._put_away()
        rescale(self._viewer, layer, Scale.in_mm(spacing))
        self.refresh()

    def _put_away(self) -> None:
        line, self._line, self._place = self._line, None, ()
        if line in self._viewer.layers:
            self._viewer.layers.remove(line)


def _place_of(layer: Any) -> tuple[Any, ...]:
    return () if layer is None else (layer, tuple(layer.scale), tuple(layer.translate))
