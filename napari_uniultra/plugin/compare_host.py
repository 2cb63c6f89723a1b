"""Between the viewer and the panel "Compare": runs a comparison in a thread of its own and shows it. No widgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import UniUltraError
from napari_uniultra.plugin.compare import Comparison, compare_masks
from napari_uniultra.plugin.compare_layers import CompareLayers, is_copy
from napari_uniultra.plugin.compare_sources import Progress, Source
from napari_uniultra.plugin.image_layer import shown_frame
from napari_uniultra.plugin.jobs import Jobs, StreamHandle
from napari_uniultra.plugin.layers import cine_of_layer


class CompareController(QObject):
    """One comparison at a time.

    Parameters
    ----------
    viewer : napari.Viewer
    jobs : Jobs
        A thread for this alone: the open session has its own.
    """

    progressed = Signal(object)  # Progress, or None at the end
    changed = Signal()  # the comparison
    frame_changed = Signal(int)
    failed = Signal(object)

    def __init__(self, viewer: Any, jobs: Jobs) -> None:
        super().__init__()
        self._viewer, self._jobs = viewer, jobs
        self._stream: StreamHandle | None = None
        self._image: Any = None
        self._shown = CompareLayers(viewer)
        self.comparison: Comparison | None = None
        self.cine: Cine | None = None
        self.outlines, self.side_by_side = True, False
        viewer.dims.events.current_step.connect(self._on_frame)
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def running(self) -> bool:
        """Whether a comparison is being made."""
        return self._stream is not None

    @property
    def frame(self) -> int:
        """The frame that is shown."""
        return 0 if self._image is None else shown_frame(self._viewer, self._image)

    def run(self, image: Any, a: Source, b: Source) -> None:
        """Get the masks of both, compare them and show them on the image layer."""
        if self.running:
            return
        try:
            cine = cine_of_layer(image)
        except UniUltraError as error:
            self.failed.emit(error)
            return

        def take(item: Progress | Comparison) -> None:
            if isinstance(item, Progress):
                self.progressed.emit(item)
            elif image in self._viewer.layers:
                self._show(image, cine, item)

        self._stream = self._jobs.stream(lambda: _steps(cine, a, b), take, self._ended, self._failed)
        self.progressed.emit(Progress("Starting"))

    def cancel(self) -> None:
        """Stop after the frame it is at; what was shown before stays."""
        if self._stream is not None:
            self._stream.cancel()

    def set_outlines(self, on: bool) -> None:
        """Outlines, or filled areas."""
        self.outlines = on
        self._shown.set_outlines(on)

    def set_side_by_side(self, on: bool) -> None:
        """Side by side, or over each other."""
        self.side_by_side = on
        if self._image is not None:
            self._shown.set_side_by_side(self._image, on)

    def go_to(self, frame: int) -> None:
        """Show a frame."""
        if self._image is not None and self._image.ndim == 3 and frame != self.frame:
            position = self._image.data_to_world((frame, 0, 0))[0]
            self._viewer.dims.set_point(self._viewer.dims.ndim - 3, position)

    def close(self) -> None:
        """Stop computing."""
        self.cancel()
        self._jobs.stop(timeout_s=5.0)
        self._stream = None

    def disconnect_viewer(self) -> None:
        """Let go of the viewer, which outlives the panel."""
        self._viewer.dims.events.current_step.disconnect(self._on_frame)
        self._viewer.layers.events.removed.disconnect(self._on_removed)

    def _show(self, image: Any, cine: Cine, comparison: Comparison) -> None:
        self._image, self.cine, self.comparison = image, cine, comparison
        self._shown.show(image, comparison.titles, comparison.masks)
        self._shown.set_outlines(self.outlines)
        self._shown.set_side_by_side(image, self.side_by_side)
        self.changed.emit()

    def _ended(self, stream: StreamHandle) -> None:
        self._stream = None
        self.progressed.emit(None)

    def _failed(self, error: Exception) -> None:
        self._stream = None
        self.progressed.emit(None)
        self.failed.emit(error)

    def _on_frame(self, event: Any = None) -> None:
        if self.comparison is not None:
            self.frame_changed.emit(self.frame)

    def _on_removed(self, event: Any) -> None:
        if event.value == self._image:
            self.set_side_by_side(False)
            self._image = self.comparison = None
            self.changed.emit()
        self._shown.forget(event.value)


def _steps(cine: Cine, a: Source, b: Source) -> Iterator[Progress | Comparison]:
    """In the comparison's thread."""
    first = yield from a.load(cine)
    second = yield from b.load(cine)
    for item in compare_masks((a.title, b.title), first, second, cine.spacing_mm):
        yield item if isinstance(item, Comparison) else Progress("Comparing", item, len(first))


def image_layers(viewer: Any) -> list[Any]:
    """The image layers of a viewer that may be loops."""
    return [layer for layer in viewer.layers if isinstance(layer, Image) and not is_copy(layer)]
