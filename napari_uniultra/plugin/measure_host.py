"""Between the viewer's masks and the measure panel: what is measured, which beat, which long axis. No widgets."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_uniultra.core.masks import stack_of
from napari_uniultra.core.measure import (
    Cycle,
    CycleMeasurement,
    Markers,
    Measurement,
    area_curve,
    chosen_cycles,
    long_axis,
    measure_object_cycle,
)
from napari_uniultra.core.measure.cardiac import Axis
from napari_uniultra.core.palette import Colour
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import UniUltraError
from napari_uniultra.plugin.axis_layer import AxisLayer
from napari_uniultra.plugin.image_layer import frames_shape, shown_frame
from napari_uniultra.plugin.jobs import Jobs
from napari_uniultra.plugin.layers import (
    colours_in,
    markers_of,
    names_image,
    names_of_objects,
    set_markers,
)
from napari_uniultra.plugin.loop_measurements import LoopMeasurements
from napari_uniultra.plugin.loop_scale import is_masks_of
from napari_uniultra.plugin.masks_image import images_of, known_of
from napari_uniultra.plugin.preview_layer import is_preview

_SOON_MS = 100  # after the masks were touched
_LOOK_AGAIN_MS = 500  # at least; masks that tracking writes in place are not announced by napari
_LOOK_AGAIN_TIMES = 10  # the time it took to look: a tenth of one processor at most


class MeasureController(QObject):
    """Keeps the measurements of one Labels layer up to date, in another thread.

    Parameters
    ----------
    viewer : napari.Viewer
    jobs : Jobs
        The thread that measures.
    """

    changed = Signal()  # rows, objects, cycles
    frame_changed = Signal(int)
    failed = Signal(object)

    def __init__(self, viewer: Any, jobs: Jobs) -> None:
        super().__init__()
        self._viewer, self._jobs = viewer, jobs
        self._layer: Any = None
        self._image: Any = None  # that the masks lie on, where one was there when they were chosen
        self._in_use: Any = None  # the image layer that is worked on
        self._measured: LoopMeasurements | None = None
        self._axes_layer: AxisLayer | None = None
        self._axes: dict[tuple[int, int], Axis] = {}  # (object id, frame): set by the user
        self._edited: dict[int, list[Cycle]] = {}  # object id: set by the user
        self.rows: list[Measurement] = []
        self.cycles: list[Cycle] = []
        self.object_id, self.beat = 0, 0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._look)
        self._looking = False
        viewer.dims.events.current_step.connect(self._on_frame)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        for emitter in (viewer.layers.events.inserted, viewer.layers.events.removed):
            emitter.connect(self._find_image)

    # State for the panel --------------------------------------------------------------------------------------------

    @property
    def layer(self) -> Any:
        """The Labels layer that is measured, or None."""
        return self._layer

    @property
    def cine(self) -> Cine | None:
        """Spacing, times and length of the loop."""
        return None if self._measured is None else self._measured.cine

    @property
    def is_of_several(self) -> bool:
        """Whether the masks may be of several loops whose scales or times differ, so that neither is known."""
        layer = self._layer
        if layer is None or self._image is not None or known_of(layer).get("spacing_mm") is not None:
            return False
        return len(images_of(self._viewer, layer, self._in_use)) > 1

    @property
    def objects(self) -> dict[int, str]:
        """Id to name of the objects that were found."""
        return dict(sorted({row.object_id: row.object_name for row in self.rows}.items()))

    @property
    def colours(self) -> dict[int, Colour]:
        """Id to colour of the objects for which the layer has one."""
        return {} if self._layer is None else colours_in(self._layer.metadata)

    @property
    def frame(self) -> int:
        """The frame that is shown."""
        return 0 if self._layer is None else shown_frame(self._viewer, self._layer)

    @property
    def cycle(self) -> Cycle | None:
        """The beat that is chosen."""
        return self.cycles[self.beat] if self.beat < len(self.cycles) else None

    @property
    def axis_shown(self) -> bool:
        """Whether the long axes are in the viewer."""
        return self._axes_layer is not None

    def curve(self, object_id: int) -> np.ndarray:
        """(T,) area of an object; NaN where it is not."""
        return area_curve(self.rows, object_id, 0 if self.cine is None else len(self.cine))

    def positions(self) -> np.ndarray:
        """(T,) where the frames lie on the axis of time: ms where the times are known, else their numbers."""
        if self.cine is None:
            return np.empty(0)
        times = self.cine.frame_times_s
        return np.arange(len(self.cine), dtype=float) if times is None else times * 1000

    def measured_cycle(self, cycle: Cycle | None = None) -> CycleMeasurement | None:
        """What a beat measures, the chosen one by default; with the long axes as the user set them."""
        cycle = cycle or self.cycle
        if cycle is None or self.cine is None:
            return None
        axes = tuple(self._axis(frame) for frame in (cycle.ed, cycle.es))
        name = self.objects.get(self.object_id, "")
        return measure_object_cycle(self.cine, self._labels(), cycle, self.object_id, name, axes)

    # What the user does ---------------------------------------------------------------------------------------------

    def set_layer(self, layer: Any) -> None:
        """Measure another Labels layer, or none."""
        if layer == self._layer:
            return
        self.show_axis(False)
        self._connect(connect=False)
        if self._measured is not None:
            self._measured.close()
        self._layer, self._measured, self.rows, self.cycles = layer, None, [], []
        self._image = None if layer is None else self._image_below(layer)
        self._axes, self._edited, self.object_id, self.beat = {}, {}, 0, 0
        if layer is not None:
            self._take_markers()
            try:
                self._measured = LoopMeasurements(self._loop_of(layer))
            except UniUltraError as error:
                self._layer = None
                self.failed.emit(error)
            self._connect(connect=True)
            self._look_soon()
        self.changed.emit()

    def use_image(self, image: Any) -> None:
        """Say which image layer is worked on: masks of its size that do not say of which loop they are, are of it."""
        if image != self._in_use:
            self._in_use = image
            self._find_image()

    def _find_image(self, event: Any = None) -> None:
        """The image that the masks lie on may be another one by now."""
        found = None if self._layer is None else self._image_below(self._layer)
        if found != self._image:
            self._connect(connect=False)
            self._image = found
            self._connect(connect=True)
            self._look_soon()

    def choose_object(self, object_id: int) -> None:
        """Look at another object."""
        if object_id != self.object_id:
            self.object_id, self.beat = object_id, 0
            self._find_cycles()

    def choose_beat(self, beat: int) -> None:
        """Look at another beat, counted from 0."""
        self.beat = int(np.clip(beat, 0, max(0, len(self.cycles) - 1)))
        self._show_axes()
        self.changed.emit()

    def set_frames_of_cycle(self, ed: int | None = None, es: int | None = None) -> None:
        """Say which frames are the chosen beat's end-diastole and end-systole."""
        known = self.curve(self.object_id)
        if self.cycle is None or not np.isfinite(known).any():
            return
        nearest = [None if frame is None else _nearest(known, frame) for frame in (ed, es)]
        cycle = self.cycle
        moved = Cycle(cycle.ed if nearest[0] is None else nearest[0], cycle.es if nearest[1] is None else nearest[1])
        self._edited[self.object_id] = [moved if beat == self.beat else c for beat, c in enumerate(self.cycles)]
        self._keep_markers()
        self._find_cycles()

    def find_cycles_again(self) -> None:
        """Forget what the user said of beats and long axes of this object."""
        self._edited.pop(self.object_id, None)
        self._axes = {key: axis for key, axis in self._axes.items() if key[0] != self.object_id}
        self._keep_markers()
        self._find_cycles()

    def show_axis(self, on: bool) -> None:
        """Show the long axes of the chosen beat as lines that can be moved, or take them away."""
        if on and self._axes_layer is None and self._layer is not None:
            self._axes_layer = AxisLayer(self._viewer, self._layer, self._on_axis)
            self._show_axes()
        elif not on and self._axes_layer is not None:
            layer, self._axes_layer = self._axes_layer, None
            layer.remove()
        self.changed.emit()

    def go_to(self, frame: int) -> None:
        """Show a frame."""
        if self._layer is not None and self._layer.ndim == 3 and frame != self.frame:
            position = self._layer.data_to_world((frame, 0, 0))[0]
            self._viewer.dims.set_point(self._viewer.dims.ndim - 3, position)

    def start(self) -> None:
        """Measure, and look for changes from now on."""
        self._looking = True
        self._look_soon()

    def pause(self) -> None:
        """Stop looking for changes, as while nobody can see them."""
        self._looking = False
        with suppress(RuntimeError):  # a window that closes takes the timer down before it hides the panel
            self._timer.stop()

    def disconnect_viewer(self) -> None:
        """Let go of the viewer, which outlives the panel."""
        self.pause()
        self._connect(connect=False)
        if self._measured is not None:
            self._measured.close()
        for emitter in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            emitter.disconnect(self._find_image)
        self._viewer.layers.events.removed.disconnect(self._on_layer_removed)
        self._viewer.dims.events.current_step.disconnect(self._on_frame)

    # Measuring ------------------------------------------------------------------------------------------------------

    def _connect(self, connect: bool) -> None:
        if self._layer is None:
            return
        emitters = [getattr(self._layer.events, name) for name in ("paint", "set_data", "features", "scale")]
        if self._image is not None:
            emitters.append(self._image.events.scale)
        for emitter in emitters:
            (emitter.connect if connect else emitter.disconnect)(self._look_soon)
        emitter = self._layer.events.metadata
        (emitter.connect if connect else emitter.disconnect)(self._on_metadata)

    # What is set by hand lives with the layer: a session keeps it, and it is there again with the layer.

    def _markers(self) -> Markers:
        return Markers({number: tuple(cycles) for number, cycles in self._edited.items()}, dict(self._axes))

    def _keep_markers(self) -> None:
        set_markers(self._layer, self._markers())

    def _take_markers(self) -> None:
        markers = markers_of(self._layer)
        self._edited = {number: list(cycles) for number, cycles in markers.cycles.items()}
        self._axes = dict(markers.axes)

    def _on_metadata(self, event: Any = None) -> None:
        if markers_of(self._layer) != self._markers():
            self._take_markers()
            self._find_cycles()
        else:
            self.changed.emit()  # such as other colours

    def _loop_of(self, layer: Any) -> Cine:
        """The masks' loop without its frames: what their layer knows of it, or the image that they lie on."""
        shape = frames_shape(layer)
        shape = (1, *shape) if len(shape) == 2 else shape
        image = self._image_below(layer)
        below = {} if image is None else known_of(image)
        known = {**below, **known_of(layer)}  # the layer may know its markers and no more
        times, sector = known.get("frame_times_s"), known.get("sector")
        return Cine(
            np.broadcast_to(np.zeros(1, np.uint8), shape),
            spacing_mm=known.get("spacing_mm"),
            frame_times_s=times if times is not None and len(times) == shape[0] else None,
            sector=sector if sector is not None and np.shape(sector) == tuple(shape[1:]) else None,
        )

    def _image_below(self, layer: Any) -> Any:
        """The image that masks are of; None where there is none, or where it cannot be told which."""
        images = images_of(self._viewer, layer, self._in_use)
        return images[0] if len(images) == 1 else None

    def _labels(self) -> Any:
        return stack_of(self._layer.data)

    def _look_soon(self, event: Any = None) -> None:
        if self._looking:
            self._timer.start(_SOON_MS)

    def _follow_loop(self) -> None:
        """Measure anew where the loop is another by now; beats and long axes, in frames and pixels, stay."""
        loop = self._loop_of(self._layer)
        if not _is_measured_alike(loop, self._measured.cine):
            self._measured.close()
            self._measured = LoopMeasurements(loop)

    def _look(self) -> None:
        if self._measured is None:
            return
        self._follow_loop()
        measured = self._measured
        labels, start = self._labels(), time.perf_counter()

        def done(changed: bool) -> None:
            if measured is self._measured and self._layer is not None:
                if changed or self._names_changed():
                    self._take_rows()
                took_ms = 1000 * (time.perf_counter() - start)
                if self._looking and not self._timer.isActive():
                    self._timer.start(int(max(_LOOK_AGAIN_MS, _LOOK_AGAIN_TIMES * took_ms)))

        self._jobs.submit(lambda: measured.update(labels), done, self.failed.emit, key="measure")

    def _names(self) -> dict[int, str]:
        return names_of_objects(self._layer.features)

    def _names_changed(self) -> bool:
        names = self._names()
        return any(names.get(object_id, name) != name for object_id, name in self.objects.items())

    def _take_rows(self) -> None:
        self.rows = self._measured.rows(self._names())
        if self.object_id not in self.objects:
            self.object_id, self.beat = min(self.objects, default=0), 0
        self._find_cycles()

    def _find_cycles(self) -> None:
        curve = self.curve(self.object_id)
        times = None if self.cine is None else self.cine.frame_times_s
        self.cycles = list(chosen_cycles(self._edited.get(self.object_id, []), curve, times))
        self.choose_beat(self.beat)

    # Long axes ------------------------------------------------------------------------------------------------------

    def _axis(self, frame: int) -> Axis | None:
        if (self.object_id, frame) in self._axes:
            return self._axes[self.object_id, frame]
        mask = np.asarray(self._labels()[frame]) == self.object_id
        return long_axis(mask, self.cine.spacing_mm or (1.0, 1.0))

    def _show_axes(self) -> None:
        if self._axes_layer is None:
            return
        shown: dict[int, tuple[str, Axis]] = {}
        for phase, frame in () if self.cycle is None else (("ED", self.cycle.ed), ("ES", self.cycle.es)):
            axis = self._axis(frame)
            if axis is not None:
                shown[frame] = phase, axis
        self._axes_layer.show(shown)

    def _on_axis(self) -> None:
        lines = self._axes_layer.read()
        for frame in () if self.cycle is None else (self.cycle.ed, self.cycle.es):
            axis = lines.get(frame)
            if axis is not None and not np.allclose(axis, self._axis(frame) or 0):
                self._axes[self.object_id, frame] = axis
        self._keep_markers()
        self.changed.emit()

    def _on_layer_removed(self, event: Any) -> None:
        if self._axes_layer is not None and event.value is self._axes_layer.layer:
            self.show_axis(False)

    # Frames ---------------------------------------------------------------------------------------------------------

    def _on_frame(self, event: Any = None) -> None:
        if self._layer is not None:
            self.frame_changed.emit(self.frame)


