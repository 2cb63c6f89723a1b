"""The Labels layer that shows a session's masks, and takes what the user paints in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap

from napari_uniultra.core.measure import Markers
from napari_uniultra.core.palette import colour_of
from napari_uniultra.plugin.layers import (
    METADATA_KEY,
    features_of_names,
    markers_of,
    names_of_objects,
    set_markers,
)
from napari_uniultra.plugin.prompt_layers import frames_shape, shown_frame, transform_of

MASKS_NAME = "UniUltra masks"
_OPACITY = 0.5


class ResultLayer:
    """Writes label images frame by frame; the layer is made when there is something to show.

    Parameters
    ----------
    viewer : napari.Viewer
    image : napari.layers.Image
        The masks lie over it, with its scale, translation and units.
    on_paint : callable
        Called when the user paints or erases; `take_painted` gives the frames once it is done.

    Attributes
    ----------
    on_markers : callable
        Called with this object when markers were set on the layer, other than by `set_markers`.
    """

    def __init__(self, viewer: Any, image: Any, on_paint: Callable[[], None]) -> None:
        self._viewer, self._image, self._on_paint = viewer, image, on_paint
        self.on_markers: Callable[[ResultLayer], None] = lambda result: None
        self.layer: Labels | None = None
        self._markers = Markers()
        self._names: dict[int, str] = {}
        self._written: set[int] = set()
        self._painted: set[int] = set()

    def write(self, labels: Mapping[int, np.ndarray], everything: bool = False) -> None:
        """Show label images (H, W) of some frames; with ``everything`` all other frames become empty."""
        if self.layer is None:
            if not labels:
                return
            self._create()
        data = self._frames()
        for frame in self._written - set(labels) if everything else ():
            data[frame] = 0
        for frame, image in labels.items():
            if frame not in self._painted:  # the user's own hand comes first, and is on its way to the session
                data[frame] = image
        self._written |= set(labels)
        # In place, and redrawn only where it shows: a new array, or napari's edit history, for each frame of a long
        # loop would take its memory many times over.
        if everything or self._viewer.dims.ndisplay == 3 or shown_frame(self._viewer, self._image) in labels:
            self.layer.refresh(extent=False)

    def take_painted(self) -> dict[int, np.ndarray]:
        """The label images (H, W) of the frames that were painted since the last call."""
        painted, self._painted = self._painted, set()
        return {frame: np.array(self._frames()[frame]) for frame in sorted(painted)}

    def forget(self, layer: Any) -> bool:
        """Let go of the layer if it is the one that was deleted; returns whether it was."""
        if self.layer is None or layer != self.layer:
            return False
        self.layer, self._written, self._painted = None, set(), set()
        return True

    def disconnect(self) -> None:
        """Leave the layer to the user."""
        if self.layer is not None:
            self.layer.events.paint.disconnect(self._on_paint_event)
            self.layer.events.metadata.disconnect(self._on_metadata)

    def follow_image(self) -> None:
        """Take over the image's scale and position."""
        if self.layer is not None:
            for name in ("scale", "translate", "rotate", "shear", "affine"):
                setattr(self.layer, name, getattr(self._image, name))

    def name(self, names: Mapping[int, str]) -> None:
        """Keep the objects' names with their masks: they are shown under the pointer, and saved."""
        self._names = dict(names)
        if self.layer is not None and names_of_objects(self.layer.features) != self._names:
            self.layer.features = features_of_names(self._names)

    def choose(self, object_id: int) -> None:
        """Make ``object_id`` the one that painting paints."""
        if self.layer is not None:
            self.layer.selected_label = object_id

    @property
    def markers(self) -> Markers:
        """The heart cycles and long axes that were set by hand on the masks."""
        return self._markers

    def set_markers(self, markers: Markers) -> None:
        """Show markers of the session in the layer, where there is one."""
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
        known = {METADATA_KEY: self._image.metadata.get(METADATA_KEY, {})}
        data = np.zeros(frames_shape(self._image), np.uint16)  # untouched frames of a long loop take no memory
        keywords |= {"metadata": known, "features": features_of_names(self._names)}
        self.layer = Labels(data, name=MASKS_NAME, opacity=_OPACITY, colormap=_colormap(), **keywords)
        active = self._viewer.layers.selection.active
        self._viewer.layers.insert(self._viewer.layers.index(self._image) + 1, self.layer)
        self._viewer.layers.selection.active = active  # the tool in hand stays in hand
        self.layer.events.paint.connect(self._on_paint_event)
        self.layer.events.metadata.connect(self._on_metadata)

    def _frames(self) -> np.ndarray:
        data = self.layer.data
        return data[None] if data.ndim == 2 else data

    def _on_paint_event(self, event: Any) -> None:
        # What the event holds differs between releases of napari, and it comes before the data changes: only the
        # frames are noted here.
        shown = shown_frame(self._viewer, self._image)
        reach = int(self.layer.brush_size) if self.layer.n_edit_dimensions > 2 else 0
        self._painted |= set(range(max(0, shown - reach), min(len(self._frames()), shown + reach + 1)))
        self._on_paint()


def _colormap() -> CyclicLabelColormap:
    period = next(n for n in range(1, 256) if colour_of(n + 1) == colour_of(1))
    opaque = [(*colour_of(object_id), 255) for object_id in range(1, period + 1)]
    return CyclicLabelColormap(colors=np.array([(0, 0, 0, 0), *opaque]) / 255)
