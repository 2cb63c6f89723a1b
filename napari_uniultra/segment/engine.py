"""Computes results for a session's state: the loop, the model, and the caches between them.

It holds nothing that cannot be computed again. What the user made comes in as a `SessionState` and is only read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import center_of_mass
from torch import Tensor

from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.model.config import Curve
from napari_uniultra.model.inference import FrameEmbedding
from napari_uniultra.model.preprocess import masks_at
from napari_uniultra.model.prior import mask_prior, moved
from napari_uniultra.segment.cache import ByteLimitedCache
from napari_uniultra.segment.heap import trim_heap
from napari_uniultra.segment.memory import FrameMemory, MemoryLimits, MemoryPlan, plan_memory
from napari_uniultra.segment.motion import MotionSearch, Seen
from napari_uniultra.segment.predictor import MASK_LOGIT, Prediction, Predictor
from napari_uniultra.segment.results import PackedMask, Result, expected_iou
from napari_uniultra.segment.state import Key, SessionState

_MAX_BATCH = 8  # objects computed together; more would only need more memory
_TRIM_EVERY = 16  # tracked frames; it takes a few milliseconds
_GIVEN, _FOUND = "given", "found"  # the two memories that a frame may have of an object


class Engine:
    """Answers prompts and tracks objects, frame by frame.

    Parameters
    ----------
    cine : Cine
    model : Model or None
    cache_bytes, memory_bytes : int
        Limits of the kept embeddings and memories.
    limits : MemoryLimits
    """

    def __init__(self, cine: Cine, model: Any, cache_bytes: int, memory_bytes: int, limits: MemoryLimits) -> None:
        self.cine = cine
        self.limits = limits
        self.embeddings: ByteLimitedCache[FrameEmbedding] = ByteLimitedCache(cache_bytes)
        self.memories: ByteLimitedCache[FrameMemory] = ByteLimitedCache(memory_bytes)
        self.motion = MotionSearch(cine)
        self.model = model
        self._tracked = 0

    @property
    def model(self) -> Any:
        """The loaded model, or None before there is one. Setting another one drops what the earlier one computed."""
        return self._model

    @model.setter
    def model(self, model: Any) -> None:
        self._model = model
        self.predictor = None if model is None else Predictor(model)  # results can be looked at without one
        self.embeddings.clear()
        self.memories.clear()

    def free_memory(self) -> None:
        """Drop what is kept for speed alone. Memories stay: encoded again they would differ a little."""
        self.embeddings.clear()

    def embed(self, frame: int) -> FrameEmbedding:
        """A frame's embedding, from the cache if it is there."""
        return self.embeddings.get_or(frame, lambda: self.predictor.embed(self.cine.frame(frame)))

    def answer(self, state: SessionState, key: Key, prompt: Prompt) -> Result:
        """The result of a prompt for an object on a frame."""
        prediction = self._predict(state, key, prompt)
        tracked = state.tracked.get(key)
        mask = PackedMask.pack(prompt.mask) if prompt.mask_only else None
        reverse, curve = tracked is not None and tracked.reverse, self.model.config.prompted_iou
        result = self._result(prediction, curve, reverse=reverse, mask=mask)
        # Its memory is encoded when another frame first attends to it, not while the user waits.
        self.memories.put((*key, _GIVEN), FrameMemory(None, prediction.logits, result))
        return result

    def track(self, state: SessionState, frame: int, ids: Sequence[int], reverse: bool) -> dict[Key, Result]:
        """Results on a frame of those objects that may change there."""
        todo = [object_id for object_id in ids if state.may_be_tracked((object_id, frame))]
        if not todo:
            return {}
        embedding = self.embed(frame)
        found = {}
        for batch, plans in self._batches(state, todo, frame, reverse):
            features = self._attend(state, embedding, batch, plans)
            before, jumped = self._before(state, batch, frame + (1 if reverse else -1), frame)
            prediction = self.predictor.track(embedding, features, before, jumped)
            memories = self.predictor.remember(embedding, prediction.logits, prediction.object_score, prompted=False)
            for index, object_id in enumerate(batch):
                key, own = (object_id, frame), prediction[index]
                found[key] = result = self._result(own, self.model.config.tracked_iou, reverse=reverse)
                self.memories.put((*key, _FOUND), FrameMemory(memories[index : index + 1], own.logits, result))
        self._tracked += 1
        if self._tracked % _TRIM_EVERY == 0:
            trim_heap()
        return found

    def logits(self, state: SessionState, key: Key) -> Tensor:
        """Mask logits (4s, 4s) of a result that counts; +-10 where the original ones were dropped."""
        given = state.is_conditioning(key)
        return self._kept(key, state.result(key), given=given).logits[0, 0]

    def _predict(self, state: SessionState, key: Key, prompt: Prompt) -> Prediction:
        object_id, frame = key
        embedding = self.embed(frame)
        given = None if prompt.mask is None else self.predictor.accept_mask(embedding, prompt.mask)
        if prompt.mask_only:
            return given
        tracked = state.tracked.get(key)
        if tracked is None or not state.conditioning_frames(object_id) - {frame}:
            features, earlier = self.predictor.unconditioned(embedding), None
        else:
            features = self._attend(state, embedding, [object_id], [self._plan(state, key, tracked.reverse)])
            earlier = self._kept(key, tracked, given=False).logits
        if given is not None:
            earlier = given.logits
        return self.predictor.predict(embedding, features, prompt, self.cine.shape_hw, earlier)

    def _batches(
        self, state: SessionState, ids: Sequence[int], frame: int, reverse: bool
    ) -> Iterator[tuple[list[int], list[MemoryPlan]]]:
        """Objects that remember frames in the same layout, together."""
        groups: dict[Any, list[tuple[int, MemoryPlan]]] = defaultdict(list)
        for object_id in ids:
            plan = self._plan(state, (object_id, frame), reverse)
            has_before = state.result((object_id, frame + (1 if reverse else -1))) is not None
            groups[plan.layout, has_before].append((object_id, plan))
        for group in groups.values():
            for first in range(0, len(group), _MAX_BATCH):
                batch = group[first : first + _MAX_BATCH]
                yield [object_id for object_id, _ in batch], [plan for _, plan in batch]

    def _before(
        self, state: SessionState, ids: Sequence[int], frame: int, towards: int
    ) -> tuple[Tensor | None, tuple[bool, ...]]:
        """Logits of all the objects on the frame before, for models that are given them, and which objects jumped.

        With a motion prior, what jumped is moved to where it is on the frame at hand, ``towards``.
        """
        keys = [(object_id, frame) for object_id in ids]
        stays = (False,) * len(keys)
        if not self.model.config.mask_prior or any(state.result(key) is None for key in keys):
            return None, stays
        if not self.model.config.motion_prior:
            return torch.cat([self._shown(state, key) for key in keys]), stays
        carried, jumped = zip(*(self._carried(state, key, towards) for key in keys), strict=True)
        return torch.cat(carried), jumped

    def _shown(self, state: SessionState, key: Key) -> Tensor:
        """The logits (1, 1, 4s, 4s) of the result that counts."""
        return self._kept(key, state.result(key), given=state.is_conditioning(key)).logits

    def _carried(self, state: SessionState, key: Key, towards: int) -> tuple[Tensor, bool]:
        """An object's logits, moved if the image says that it jumped on its way to the frame ``towards``.

        What jumped is mixed with the nearest frame that was given, put at the same place: where the two differ, the
        network decides. What moves gently is left to the network alone, which sees it change its shape.
        """
        object_id, frame = key = _last_seen(state, key, towards)
        own, mask = self._shown(state, key), state.result(key).mask.unpack()
        given = min(state.conditioning_frames(object_id), key=lambda other: abs(other - towards), default=frame)
        seen, known = [Seen(frame, mask)], state.result((object_id, given)).mask.unpack()
        is_anchored = given != frame and known.any()
        if is_anchored:
            seen.append(Seen(given, known))
        shift = np.array(self.motion.displacement(seen, towards)) if mask.any() else np.zeros(2)
        if not shift.any():
            return own, False
        carried = mask_prior(moved(own, *(shift / self.cine.shape_hw)))
        if is_anchored:
            shift += np.subtract(*(center_of_mass(each) for each in (mask, known)))
            anchor = mask_prior(self._shown(state, (object_id, given)))
            carried = (carried + moved(anchor, *(shift / self.cine.shape_hw))) / 2
        return carried, True

    def _plan(self, state: SessionState, key: Key, reverse: bool) -> MemoryPlan:
        object_id, frame = key
        return plan_memory(
            frame,
            state.conditioning_frames(object_id) - {frame},
            state.tracked_frames(object_id) - {frame},
            reverse=reverse,
            signed=self.predictor.signed_pointers,
            num_frames=len(self.cine),
            limits=self.limits,
        )

    def _attend(
        self, state: SessionState, embedding: FrameEmbedding, ids: Sequence[int], plans: Sequence[MemoryPlan]
    ) -> Tensor:
        spatial, pointers = [], []
        for object_id, plan in zip(ids, plans, strict=True):
            spatial.append([self._features(state, (object_id, frame)) for _, frame in plan.spatial])
            pointers.append([self._pointer(state.result((object_id, frame))) for _, frame in plan.pointers])
        return self.predictor.attend(embedding, plans[0], spatial, pointers, len(self.cine))

    def _features(self, state: SessionState, key: Key) -> Tensor:
        """Memory features, encoded anew if they were dropped or made from another result.

        What was given, by a prompt or by accepting it, is remembered as certain; what tracking found is not.
        """
        result, given = state.result(key), state.is_conditioning(key)
        memory = self._kept(key, result, given=given)
        if memory.features is None:
            score = torch.tensor([[result.object_score]], device=self.model.device)
            features = self.predictor.remember(self.embed(key[1]), memory.logits, score, prompted=given)
            memory = self.memories.put(
                (*key, _GIVEN if given else _FOUND), FrameMemory(features, memory.logits, result)
            )
        return memory.features

    def _kept(self, key: Key, result: Result, *, given: bool) -> FrameMemory:
        """The memory kept of a result, or one without features that is made from the stored mask."""
        kept = self.memories.get((*key, _GIVEN if given else _FOUND))
        if kept is not None and kept.source is result:
            return kept
        side = self.model.config.image_size // 4
        mask = torch.from_numpy(result.mask.unpack())[None, None].to(self.model.device)
        logits = mask.float() * (2 * MASK_LOGIT) - MASK_LOGIT
        logits = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return FrameMemory(None, logits, result)

    def _pointer(self, result: Result) -> Tensor:
        return torch.from_numpy(result.pointer)[None].to(self.model.device)

    def _result(
        self, prediction: Prediction, iou_curve: Curve, *, reverse: bool, mask: PackedMask | None = None
    ) -> Result:
        if mask is None:
            inside = masks_at(prediction.logits, self.cine.shape_hw)[0] > 0
            mask = PackedMask.pack(inside.cpu().numpy())
        return Result(
            mask=mask,
            predicted_iou=expected_iou(float(prediction.predicted_iou[0]), iou_curve),
            object_score=float(prediction.object_score[0, 0]),
            pointer=prediction.pointer[0].float().cpu().numpy(),
            reverse=reverse,
        )


def _last_seen(state: SessionState, key: Key, towards: int) -> Key:
    """The last frame before ``towards``, from ``key`` backwards, on which an object was there; else ``key`` itself."""
    object_id, frame = key
    step = frame - towards
    while (result := state.result((object_id, frame))) is not None:
        if all(result.mask.size):
            return object_id, frame
        frame += step
    return key
