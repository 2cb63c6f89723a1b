"""The scale of a loop set by hand: from its layer to the session, and back to the layers with undo and old sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from napari.layers import Labels

from napari_uniultra.plugin.image_layer import frames_shape
from napari_uniultra.plugin.layers import METADATA_KEY, names_image, same_source

Spacing = tuple[float, float]  # (row, column) in mm


class Scale(NamedTuple):
    """How large a layer shows a pixel: spacing in mm where it is known, and napari's units and scale."""

    spacing_mm: Spacing | None
    units: tuple[Any, Any]
    scale: tuple[float, float]

    @classmethod
    def in_mm(cls, spacing_mm: Spacing) -> Scale:
        """The scale of a known spacing."""
        spacing = tuple(map(float, spacing_mm))
        return cls(spacing, ("mm", "mm"), spacing)

    @classmethod
    def of(cls, layer: Any) -> Scale:
        """The scale that a layer has."""
        return cls(spacing_of(layer), tuple(layer.units[-2:]), tuple(layer.scale[-2:]))

    def give_to(self, layer: Any) -> None:
        """Set a layer's scale, its units and the spacing that belongs to its loop."""
        known = {**layer.metadata.get(METADATA_KEY, {}), "spacing_mm": self.spacing_mm}
        layer.metadata = {**layer.metadata, METADATA_KEY: known}
        layer.units = (*layer.units[:-2], *self.units)
        layer.scale = (*layer.scale[:-2], *self.scale)


def spacing_of(layer: Any) -> Spacing | None:
    """The size of a pixel that belongs to a layer's loop, None where it is unknown."""
    return layer.metadata.get(METADATA_KEY, {}).get("spacing_mm")


def rescale(viewer: Any, image: Any, scale: Scale) -> None:
    """Give a loop another scale, with the masks that were made from it, and show all of it."""
    for layer in [layer for layer in viewer.layers if layer == image or is_masks_of(image, layer)]:
        scale.give_to(layer)
    viewer.reset_view()


def is_masks_of(image: Any, layer: Any) -> bool:
    """Whether masks were made from an image: other loops of its size keep their scale."""
    if not isinstance(layer, Labels):
        return False
    said = names_image(layer, image)
    return said if said is not None else same_source(layer, image) and frames_shape(layer) == frames_shape(image)


class LoopScale:
    """Tells of a scale that was set by hand, and shows the one that a session holds.

    Parameters
    ----------
    viewer : napari.Viewer
    image : napari.layers.Image
    on_set : callable
        Is given a spacing that somebody set.
    """

    def __init__(self, viewer: Any, image: Any, on_set: Callable[[Spacing], None]) -> None:
        self._viewer, self._image, self._on_set = viewer, image, on_set
        self._own = Scale.of(image)
        self._shown = self._own.spacing_mm

    def connect(self, connect: bool = True) -> None:
        """Listen to the image, or no more. What was set in between counts as the loop's own."""
        emitter = self._image.events.metadata
        (emitter.connect if connect else emitter.disconnect)(self._on_metadata)
        if connect and spacing_of(self._image) != self._shown:
            self.take_as_own()

    def take_as_own(self) -> None:
        """What the image has now is what it has where nothing was set by hand."""
        self._own = Scale.of(self._image)
        self._shown = self._own.spacing_mm

    def show(self, by_hand: Spacing | None) -> None:
        """Show what a session says: a spacing set by hand, or None for the loop's own."""
        scale = self._own if by_hand is None else Scale.in_mm(by_hand)
        if scale.spacing_mm != self._shown:
            self._shown = scale.spacing_mm
            rescale(self._viewer, self._image, scale)

    def _on_metadata(self, event: Any = None) -> None:
        spacing = spacing_of(self._image)
        if spacing != self._shown:
            self._shown = spacing
            if spacing is not None:
                self._on_set(spacing)
