"""The Labels layer that shows a session's masks, and takes what the user paints in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication

from napari_uniultra.core.measure import Markers
from napari_uniultra.core.palette import Colour
from napari_uniultra.plugin.layers import (
    features_of_names,
    markers_of,
    metadata_for_masks,
    names_of_objects,
    set_colours,
    set_markers,
)
from napari_uniultra.plugin.mark_style import edge_colours
from napari_uniultra.plugin.painting import Painted
from napari_uniultra.plugin.prompt_layers import frames_shape, shown_frame, transform_of

Brush = Literal["paint", "erase"]

MASKS_NAME = "UniUltra masks"
_OPACITY = 0.5
_BRUSH_PX = 10
_NOT_KNOWN_COLOUR = (0.7, 0.7, 0.7, 1.0)  # of a label that is no object yet


class ResultLayer:
    """Writes label images frame by frame; the layer is made when it is needed, empty at first.

    Parameters
    ----------
    viewer : napari.Viewer
    image : napari.layers.Image
        The masks lie over it, with its scale, translation and units.
    on_paint : callable
        Called when the user paints or erases; `take_painted` gives the frames once it is done.
    on_tool : callable
        Called when the brush, its size or its label is changed in the layer.

    Attributes
    ----------
    on_markers : callable
        Called with this object when markers were set on the layer, other than by `set_markers`.
    on_lost : callable
        Called when something else made the layer one that cannot hold the masks; a new one takes its place.
    """

    def __init__(
        self, viewer: Any, image: Any, on_paint: Callable[[], None], on_tool: Callable[[], None] = lambda: None
    ) -> None:
        self._viewer, self._image, self._on_paint, self._on_tool = viewer, image, on_paint, on_tool
        self.on_markers: Callable[[ResultLayer], None] = lambda result: None
        self.on_lost: Callable[[], None] = lambda: None
        self.layer: Labels | None = None
        self._markers = Markers()
        self._names: dict[int, str] = {}
        self._colours: dict[int, Colour] = {}
        self._hidden: frozenset[int] = frozenset()
        self._object_id, self._brush_size = 1, _BRUSH_PX
        self._written: set[int] = set()
        self._painted: dict[int, np.ndarray | None] = {}  # frame: its labels before the user touched it, if known
        self._own: np.ndarray | None = None  # the array that the layer was given
        self._seen: tuple[int, np.ndarray] | None = None  # the frame shown, before anybody paints in it

    # Tools ----------------------------------------------------------------------------------------------------------

    @property
    def tool(self) -> Brush | None:
        """The brush in hand, however it was taken."""
        if self.layer is None or self._viewer.layers.selection.active != self.layer:
            return None
        mode = str(self.layer.mode)
        if mode == "paint" and self.layer.selected_label == 0:
            return "erase"
        return mode if mode in ("paint", "erase") else None

    @property
    def selected(self) -> int:
        """The object that is painted."""
        return self._object_id if self.layer is None else int(self.layer.selected_label)

    @property
    def brush_size(self) -> int:
        """Diameter of the brush in pixels."""
        return self._brush_size if self.layer is None else int(self.layer.brush_size)

    @brush_size.setter
    def brush_size(self, size: int) -> None:
        self._brush_size = size
        if self.layer is not None:
            self.layer.brush_size = size

    def use(self, tool: Brush, object_id: int) -> None:
        """Paint or erase an object; what belongs to others stays theirs."""
        self.make()
        self._viewer.layers.selection.active = self.layer
        self.choose(object_id)
        self.layer.preserve_labels = True
        self.layer.mode = tool

    def rest(self) -> None:
        """Put the brush away."""
        if self.layer is not None:
            self.layer.mode = "pan_zoom"

    def choose(self, object_id: int) -> None:
        """Make ``object_id`` the one that painting paints."""
        self._object_id = object_id
        if self.layer is not None:
            self.layer.selected_label = object_id

    # Masks ----------------------------------------------------------------------------------------------------------

    def make(self) -> bool:
        """Have a layer ready, which takes napari a moment; returns whether there was none."""
        is_new = self.layer is None
        if is_new:
            self._create()
        return is_new

    def write(self, labels: Mapping[int, np.ndarray], everything: bool = False) -> None:
        """Show label images (H, W) of some frames; with ``everything`` all other frames become empty."""
        if self.layer is None and not labels:
            return
        self.make()
        data = self._frames()
        for frame in self._written - set(labels) - set(self._painted) if everything else ():
            data[frame] = 0
        shown = shown_frame(self._viewer, self._image)
        if shown in labels and self._in_stroke():
            self._painted.setdefault(shown, self._before(shown))
            self._on_paint()  # comes back to this frame once the brush is let go
        for frame, image in labels.items():
            if frame not in self._painted:  # the user's own hand comes first, and is on its way to the session
                data[frame] = image
        self._written |= set(labels)
        self._look()
        # In place, and redrawn only where it shows: a new array, or napari's edit history, for each frame of a long
        # loop would take its memory many times over.
        if everything or self._viewer.dims.ndisplay == 3 or shown in labels:
            self.layer.refresh(extent=False)

    def take_painted(self) -> dict[int, Painted]:
        """The frames that were painted since the last call."""
        painted, self._painted = self._painted, {}
        taken = {frame: Painted(painted[frame], np.array(self._frames()[frame])) for frame in sorted(painted)}
        self._look()
        return taken

    def _in_stroke(self) -> bool:
        pressed = QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton
        return pressed and self.tool is not None

    def _look(self, event: Any = None) -> None:
        """Remember the frame shown as it is now: when napari tells of painting, it has been done."""
        if self.layer is not None and not self._in_stroke():
            shown = shown_frame(self._viewer, self._image)
            if shown not in self._painted and shown < len(self._frames()):  # the image may just have become longer
                self._seen = shown, np.array(self._frames()[shown])

    def _before(self, frame: int) -> np.ndarray | None:
        return self._seen[1] if self._seen is not None and self._seen[0] == frame else None

    def forget(self, layer: Any) -> bool:
        """Let go of the layer if it is the one that was deleted; returns whether it was."""
        if self.layer is None or layer != self.layer:
            return False
        self._let_go()
        return True

    def disconnect(self) -> None:
        """Leave the layer to the user."""
        if self.layer is not None:
            self._listen(False)

    def _let_go(self) -> None:
        self._brush_size = self.brush_size
        self._listen(False)
        self.layer, self._own, self._seen, self._written, self._painted = None, None, None, set(), {}

    def _listen(self, on: bool) -> None:
        """Hear of what happens to the layer, or no more."""
        events = self.layer.events
        connections = (
            (events.paint, self._on_paint_event),
            (events.data, self._on_data),
            (events.metadata, self._on_metadata),
            (events.mode, self._on_tool_event),
            (events.selected_label, self._on_tool_event),
            (events.brush_size, self._on_tool_event),
            (self._viewer.dims.events.current_step, self._look),
        )
        for emitter, callback in connections:
            (emitter.connect if on else emitter.disconnect)(callback)

    def follow_image(self) -> None:
        """Take over the image's scale and position."""
        if self.layer is not None:
            for name in ("scale", "translate", "rotate", "shear", "affine"):
                setattr(self.layer, name, getattr(self._image, name))

    def dress(self, names: Mapping[int, str], colours: Mapping[int, Colour], hidden: Iterable[int]) -> None:
        """Keep the objects' names and colours with their masks: they are shown under the pointer, and saved.

        The masks of hidden objects are not seen; they stay in the layer, and so in what is saved.
        """
        looks = self._colours, self._hidden
        self._names, self._colours, self._hidden = dict(names), dict(colours), frozenset(hidden)
        if self.layer is None:
            return
        features = self.layer.features
        if names_of_objects(features) != self._names:
            self.layer.features = features_of_names(self._names, features)
        set_colours(self.layer, self._colours)
        if looks != (self._colours, self._hidden):
            self.layer.colormap = self._colormap()

    def _colormap(self) -> DirectLabelColormap:
        ids = sorted(self._colours)
        rows = edge_colours(ids, self._colours, self._hidden)
        known = {object_id: tuple(row) for object_id, row in zip(ids, rows, strict=True)}
        return DirectLabelColormap(color_dict={None: _NOT_KNOWN_COLOUR, 0: (0.0, 0.0, 0.0, 0.0), **known})

    @property
    def markers(self) -> Markers:
        """The heart cycles and long axes that were set by hand on the masks."""
        return self._markers

    def set_markers(self, markers: Markers) -> None:
        """Show markers of the session in the layer, or in the next one that is made."""
        self._markers = markers
        if self.layer is not None:
            set_markers(self.layer, markers)

    def _on_metadata(self, event: Any = None) -> None:
        found = markers_of(self.layer)
        if found != self._markers:
            self._markers = found
            self.on_markers(self)

    def _create(self) -> None:
        keywords = transform_of(self._image)
        del keywords["ndim"]
        data = np.zeros(frames_shape(self._image), np.uint16)  # untouched frames of a long loop take no memory
        keywords |= {"metadata": metadata_for_masks(self._image), "features": features_of_names(self._names)}
        self.layer = Labels(data, name=MASKS_NAME, opacity=_OPACITY, colormap=self._colormap(), **keywords)
        self.layer.brush_size, self.layer.selected_label = self._brush_size, self._object_id
        self._own = data
        set_colours(self.layer, self._colours)
        set_markers(self.layer, self._markers)
        active = self._viewer.layers.selection.active
        self._viewer.layers.insert(self._viewer.layers.index(self._image) + 1, self.layer)
        self._viewer.layers.selection.active = active  # the tool in hand stays in hand
        self._listen(True)
        self._look()

    def _frames(self) -> np.ndarray:
        return _stack(self.layer.data)

    def _on_paint_event(self, event: Any) -> None:
        # What the event holds differs between releases of napari: only the frames are noted here.
        shown = shown_frame(self._viewer, self._image)
        reach = int(self.layer.brush_size) if self.layer.n_edit_dimensions > 2 else 0
        for frame in range(max(0, shown - reach), min(len(self._frames()), shown + reach + 1)):
            self._painted.setdefault(frame, self._before(frame))
        self._on_paint()

    def _on_data(self, event: Any) -> None:
        """Something else gave the layer other data: what it changed counts as painted."""
        before, after = self._own, self.layer.data
        if after.shape != before.shape:
            self._let_go()
            self.on_lost()
            return
        if after is before:
            self._on_paint_event(event)
            return
        if not isinstance(after, np.ndarray) or after.dtype != before.dtype or not after.flags.writeable:
            self._own = np.array(after).clip(0, np.iinfo(before.dtype).max).astype(before.dtype)
            self.layer.data = self._own  # tells of itself, as the same data
            after = self._own
        self._own = after
        for frame, (old, new) in enumerate(zip(_stack(before), _stack(after), strict=True)):
            if not np.array_equal(old, new):
                self._painted.setdefault(frame, old)
        self._on_paint()

    def _on_tool_event(self, event: Any) -> None:
        self._on_tool()


def _stack(data: np.ndarray) -> np.ndarray:
    return data[None] if data.ndim == 2 else data
