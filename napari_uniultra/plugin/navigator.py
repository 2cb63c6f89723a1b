"""Going through the loop: to a frame, and from one frame that needs a look to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_uniultra.core.types import default_name
from napari_uniultra.plugin.layers import Key

if TYPE_CHECKING:
    from napari_uniultra.plugin.controller import SegmentController


class Navigator(QObject):
    """Shows frames of the loop in use."""

    def __init__(self, control: SegmentController) -> None:
        super().__init__(control)
        self._control = control

    @property
    def settled(self) -> frozenset[Key]:
        """(object id, frame) about which the user has said the last word: accepted, or given as a mask."""
        known = self._control.snapshot
        return known.locked | {key for key, prompt in known.prompts.items() if prompt.mask_only}

    def go_to(self, frame: int) -> None:
        """Show a frame."""
        image, dims = self._control.image, self._control.viewer.dims
        if image is not None and image.ndim > 2 and frame != self._control.frame:
            dims.set_point(dims.ndim - 3, image.data_to_world((frame, *[0] * (image.ndim - 1)))[0])

    def next_weak(self) -> None:
        """Show the next frame that needs a look; after the end of the loop it goes on at the beginning."""
        self._go_to_weak(1)

    def previous_weak(self) -> None:
        """Show the frame before this one that needs a look, around the beginning of the loop."""
        self._go_to_weak(-1)

    def _go_to_weak(self, step: int) -> None:
        control, work = self._control, self._control.work_or_word()
        if work is None:
            return
        settled = self.settled
        frame = work.confidence.next_weak(control.frame, step, settled)
        if frame is None:
            control.say("No frame needs a look" if work.confidence.known_frames() else "Nothing was segmented yet")
            return
        is_only = frame == control.frame
        self.go_to(frame)
        object_id = work.confidence.weak_objects(frame, settled)[0]
        name = control.objects.names.get(object_id, default_name(object_id))
        words = f"Frame {frame}, {name}: {work.confidence.at(object_id, frame).words}"
        control.say(f"{words}. No other frame needs a look." if is_only else words)
