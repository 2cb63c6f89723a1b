"""Keyboard shortcuts of the panel, bound where napari looks for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from napari.utils.key_bindings import coerce_keybinding

# What napari calls the key that is Command on a Mac and Ctrl elsewhere; a Mac's Control is yet another one.
_COMMAND = "Meta" if sys.platform == "darwin" else "Control"
_SAID = {"Meta": "Cmd", "Control": "Ctrl"}

# Letters that no layer type of napari uses for itself.
KEYS = {
    "box": "Q",
    "add": "W",
    "remove": "Shift-W",
    "paint": "Shift-B",
    "erase": "Shift-R",
    "absent": "0",
    "segment": "Shift-S",
    "new_object": "N",
    "next_object": "Shift-N",
    "hide_object": "Shift-H",
    "lock_object": "Shift-F",
    "delete_object": "Shift-Delete",
    "backward": ",",
    "forward": ".",
    "both": "J",
    "cancel": "K",
    "go_on": "Shift-C",
    "range_start": "Shift-J",
    "range_end": "Shift-K",
    "previous_weak": "8",
    "next_weak": "9",
    "save_session": f"{_COMMAND}-Shift-E",
    "open_session": f"{_COMMAND}-Shift-L",
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
    "paint": "Paint the mask",
    "erase": "Erase from the mask",
    "absent": "The object is not in this frame",
    "segment": "Answer the marks collected",
    "new_object": "New object",
    "next_object": "Next object",
    "hide_object": "Hide or show the object",
    "lock_object": "Lock or unlock the object",
    "delete_object": "Delete the object",
    "backward": "Track backward",
    "forward": "Track forward",
    "both": "Track through the whole loop",
    "cancel": "Stop tracking",
    "go_on": "Go on with tracking",
    "range_start": "Track from this frame on",
    "range_end": "Track up to this frame",
    "previous_weak": "The frame before that needs a look",
    "next_weak": "The next frame that needs a look",
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
OWN_LAYERS_KEYS = {"undo": f"{_COMMAND}-Z", "redo": f"{_COMMAND}-Shift-Z"}


def key_in_words(key: str, joined: str = "+") -> str:
    """A key as it is called on this system, such as "Ctrl+Shift+E"."""
    return joined.join(_SAID.get(part, part) for part in key.split("-"))


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
        self._bound: list[tuple[Any, str, Callable[[Any], None]]] = []
        self._bind(viewer, KEYS)

    def bind_layers(self, layers: list[Any]) -> None:
        """Bind the keys on layers that do not have them yet."""
        for layer in layers:
            if not any(layer is known for known in self._layers):
                self._bind(layer, KEYS)
                self._bind(layer, OWN_LAYERS_KEYS)
                self._layers.append(layer)

    def release(self) -> None:
        """Take all bindings back, but for keys that something else has taken since."""
        for provider, key, callback in self._bound:
            if provider.keymap.get(coerce_keybinding(key)) == callback:
                provider.bind_key(key, None)
        self._bound.clear()
        self._layers.clear()

    def _bind(self, provider: Any, keys: Mapping[str, str]) -> None:
        for name, key in keys.items():
            callback = _calling(self._actions[name])
            provider.bind_key(key, callback, overwrite=True)
            self._bound.append((provider, key, callback))


def _calling(action: Callable[[], None]) -> Callable[[Any], None]:
    def on_key(_provider: Any) -> None:
        action()

    return on_key
