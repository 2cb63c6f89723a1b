"""The two sets of masks of a comparison in the viewer: over each other, or side by side in napari's grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_uniultra.core.masks import Masks
from napari_uniultra.core.palette import colour_of
from napari_uniultra.plugin.image_layer import transform_of
from napari_uniultra.plugin.layers import features_of_names

COLOURS = (colour_of(2), colour_of(1))  # A is sky blue, B is orange
_OUTLINE = 2  # pixels of the image
_OPACITY = 0.6
_COPY = "napari_uniultra_copy"  # in the metadata of the copies of the image


class CompareLayers:
    """Shows A and B on an image layer, and leaves the viewer as it was found.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self.layers: list[Any] = []  # A, B
        self._copies: list[Any] = []  # the image once for A and once for B, while they are side by side
        self._hidden: list[Any] = []  # what was visible before
        self._grid: tuple[bool, int, tuple[int, int]] | None = None

    def show(self, image: Any, titles: tuple[str, str], masks: tuple[Masks, Masks]) -> None:
        """Show two sets of masks in place of those that were shown before."""
        self.clear()
        keywords = transform_of(image)
        del keywords["ndim"]
        for letter, title, one, colour in zip("AB", titles, masks, COLOURS, strict=True):
            layer = Labels(
                one.labels[0] if image.ndim == 2 else one.labels,
                name=f"{letter}: {title}",
                opacity=_OPACITY,
                colormap=_in_one_colour(colour),
                features=features_of_names({number: one.name(number) for number in one.ids}),
                **keywords,
            )
            self._viewer.add_layer(layer)
            self.layers.append(layer)

    def clear(self) -> None:
        """Take both away."""
        self.set_side_by_side(None, on=False)
        for layer in self.layers:
            self._remove(layer)
        self.layers = []

    def set_outlines(self, on: bool) -> None:
        """Outlines, or filled areas."""
        for layer in self.layers:
            layer.contour, layer.opacity = (_OUTLINE, 1.0) if on else (0, _OPACITY)

    def set_side_by_side(self, image: Any, on: bool) -> None:
        """Each on a copy of the image in a cell of its own, with all else hidden; or over each other again."""
        if on and self._grid is None and len(self.layers) == 2:
            self._to_grid(image)
        elif not on and self._grid is not None:
            self._from_grid()

    def forget(self, layer: Any) -> bool:
        """The user deleted a layer; returns whether it was one of the two."""
        self._copies = [own for own in self._copies if own != layer]
        self._hidden = [own for own in self._hidden if own != layer]
        known = len(self.layers)
        self.layers = [own for own in self.layers if own != layer]
        return len(self.layers) < known

    def _to_grid(self, image: Any) -> None:
        grid, layers = _grid_of(self._viewer), self._viewer.layers
        self._grid = grid.enabled, grid.stride, tuple(grid.shape)
        self._hidden = [layer for layer in layers if layer.visible and layer not in self.layers]
        for layer in self._hidden:
            layer.visible = False
        # napari's grid goes by places in the list: the first two layers are one cell, the next two the other.
        for place, (letter, masks) in enumerate(zip("AB", self.layers, strict=True)):
            copy = _copy_of(image, f"{letter}: loop")
            self._viewer.add_layer(copy)
            self._copies.append(copy)
            layers.move(layers.index(copy), 2 * place)
            layers.move(layers.index(masks), 2 * place + 1)
        grid.stride, grid.shape, grid.enabled = 2, (1, 2), True

    def _from_grid(self) -> None:
        grid, layers = _grid_of(self._viewer), self._viewer.layers
        (grid.enabled, grid.stride, grid.shape), self._grid = self._grid, None
        for copy in list(self._copies):
            self._remove(copy)
        self._copies = []
        for layer in self._hidden:
            layer.visible = True
        self._hidden = []
        for layer in self.layers:
            layers.move(layers.index(layer), len(layers))

    def _remove(self, layer: Any) -> None:
        if layer in self._viewer.layers:
            self._viewer.layers.remove(layer)


def is_copy(layer: Any) -> bool:
    """Whether a layer is the image once more, for A and B to be side by side: no loop to work on."""
    return bool(layer.metadata.get(_COPY))


def is_side_by_side(viewer: Any) -> bool:
    """Whether A and B are shown side by side, with all else hidden."""
    return any(is_copy(layer) for layer in viewer.layers)


def _grid_of(viewer: Any) -> Any:
    canvas = getattr(viewer, "canvas", None)  # since napari 0.9, which warns of the former place
    return viewer.grid if canvas is None else canvas.grid


def _in_one_colour(colour: tuple[int, int, int]) -> DirectLabelColormap:
    rgba = np.array([*colour, 255]) / 255
    return DirectLabelColormap(color_dict={None: rgba, 0: np.zeros(4)})


def _copy_of(image: Any, name: str) -> Any:
    """Another layer on the same pixels, which take no memory twice."""
    from napari.layers import Layer

    data, state, kind = image.as_layer_data_tuple()
    metadata = {**state["metadata"], _COPY: True}
    return Layer.create(data, {**state, "name": name, "visible": True, "metadata": metadata}, kind)
