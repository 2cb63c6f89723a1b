"""Layers of marks are drawn only on frames that have marks.

napari prepares and draws a layer of shapes anew on every frame, also where it shows none. Without a graphics card that
is a third of the time that a frame of a playing loop takes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np


def draw_only_where_marked(viewer: Any, layer: Any) -> None:
    """Keep a layer from being drawn on frames where it has nothing; it stays as visible as it was.

    There is no public way to a layer's visual: where napari has it elsewhere, the layer is drawn as ever.

    Parameters
    ----------
    viewer : napari.Viewer
    layer : napari.layers.Shapes or napari.layers.Points
        Already in the viewer.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)  # a panel is given a proxy that shows what is public

    def update(event: Any = None) -> None:
        with suppress(AttributeError, KeyError):
            visual = viewer.window._qt_viewer.canvas.layer_to_visual[layer]
            visual.node.visible = bool(layer.visible) and _has_marks(layer, viewer.dims.point)

    layer.events.set_data.connect(update)
    layer.events.visible.connect(update)


def _has_marks(layer: Any, point: tuple[float, ...]) -> bool:
    if layer.ndim < 3:
        return True
    frame = layer.world_to_data(point)[0]
    return any(np.abs(np.atleast_2d(mark)[:, 0] - frame).min() <= 0.5 for mark in layer.data)
