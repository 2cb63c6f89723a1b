"""The two layers a user draws in: boxes (Shapes) and clicks (Points), kept in step with a session's prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from napari.layers import Points, Shapes

from napari_uniultra.core.palette import Colour
from napari_uniultra.core.types import Prompt
from napari_uniultra.errors import PromptError
from napari_uniultra.plugin.earlier import make_room
from napari_uniultra.plugin.image_layer import frames_shape, lay_over, shown_frame, transform_of
from napari_uniultra.plugin.layers import (
    Found,
    Key,
    Placement,
    affine_of,
    combined,
    corners_of_box,
    metadata_for_marks,
    points_to_prompts,
    positions_of_points,
    shapes_to_prompts,
    whole_numbers,
)
from napari_uniultra.plugin.mark_style import SYMBOLS, edge_colours, face_colours
from napari_uniultra.plugin.outlines import Outline, Outlines, same_request
from napari_uniultra.plugin.spare_drawing import draw_only_where_marked

Tool = Literal["box", "add", "remove"]

BOXES_NAME, POINTS_NAME = "UniUltra boxes", "UniUltra points"
_OBJECT, _LABEL, _EXACT = "object", "label", "exact"  # columns of the layers' features
_POINT_SIZE, _EDGE_WIDTH = 1 / 40, 1 / 300  # of the frame's longer side: napari draws both in pixels of the image
_BORDER_WIDTH = 0.15  # of a point's size
_FINAL_ACTIONS = ("added", "changed", "removed")


@dataclass(frozen=True)
class Read:
    """What the two layers ask for together.

    Attributes
    ----------
    prompts : dict of (object id, frame) to Prompt
    problems : list of PromptError
        What could not be used, and why.
    """

    prompts: dict[Key, Prompt] = field(default_factory=dict)
    problems: list[PromptError] = field(default_factory=list)


class PromptLayers:
    """Creates the layers when a tool first needs them, tells when they change, reads them and writes them.

    Parameters
    ----------
    viewer : napari.Viewer
    image : napari.layers.Image
        The layers lie over it, with its scale, translation and units.
    on_change : callable
        Called after every edit by the user.
    on_tool : callable
        Called when a layer goes to another mode.

    Attributes
    ----------
    object_id, label, exact
        Of what is drawn next: its object, 1 to add or 0 to remove, and whether an outline is the mask as drawn.
    """

    def __init__(
        self, viewer: Any, image: Any, on_change: Callable[[], None], on_tool: Callable[[], None] = lambda: None
    ) -> None:
        self._viewer, self._image, self._on_change, self._on_tool = viewer, image, on_change, on_tool
        self.boxes: Shapes | None = None
        self.points: Points | None = None
        self.object_id = 1
        self.label = 1
        self.exact = False
        self._colours: dict[int, Colour] = {}
        self._hidden: frozenset[int] = frozenset()
        self._outlines = Outlines()
        self._quiet = False

    # Layers ---------------------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Any]:
        """Those of the two that exist."""
        return [layer for layer in (self.boxes, self.points) if layer is not None]

    @property
    def tool(self) -> Tool | None:
        """The tool in hand, however it was taken: by the layer that is chosen and its mode."""
        active = self._viewer.layers.selection.active
        if active is None or active not in self.layers or not str(active.mode).startswith("add"):
            return None
        if active == self.boxes:  # the viewer that a panel is given hands out proxies: identity would fail
            return "box"
        return "add" if self.label else "remove"

    def use(self, tool: Tool, object_id: int) -> None:
        """Make the next drag or click one for ``object_id``: "box", or a point to "add" or "remove"."""
        self.object_id, self.label = object_id, int(tool != "remove")
        layer = self._ensure_boxes() if tool == "box" else self._ensure_points()
        layer.visible = True  # napari does nothing on a layer that is hidden
        self._viewer.layers.selection.active = layer
        self._set_defaults()
        layer.mode = "add_rectangle" if tool == "box" else "add"

    def choose_object(self, object_id: int) -> None:
        """Make the next drag or click one for ``object_id``."""
        self.object_id = object_id
        self._set_defaults()

    def rest(self) -> None:
        """Put the tools away: dragging moves the picture again."""
        for layer in self.layers:
            layer.mode = "pan_zoom"

    def forget(self, layer: Any) -> bool:
        """Let go of a layer that was deleted; returns whether it was one of ours. What it showed stays asked for."""
        if self.boxes is not None and layer == self.boxes:
            self.boxes = None
            return True
        if self.points is not None and layer == self.points:
            self.points = None
            return True
        return False

    def disconnect(self) -> None:
        """Leave the layers to the user."""
        for layer in self.layers:
            layer.events.data.disconnect(self._on_data)
            layer.events.features.disconnect(self._on_features)
            layer.events.mode.disconnect(self._on_mode)

    def follow_image(self) -> None:
        """Take over the image's scale and position."""
        for layer in self.layers:
            lay_over(layer, self._image)

    def _ensure_boxes(self) -> Shapes:
        if self.boxes is None:
            make_room(self._viewer, self._image, Shapes)
            self.boxes = Shapes(
                name=BOXES_NAME,
                features={_OBJECT: np.zeros(0, int), _EXACT: np.zeros(0, int)},
                feature_defaults={_OBJECT: self.object_id, _EXACT: int(self.exact)},
                face_color=[0, 0, 0, 0],
                edge_width=max(frames_shape(self._image)[-2:]) * _EDGE_WIDTH,
                metadata=metadata_for_marks(self._image),
                **transform_of(self._image),
            )
            self._add(self.boxes)
        return self.boxes

    def _ensure_points(self) -> Points:
        if self.points is None:
            make_room(self._viewer, self._image, Points)
            self.points = Points(
                name=POINTS_NAME,
                features={_OBJECT: np.zeros(0, int), _LABEL: np.zeros(0, int)},
                feature_defaults={_OBJECT: self.object_id, _LABEL: self.label},
                size=max(frames_shape(self._image)[-2:]) * _POINT_SIZE,
                border_width=_BORDER_WIDTH,
                metadata=metadata_for_marks(self._image),
                **transform_of(self._image),
            )
            self._add(self.points)
        return self.points

    def _add(self, layer: Any) -> None:
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active  # the tool in hand stays in hand
        draw_only_where_marked(self._viewer, layer)
        layer.events.data.connect(self._on_data)
        layer.events.features.connect(self._on_features)  # pasted shapes come without a data event
        layer.events.mode.connect(self._on_mode)

    def _set_defaults(self) -> None:
        # Whatever is selected would take on the new object and polarity: nothing may be.
        with self._silent():
            for layer in self.layers:
                layer.selected_data = set()
            if self.boxes is not None:
                self.boxes.feature_defaults = {_OBJECT: self.object_id, _EXACT: int(self.exact)}
                self.boxes.current_edge_color = edge_colours([self.object_id], self._colours)[0]
            if self.points is not None:
                self.points.feature_defaults = {_OBJECT: self.object_id, _LABEL: self.label}
                self.points.current_symbol = SYMBOLS[self.label]
                self.points.current_face_color = face_colours([self.label])[0]
                self.points.current_border_color = edge_colours([self.object_id], self._colours)[0]

    def dress(self, colours: Mapping[int, Colour], hidden: Iterable[int]) -> None:
        """Draw the objects in these colours, and some not at all."""
        hidden = frozenset(hidden)
        if (colours, hidden) != (self._colours, self._hidden):
            self._colours, self._hidden = dict(colours), hidden
            self._restyle()
            self._set_defaults()

    def set_exact(self, on: bool) -> None:
        """Whether the current object's outline on the frame shown, and those drawn next, are the mask as drawn."""
        self.exact = on
        if self.boxes is not None and len(self.boxes.data):
            shown = (self.object_id, shown_frame(self._viewer, self._image))
            indices = self._read_boxes().elements.get(shown, [])
            features = self.boxes.features.copy()
            features.loc[indices, _EXACT] = int(on)
            with self._silent():
                self.boxes.features = features
        self._set_defaults()

    # Events ---------------------------------------------------------------------------------------------------------

    def _on_data(self, event: Any) -> None:
        action = str(getattr(event.action, "value", event.action))
        if self._quiet or action not in _FINAL_ACTIONS:
            return
        if action == "added" and str(event.source.mode).startswith("add"):
            self._claim(event.source, event.data_indices)
        self._on_change()

    def _on_features(self, event: Any) -> None:
        if not self._quiet:
            self._on_change()

    def _on_mode(self, event: Any) -> None:
        self._on_tool()

    def _claim(self, layer: Any, indices: Iterable[int]) -> None:
        """What was just drawn belongs to the current object, whatever was selected before."""
        features = layer.features.copy()
        rows = [index % len(features) for index in indices]
        features.loc[rows, _OBJECT] = self.object_id
        if layer == self.points:
            features.loc[rows, _LABEL] = self.label
        else:
            features.loc[rows, _EXACT] = int(self.exact)
        with self._silent():
            layer.features = features

    @contextmanager
    def _silent(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    # Reading --------------------------------------------------------------------------------------------------------

    def read(self) -> Read:
        """What the layers ask for. Shapes that a later one replaces, and clicks of the box tool, are taken away."""
        shapes, points = self._read_boxes(), self._read_points()
        self._drop(self.boxes, shapes.superseded)
        self._restyle()
        problems = [*shapes.problems.values(), *points.problems.values(), *_idle_clicks(shapes, points)]
        return Read(combined(shapes.prompts, points.prompts), problems)

    def _read_boxes(self) -> Found:
        layer = self.boxes
        if layer is None or not len(layer.data):
            return Found()
        exact = [value > 0 for value in self._column(layer, _EXACT)]
        ids, placement = self._column(layer, _OBJECT), self._placement(layer)
        found = shapes_to_prompts(layer.data, layer.shape_type, ids, placement, exact)
        for key, (index,) in found.elements.items():
            if layer.shape_type[index] != "rectangle":
                outline = Outline(found.prompts[key], np.array(layer.data[index]), layer.shape_type[index])
                self._outlines.remember(key, outline)
        return found

    def _read_points(self) -> Found:
        layer = self.points
        if layer is None or not len(layer.data):
            return Found()
        labels = [int(label > 0) for label in self._column(layer, _LABEL)]
        return points_to_prompts(layer.data, labels, self._column(layer, _OBJECT), self._placement(layer))

    def _column(self, layer: Any, name: str) -> list[int]:
        default = {_OBJECT: self.object_id, _LABEL: self.label, _EXACT: int(self.exact)}[name]
        if name not in layer.features:
            return [default] * len(layer.data)
        return whole_numbers(layer.features[name], default)

    def _placement(self, layer: Any) -> Placement:
        shape = frames_shape(self._image)
        return Placement(affine_of(layer), affine_of(self._image), shape, shown_frame(self._viewer, self._image))

    # Writing --------------------------------------------------------------------------------------------------------

    def show(self, prompts: Mapping[Key, Prompt], keys: Iterable[Key] | None = None) -> None:
        """Make the layers say what ``prompts`` say, for some keys or for all.

        A mask has a drawing only if it was drawn as an outline.
        """
        shapes, points = self._read_boxes(), self._read_points()
        here = combined(shapes.prompts, points.prompts)
        concerned = set(keys) if keys is not None else set(here) | set(prompts)
        differing = [key for key in sorted(concerned) if not same_request(here.get(key), prompts.get(key))]
        self._drop(self.boxes, [index for key in differing for index in shapes.elements.get(key, ())])
        self._drop(self.points, [index for key in differing for index in points.elements.get(key, ())])
        with self._silent():
            for key in differing:
                if key in prompts:
                    self._draw(key, prompts[key])
        self._restyle()
        self._set_defaults()

    def _draw(self, key: Key, prompt: Prompt) -> None:
        object_id, frame = key
        outline = self._outlines.find(key, prompt)
        if prompt.box is not None or outline is not None:
            layer = self._ensure_boxes()
            layer.feature_defaults = {_OBJECT: object_id, _EXACT: int(prompt.mask is not None)}
            if outline is not None:
                layer.add(outline.vertices, shape_type=outline.shape_type)
            else:
                layer.add(corners_of_box(prompt, frame, self._placement(layer)), shape_type="rectangle")
        if prompt.points:
            layer = self._ensure_points()
            count = len(layer.data)
            layer.add(positions_of_points(prompt, frame, self._placement(layer)))
            features = layer.features.copy()
            rows = list(range(count, len(layer.data)))
            features.loc[rows, _OBJECT] = object_id
            features.loc[rows, _LABEL] = list(prompt.labels)
            layer.features = features

    def _drop(self, layer: Any, indices: list[int]) -> None:
        if layer is not None and indices:
            with self._silent():
                layer.selected_data = set()
                layer.remove(sorted(indices))

    def _restyle(self) -> None:
        """Colours and symbols follow object and polarity, also of what was drawn, pasted or edited by other means."""
        with self._silent():
            if self.boxes is not None and len(self.boxes.data):
                colours = edge_colours(self._column(self.boxes, _OBJECT), self._colours, self._hidden)
                if not np.allclose(self.boxes.edge_color, colours):
                    self.boxes.edge_color = colours
            if self.points is not None and len(self.points.data):
                self._restyle_points(self.points)

    def _restyle_points(self, layer: Points) -> None:
        ids = self._column(layer, _OBJECT)
        labels = [int(label > 0) for label in self._column(layer, _LABEL)]
        for name, colours in (("face_color", face_colours(labels)), ("border_color", edge_colours(ids, self._colours))):
            if not np.allclose(getattr(layer, name), colours):
                setattr(layer, name, colours)
        layer.symbol = [SYMBOLS[label] for label in labels]
        shown = np.array([object_id not in self._hidden for object_id in ids])
        if not np.array_equal(layer.shown, shown):
            layer.shown = shown


def _idle_clicks(shapes: Found, points: Found) -> list[PromptError]:
    """Why clicks do nothing where an outline is the mask itself."""
    keys = [key for key, prompt in shapes.prompts.items() if prompt.mask is not None and key in points.prompts]
    why, fix = "the outline drawn there is the mask itself", "Change the outline, or turn off Drawn outlines are exact"
    return [PromptError(f"Clicks on frame {frame} change nothing", why, fix) for _, frame in sorted(keys)]