def _is_measured_alike(one: Cine, other: Cine) -> bool:
    """Whether masks of one loop measure the same on the other."""
    same_size = one.frames.shape == other.frames.shape and one.spacing_mm == other.spacing_mm
    pairs = (one.frame_times_s, other.frame_times_s), (one.sector, other.sector)
    return same_size and all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def _nearest(curve: np.ndarray, frame: int) -> int:
    """The frame nearest to ``frame`` on which the object is."""
    known = np.flatnonzero(np.isfinite(curve))
    return int(known[np.abs(known - frame).argmin()])


def labels_layers(viewer: Any) -> list[Any]:
    """The Labels layers of a viewer that may be masks of a loop."""
    return [
        layer
        for layer in viewer.layers
        if isinstance(layer, Labels) and not layer.multiscale and layer.ndim <= 3 and not is_preview(layer)
    ]


def masks_to_measure(masks: list[Any], image: Any, before: Any) -> Any:
    """Which of some layers of masks to measure: those of an image, where one is given, else those measured before.

    Masks that do not say of which image they are may be of this one; None where all are of others.
    """
    if image is not None:
        own = next((layer for layer in masks if is_masks_of(image, layer)), None)
        nobodys = [layer for layer in masks if names_image(layer, image) is None]
        masks = nobodys if own is None else [own]
    return before if before in masks else next(iter(masks), None)


def title_of_masks(viewer: Any, layer: Any) -> str:
    """The name of a layer of masks, with the name of the loop that they are of where that is known."""
    image = next((other for other in viewer.layers if isinstance(other, Image) and names_image(layer, other)), None)
    return layer.name if image is None else f"{layer.name} of {image.name}"
