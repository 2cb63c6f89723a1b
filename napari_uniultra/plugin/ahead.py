"""Has the frames around the one that is looked at ready before anybody marks something there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from napari_uniultra.plugin.controller import SegmentController

_REST_MS = 150  # a frame that is shown so long is looked at; those of a loop that plays or is scrolled are not


class Ahead(QObject):
    """Lets the inference thread embed frames while it has nothing else to do."""

    def __init__(self, control: SegmentController) -> None:
        super().__init__(control)
        self._control = control
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._begin)

    def look(self) -> None:
        """A frame is shown, or what is known of it changed."""
        self._rest.start()

    def stop(self) -> None:
        """Compute nothing ahead until the next look."""
        self._rest.stop()
        self._control.jobs.ahead(None)

    def _begin(self) -> None:
        control, frame = self._control, self._control.frame
        if control.work is not None and not control.tracker.running:
            control.jobs.ahead(lambda: control.host.prepare_around(frame))
