"""Session files as the user meets them: save one, open one for the loop that it was made for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError, UniUltraError
from napari_uniultra.plugin.compare_host import image_layers
from napari_uniultra.plugin.layers import cine_of_layer
from napari_uniultra.plugin.outcomes import OpenedSession
from napari_uniultra.segment.session_file import SUFFIX, read_about

if TYPE_CHECKING:
    from napari_uniultra.plugin.controller import SegmentController
    from napari_uniultra.segment.session_about import LoopName

_NOT_HERE = (
    "This session was made with the model {name!r}, which is not on this computer. Its masks are shown as they were. "
    "New ones come from the model chosen here, until that one is added under Models."
)


class SessionFiles(QObject):
    """Saves and opens what was made of a loop."""

    image_found = Signal(object)  # the image layer that a session belongs to, when another one is in use
    model_found = Signal(str)  # the name of the model that a session was made with, when another one is in use

    def __init__(self, control: SegmentController, viewer: Any) -> None:
        super().__init__(control)
        self._control, self._viewer = control, viewer

    def save(self, path: str | Path) -> None:
        """Write marks, masks, locks, markers and measurements to a file; the suffix is added where it is missing."""
        control, work = self._control, self._control.work_or_word()
        if work is None:
            return
        control.marks.sync()
        path = Path(path)
        target = path if path.suffix.lower() == SUFFIX else path.with_name(path.name + SUFFIX)
        cine = cine_of_layer(work.image)
        control.say("Measuring and saving the session")
        control.submit(lambda: control.host.save_session(target, cine), lambda _: control.say("The session is saved"))

    def open(self, path: str | Path) -> None:
        """Bring back what a file holds, on the layer of its loop; what was there is one undo away."""
        path, control = Path(path), self._control
        try:
            layer = self._layer_of(path, read_about(path).loop)
        except UniUltraError as error:
            control.failed.emit(error)
            return
        if layer != control.image:
            self.image_found.emit(layer)
        # By then the layer's own work is back, where it was in use before: it is what undo leads to.
        control.submit(lambda: None, lambda _: self._open(path))

    def _open(self, path: Path) -> None:
        host = self._control.host
        self._control.review.go(lambda: host.open_session(path), self._opened)

    def _opened(self, opened: OpenedSession) -> None:
        control = self._control
        control.restorable = False
        control.review.show_other_state(opened.outcome)
        control.marks.send_again()
        if not opened.is_here:
            control.noticed.emit(_NOT_HERE.format(name=opened.made_with.name))
        elif opened.model:
            self.model_found.emit(opened.model)

    def _layer_of(self, path: Path, wanted: LoopName) -> Any:
        images = image_layers(self._viewer)
        images.sort(key=lambda layer: layer != self._control.image)  # the one in use first
        for layer in images:
            cine = _cine_or_none(layer)
            if cine is not None and cine.key == wanted.key:
                return layer
        what = "is for another loop" if images else "is for a loop that is not open"
        raise ReadError(f"{path.name} {what}", f"it was made for {wanted.words}", "Open that loop, then the session")


def _cine_or_none(layer: Any) -> Cine | None:
    try:
        return cine_of_layer(layer)
    except UniUltraError:
        return None
