"""The long axes at end-diastole and end-systole, as lines that the user can move by their ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from napari.layers import Shapes

from napari_uniultra.core.measure.cardiac import Axis
from napari_uniultra.core.prompts import rowcol_from_xy, xy_from_rowcol
from napari_uniultra.plugin.image_layer import TRANSFORM, frames_shape, lay_over, transform_of
from napari_uniultra.plugin.layers import Placement, affine_of
from napari_uniultra.plugin.spare_drawing import draw_only_where_marked

AXIS_NAME = "UniUltra long axis"
_WIDTH = 0.006  # of the picture's longer side
_TEXT = {"string": "{phase}", "color": "white", "size": 10, "anchor": "upper_left"}


class AxisLayer:
    """A Shapes layer with one line for each frame it is given.

    Parameters
    ----------
    viewer : napari.Viewer
    labels : napari.layers.Labels
        The lines lie over its masks.
    on_edit : callable
        Called when the user has moved a line; `read` gives them all.
    """

    def __init__(self, viewer: Any, labels: Any, on_edit: Callable[[], None]) -> None:
        self._viewer, self._labels, self._on_edit = viewer, labels, on_edit
        self._quiet = False
        self._width = max(frames_shape(labels)[-2:]) * _WIDTH
        self.layer = Shapes(
            name=AXIS_NAME,
            features={"phase": np.zeros(0, dtype=str)},
            feature_defaults={"phase": ""},
            text=_TEXT,
            edge_width=self._width,
            edge_color="white",
            face_color=[0, 0, 0, 0],
            **transform_of(labels),
        )
        viewer.add_layer(self.layer)
        draw_only_where_marked(viewer, self.layer)
        self.layer.events.data.connect(self._on_data)
        self._follow_labels(True)

    def show(self, axes: Mapping[int, tuple[str, Axis]]) -> None:
        """Show these lines, by frame, each with a word beside it, and no others."""
        lines = [self._placement(frame).place(frame, rowcol_from_xy(axis)) for frame, (_, axis) in axes.items()]
        phases = [phase for phase, _ in axes.values()]
        with self._silent():
            self.layer.selected_data = set()
            if len(self.layer.data):
                self.layer.data = []
            if lines:
                self._add(lines, phases)

    def _add(self, lines: list[np.ndarray], phases: list[str]) -> None:
        self.layer.add_lines(lines, edge_color="white", edge_width=self._width)
        self.layer.features = {"phase": phases}
        self.layer.mode = "direct"
        self.layer.selected_data = set(range(len(lines)))  # only of what is selected can the ends be dragged at once

    def read(self) -> dict[int, Axis]:
        """The lines by frame, in pixels at pixel edges; the later one where a frame has two."""
        axes: dict[int, Axis] = {}
        for line in self.layer.data:
            frames, rowcol = self._placement(0).locate(line)
            first, second = xy_from_rowcol(rowcol[[0, -1]]).tolist()
            axes[round(float(frames[0]))] = tuple(first), tuple(second)
        return axes

    def remove(self) -> None:
        """Take the layer away."""
        self.layer.events.data.disconnect(self._on_data)
        self._follow_labels(False)
        if self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)

    def _follow_labels(self, on: bool) -> None:
        for name in TRANSFORM:
            emitter = getattr(self._labels.events, name)
            (emitter.connect if on else emitter.disconnect)(self._on_transform)

    def _on_transform(self, event: Any = None) -> None:
        lay_over(self.layer, self._labels)

    def _placement(self, frame: int) -> Placement:
        return Placement(affine_of(self.layer), affine_of(self._labels), frames_shape(self._labels), frame)

    @contextmanager
    def _silent(self) -> Iterator[None]:
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _on_data(self, event: Any) -> None:
        action = str(getattr(event.action, "value", event.action))
        if not self._quiet and action in ("changed", "added", "removed"):
            self._on_edit()
