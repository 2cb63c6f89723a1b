"""The layer that shows how a frame would look after tidying."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels

from napari_uniultra.plugin.image_layer import transform_of

PREVIEW_NAME = "UniUltra preview"
_CONTOUR_PX = 2
_MARK = "napari_uniultra_preview"  # in the layer's metadata


def is_preview(layer: Any) -> bool:
    """Whether a layer is a preview: it shows no result."""
    return bool(layer.metadata.get(_MARK))


class PreviewLayer:
    """White outlines of one frame, over its masks; the layer is there only while it is needed.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Labels | None = None

    def show(self, image: Any, frame: int, labels: np.ndarray) -> None:
        """Show the labels (H, W) of a frame of an image layer, and nothing on its other frames."""
        data = labels[None] if image.ndim == 3 else labels
        if self._layer is None or self._layer not in self._viewer.layers or self._layer.data.shape != data.shape:
            self.remove()
            self._layer = self._create(image, data)
        self._layer.data = data
        if image.ndim == 3:
            self._layer.translate = image.translate + np.array([frame * image.scale[0], 0, 0])

    def remove(self) -> None:
        """Take the layer away."""
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        self._layer = None

    def _create(self, image: Any, data: np.ndarray) -> Labels:
        keywords = transform_of(image)
        del keywords["ndim"]
        keywords |= {"opacity": 1.0, "colormap": {None: "white", 0: "transparent"}, "metadata": {_MARK: True}}
        layer = Labels(data, name=PREVIEW_NAME, **keywords)
        layer.contour = _CONTOUR_PX
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active  # the tool in hand stays in hand
        return layer
