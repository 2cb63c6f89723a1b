"""Layers of ours that are nobody's any more: of a panel that was closed, or of a loop that got other pixels."""

from __future__ import annotations

from typing import Any

from napari_uniultra.plugin.layers import disown, names_image


def set_aside(viewer: Any, image: Any, kind: type) -> None:
    """Hide what was left on an image, and name it so, before a new layer of the kind takes its place."""
    for layer in list(viewer.layers):
        if isinstance(layer, kind) and names_image(layer, image):
            disown(layer)
            layer.name = f"{layer.name} (earlier)"
            layer.visible = False
