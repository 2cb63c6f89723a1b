"""Keyboard shortcuts of the panel, bound where napari looks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Letters that no layer type of napari uses for itself.
KEYS = {
    "box": "Q",
    "add": "W",
    "remove": "Shift-W",
    "new_object": "N",
    "next_object": "Shift-N",
    "backward": ",",
    "forward": ".",
    "both": "J",
    "cancel": "K",
    "save_session": "Control-Shift-E",
    "open_session": "Control-Shift-L",
    "accept": "G",
    "accept_all": "Shift-G",
    "fill_between": "H",
    "undo": "U",
    "redo": "Shift-U",
    "measure": "Shift-M",
    "export": "Shift-E",
    "key_list": "/",
}
# What each does, for the list of keys.
WORDS = {
    "save_session": "Save the session to a file",
    "open_session": "Open a session file",
    "box": "Draw a box",
    "add": "Click what belongs to the structure",
    "remove": "Click what does not",
    "new_object": "New object",
    "next_object": "Next object",
    "backward": "Track backward",
    "forward": "Track forward",
    "both": "Track through the whole loop",
    "cancel": "Stop tracking",
    "accept": "Accept the frame, or no longer",
    "accept_all": "Accept all frames",
    "fill_between": "Fill between two frames",
    "undo": "Undo",
    "redo": "Redo",
    "measure": "Measurements",
    "export": "Export masks or measurements",
    "key_list": "This list",
}
# On our own layers also the usual ones; elsewhere these belong to napari and to the other layers.
_OWN_LAYERS_KEYS = {"undo": "Control-Z", "redo": "Control-Shift-Z"}


class Shortcuts:
    """Binds actions to keys on the viewer and on our own layers: a layer's own keys would win over the viewer's.

    Parameters
    ----------
    viewer : napari.Viewer
    actions : mapping of str to callable
        By the names of `KEYS`.
    """

    def __init__(self, viewer: Any, actions: Mapping[str, Callable[[], None]]) -> None:
        self._viewer, self._actions = viewer, actions
        self._layers: list[Any] = []
        self._bind(viewer, KEYS)

    def bind_layers(self, layers: list[Any]) -> None:
        """Bind the keys on layers that do not have them yet."""
        for layer in layers:
            if not any(layer is known for known in self._layers):
                self._bind(layer, KEYS)
                self._bind(layer, _OWN_LAYERS_KEYS)
                self._layers.append(layer)

    def release(self) -> None:
        """Take all bindings back."""
        for provider in (self._viewer, *self._layers):
            for key in (*KEYS.values(), *_OWN_LAYERS_KEYS.values()):
                provider.bind_key(key, None)
        self._layers.clear()

    def _bind(self, provider: Any, keys: Mapping[str, str]) -> None:
        for name, key in keys.items():
            provider.bind_key(key, _calling(self._actions[name]), overwrite=True)


def _calling(action: Callable[[], None]) -> Callable[[Any], None]:
    def on_key(_provider: Any) -> None:
        action()

    return on_key
