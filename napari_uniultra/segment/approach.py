"""How a frame is approached when an object is tracked to it: where to look, and what to expect there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_uniultra.core.postprocess import largest_piece
from napari_uniultra.core.types import Box, Cine
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.prior import PRIOR_LOGIT, mask_prior
from napari_uniultra.segment.memories import Memories
from napari_uniultra.segment.motion import MotionSearch, Seen
from napari_uniultra.segment.reframe import seen_from
from napari_uniultra.segment.results import Result
from napari_uniultra.segment.state import Key, SessionState
from napari_uniultra.segment.view import MARGIN, View, close_view

_UNSURE, _WIDER = 0.5, 1.6  # a mask of lower predicted IoU is followed with so much more around it
_LOOK_BACK = 8  # frames, from an unsure one, to one that is sure


class Approach(NamedTuple):
    """What is known of an object before a frame is looked at.

    Attributes
    ----------
    view : View
        Where to look.
    before : Tensor or None
        Its logits (1, 1, 4s, 4s) on the frame before, as that view shows them; for models that are given them.
    jumped : bool
        Whether they were moved to where the image says that it is now.
    """

    view: View
    before: Tensor | None
    jumped: bool


class Approaches:
    """Finds the approach to each frame.

    Parameters
    ----------
    cine : Cine
    memories : Memories
    """

    def __init__(self, cine: Cine, memories: Memories) -> None:
        self._memories = memories
        self._motion = MotionSearch(cine)

    def to(self, state: SessionState, key: Key, reverse: bool, config: ModelConfig, zoom: bool) -> Approach:
        """The approach to (object id, frame) for a model; with ``zoom``, closely where that shows more."""
        object_id, frame = key
        before = object_id, frame + (1 if reverse else -1)
        if state.result(before) is None or not (config.mask_prior or zoom):
            return Approach(self._memories.whole, None, False)
        before = last_seen(state, before, frame)
        seen, anchor = self._seen(state, before, frame)
        shift = np.zeros(2)
        if config.mask_prior and config.motion_prior and seen.mask:
            shift = np.array(self._motion.displacement([seen, *anchor], frame))
        view = self._memories.whole
        if zoom and state.result(before).object_score > 0:
            view = self._close(state, before, seen.mask.box, shift, config.image_size)
        if not config.mask_prior:
            return Approach(view, None, False)
        carried = self._carried(state, before, view, shift)
        if not shift.any() or not anchor:
            return Approach(view, carried, bool(shift.any()))
        # What jumped is mixed with the nearest frame that was given, put at the same place: where the two differ, the
        # network decides. What moves gently is left to the network alone, which sees it change its shape.
        given = object_id, anchor[0].frame
        shift = shift + np.subtract(*(own.mask.centre for own in (seen, *anchor)))
        mixed = (mask_prior(carried) + mask_prior(self._carried(state, given, view, shift))) / 2
        return Approach(view, mixed, True)

    def _seen(self, state: SessionState, before: Key, frame: int) -> tuple[Seen, list[Seen]]:
        """The object where it was seen last, and on the nearest frame that was given if that is another one."""
        object_id, last = before
        seen = Seen(last, state.result(before).mask.main_piece())  # crumbs would widen its view
        given = min(state.conditioning_frames(object_id), key=lambda other: abs(other - frame), default=last)
        known = state.result((object_id, given)).mask
        return seen, [Seen(given, known)] if given != last and known else []

    def _close(self, state: SessionState, before: Key, box: Box | None, shift: np.ndarray, image_size: int) -> View:
        result, whole = state.result(before), self._memories.whole
        if box is None:
            return whole
        margin = MARGIN if _is_sure(result) else _WIDER * MARGIN
        view = close_view(box, whole.shape_hw, image_size, margin=margin, shift=shift.tolist(), before=result.view)
        return view or whole

    def _carried(self, state: SessionState, key: Key, view: View, shift: np.ndarray) -> Tensor:
        own = self._memories.view_of(state.result(key))
        return seen_from(without_crumbs(self._memories.logits(state, key)), own, view, shift.tolist())


def without_crumbs(logits: Tensor) -> Tensor:
    """Logits (1, 1, h, w) with the largest piece alone: a crumb would be carried on from frame to frame."""
    inside = (logits[0, 0] > 0).cpu().numpy()
    crumbs = inside & ~largest_piece(inside)
    if not crumbs.any():
        return logits
    return logits.masked_fill(torch.from_numpy(crumbs).to(logits.device), -PRIOR_LOGIT)


def last_seen(state: SessionState, key: Key, towards: int) -> Key:
    """The last frame before ``towards``, from ``key`` backwards, on which an object was there; else ``key`` itself.

    A few frames further back are taken instead if the model was sure of them alone: what it is unsure of may be lost.
    """
    object_id, frame = key
    step, last = frame - towards, None
    while (result := state.result((object_id, frame))) is not None:
        own = object_id, frame
        if result.mask and (_is_sure(result) or state.is_conditioning(own)):
            return own
        last = last or (own if result.mask else None)
        if last is not None and abs(frame - last[1]) >= _LOOK_BACK:
            break
        frame += step
    return last or key


def _is_sure(result: Result) -> bool:
    return result.predicted_iou is None or result.predicted_iou >= _UNSURE
