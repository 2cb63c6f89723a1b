"""Layers of ours that are nobody's any more: of a panel that was closed, or of a loop that got other pixels."""

from __future__ import annotations

from typing import Any

from napari_uniultra.plugin.layers import disown, names_image


def make_room(viewer: Any, image: Any, kind: type) -> None:
    """Set aside what is left on an image before a new layer of the kind takes its place."""
    for layer in list(viewer.layers):
        if isinstance(layer, kind) and names_image(layer, image):
            set_aside(layer)


def set_aside(layer: Any) -> None:
    """Hide a layer, name it so, and let it say no more of which image it is."""
    disown(layer)
    layer.name = f"{layer.name} (earlier)"
    layer.visible = False
