"""The Labels layer that shows a session's masks, and takes what the user paints in it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Literal

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication

from napari_uniultra.core.masks import stack_of
from napari_uniultra.core.measure import Markers
from napari_uniultra.core.palette import Colour
from napari_uniultra.plugin.earlier import make_room
from napari_uniultra.plugin.image_layer import frames_shape, lay_over, shown_frame, shows_single_frames, transform_of
from napari_uniultra.plugin.layers import (
    disown,
    features_of_names,
    markers_of,
    metadata_for_masks,
    names_of_objects,
    set_colours,
    set_markers,
)
from napari_uniultra.plugin.mark_style import edge_colours
from napari_uniultra.plugin.painting import Painted
from napari_uniultra.plugin.strokes import frames_before

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
        self._held: set[int] = set()  # frames that were not written because the brush may have been on them
        self._own: np.ndarray | None = None  # the array that the layer was given

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
        self.layer.visible = True  # napari does nothing on a layer that is hidden
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

    def write(self, labels: Mapping[int, np.ndarray], everything: bool = False, unsent: Container[int] = ()) -> None:
        """Show label images (H, W) of some frames; with ``everything`` all other frames become empty.

        Frames that were painted stay as they are until that is taken, and those whose painting is still ``unsent``.
        """
        if self.layer is None and not labels:
            return
        self.make()
        data = self._frames()
        changes = {**dict.fromkeys(self._written if everything else (), 0), **labels}
        self._hold(changes)
        for frame, image in changes.items():
            # The user's own hand comes first.
            if frame not in self._painted and frame not in self._held and frame not in unsent:
                data[frame] = image
        self._written |= set(labels)
        # In place, and redrawn only where it shows: a new array, or napari's edit history, for each frame of a long
        # loop would take its memory many times over.
        shows_all = not shows_single_frames(self._viewer, self._image)
        if everything or shows_all or shown_frame(self._viewer, self._image) in labels:
            self.layer.refresh(extent=False)

    def _hold(self, frames: Iterable[int]) -> None:
        """Leave alone what the brush may be on; `take_painted` comes back to it once the brush is let go."""
        if self._in_stroke():
            held = {frame for frame in frames if self._reaches(frame)}
            self._held |= held
            if held:
                self._on_paint()

    def _in_stroke(self) -> bool:
        pressed = QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton
        return pressed and self.tool is not None

    def _reaches(self, frame: int) -> bool:
        """Whether the brush can touch a frame: elsewhere than on single frames it goes through many at once."""
        is_flat = self.layer.n_edit_dimensions == 2 and shows_single_frames(self._viewer, self._image)
        return not is_flat or frame == shown_frame(self._viewer, self._image)

    def take_painted(self) -> dict[int, Painted]:
        """The frames that were painted since the last call, and as unchanged those that were not written meanwhile."""
        painted, held = self._painted, self._held
        self._painted, self._held = {}, set()
        return {frame: self._painted_from(painted, frame) for frame in sorted({*painted, *held})}

    def _painted_from(self, before: Mapping[int, np.ndarray | None], frame: int) -> Painted:
        now = np.array(self._frames()[frame])
        return Painted(before.get(frame, now), now)

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
        self.layer, self._own, self._written, self._painted, self._held = None, None, set(), {}, set()

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
        )
        for emitter, callback in connections:
            (emitter.connect if on else emitter.disconnect)(callback)

    def follow_image(self) -> None:
        """Take over the image's scale and position."""
        if self.layer is not None:
            lay_over(self.layer, self._image)

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
        make_room(self._viewer, self._image, Labels)
        active = self._viewer.layers.selection.active
        self._viewer.layers.insert(self._viewer.layers.index(self._image) + 1, self.layer)
        self._viewer.layers.selection.active = active  # the tool in hand stays in hand
        self._listen(True)

    def _frames(self) -> np.ndarray:
        return stack_of(self.layer.data)

    def _on_paint_event(self, event: Any) -> None:
        self._note(frames_before(event.value, self.layer.data))

    def _note(self, before: Mapping[int, np.ndarray | None]) -> None:
        """Frames were painted, which had these labels before."""
        self._painted = {**before, **self._painted}
        self._on_paint()

    def _on_data(self, event: Any) -> None:
        """Something else gave the layer other data: what it changed counts as painted."""
        before, after = self._own, self.layer.data
        if after.shape != before.shape:
            layer = self.layer
            self._let_go()
            disown(layer)
            self.on_lost()
            return
        if after is before:
            self._note(dict.fromkeys(range(len(self._frames()))))
            return
        if not isinstance(after, np.ndarray) or after.dtype != before.dtype or not after.flags.writeable:
            self._own = np.array(after).clip(0, np.iinfo(before.dtype).max).astype(before.dtype)
            after = self._own
            with self.layer.events.data.blocker(self._on_data):
                self.layer.data = after
        self._own = after
        pairs = enumerate(zip(stack_of(before), stack_of(after), strict=True))
        self._note({frame: old for frame, (old, new) in pairs if not np.array_equal(old, new)})

    def _on_tool_event(self, event: Any) -> None:
        self._on_tool()
