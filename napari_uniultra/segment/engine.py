"""Computes results for a session's state: the loop, the model, and the caches between them.

It holds nothing that cannot be computed again. What the user made comes in as a `SessionState` and is only read.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from napari_uniultra.core.postprocess import largest_piece
from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Box, Cine, Prompt
from napari_uniultra.errors import ReadError
from napari_uniultra.model.inference import FrameEmbedding
from napari_uniultra.model.preprocess import masks_at
from napari_uniultra.segment.approach import Approach, Approaches
from napari_uniultra.segment.cache import ByteLimitedCache
from napari_uniultra.segment.heap import trim_heap
from napari_uniultra.segment.incoming import Incoming
from napari_uniultra.segment.memories import Memories
from napari_uniultra.segment.memory import MOST_FRAMES, MemoryLimits, MemoryPlan, plan_memory
from napari_uniultra.segment.predictor import Prediction, Predictor
from napari_uniultra.segment.reframe import seen_from
from napari_uniultra.segment.results import Result
from napari_uniultra.segment.state import Key, SessionState
from napari_uniultra.segment.view import CLICK_MARGIN, MARGIN, View, close_view

_MAX_BATCH = 8  # objects computed together; more would only need more memory
_TRIM_EVERY = 16  # tracked frames; it takes a few milliseconds
# Frames on each side that are embedded ahead, their share of the embeddings that are kept, and how long one may take.
_REACH_AHEAD, _ROOM_AHEAD, _LONG_AHEAD_S = 4, 0.5, 0.25


class _Target(NamedTuple):
    """An object about to be found on a frame."""

    object_id: int
    plan: MemoryPlan
    approach: Approach


class _Begun(NamedTuple):
    """Objects whose results are on their way."""

    batch: Sequence[_Target]
    view: View
    prediction: Prediction
    memories: Tensor
    incoming: Incoming


class Engine:
    """Answers prompts and tracks objects, frame by frame.

    Parameters
    ----------
    cine : Cine
    model : Model or None
    cache_bytes, memory_bytes : int
        Limits of the kept embeddings and memories.
    limits : MemoryLimits

    Attributes
    ----------
    zoom : bool or None
        Track structures in close views that follow them; None does so with models that were trained on close views.
    overlaps : bool
        The device works by itself while Python waits, as CUDA's do: it embeds the next frame before results arrive.
    """

    def __init__(self, cine: Cine, model: Any, cache_bytes: int, memory_bytes: int, limits: MemoryLimits) -> None:
        if not 1 <= limits.frames <= MOST_FRAMES:
            raise ValueError(f"a frame can attend to 1 to {MOST_FRAMES} others, not to {limits.frames}")
        self.cine = cine
        self.limits = limits
        self.zoom: bool | None = None
        self.embeddings: ByteLimitedCache[FrameEmbedding] = ByteLimitedCache(cache_bytes)
        self.memories = Memories(cine, memory_bytes, self.embed, self._predictor_at)
        self._approaches = Approaches(cine, self.memories)
        self._predictors: dict[int, Predictor] = {}
        self.model = model
        self._tracked = 0

    @property
    def model(self) -> Any:
        """The loaded model, or None before there is one. Setting another one drops what the earlier one computed."""
        return self._model

    @model.setter
    def model(self, model: Any) -> None:
        self._model = model
        self.overlaps = model is not None and model.device.type == "cuda"
        self.predictor = None if model is None else Predictor(model)  # results can be looked at without one
        self._predictors = {} if model is None else {model.config.image_size: self.predictor}
        self.embeddings.clear()
        self.memories.kept.clear()

    def _predictor_at(self, size: int | None) -> Predictor:
        """The predictor for an input size, with the same weights; that for the model's own size without one."""
        size = size or self.model.config.image_size
        if size not in self._predictors:
            self._predictors[size] = Predictor(self.model.at(size))
        return self._predictors[size]

    def free_memory(self) -> None:
        """Drop what is kept for speed alone. Memories stay: encoded again they would differ a little."""
        self.embeddings.clear()

    def embed(self, frame: int, view: View | None = None) -> FrameEmbedding:
        """The embedding of a frame, or of a part of it, from the cache if it is there."""
        view = view or self.memories.whole
        predictor = self._predictor_at(view.size)
        return self.embeddings.get_or((frame, view), lambda: predictor.embed(view.cut(self.cine.frame(frame))))

    def embed_around(self, frame: int) -> Iterator[int]:
        """Embed a frame and those around it ahead of their use, the nearest first; each step gives the number of one.

        It ends when as many are kept as have room beside others, and after one that took so long that a prompt would
        have to wait for the next one. Errors are those of the loop's frames and the device.
        """
        room = self.embeddings.max_bytes * _ROOM_AHEAD
        for other in _frames_around(frame, _REACH_AHEAD):
            if not 0 <= other < len(self.cine):
                continue
            start = time.monotonic()
            room -= self.embed(other).nbytes
            took = time.monotonic() - start
            yield other
            if room <= 0 or took > _LONG_AHEAD_S:
                return

    def answer(self, state: SessionState, key: Key, prompt: Prompt) -> Result:
        """The result of a prompt for an object on a frame."""
        prediction, view, asked = self._predict(state, key, prompt)
        tracked = state.tracked.get(key)
        incoming = Incoming(prediction, view, self.model, prompt.mask if prompt.mask_only else None)
        reverse, curve = tracked is not None and tracked.reverse, self.model.config.prompted_iou
        result = incoming.result(0, self.memories.whole, curve, reverse=reverse, asked=asked)
        self.memories.put_given(key, result, prediction.logits)
        return result

    def track(
        self, state: SessionState, frame: int, ids: Sequence[int], reverse: bool, following: int | None = None
    ) -> dict[Key, Result]:
        """Results on a frame of those objects that may change there; ``following`` is the frame that will be next."""
        seen = state.seen_objects()  # an object's last mark may have been removed meanwhile
        todo = [object_id for object_id in ids if object_id in seen and state.may_be_tracked((object_id, frame))]
        begun = [self._begin(state, frame, batch, reverse) for batch in self._batches(state, todo, frame, reverse)]
        if self.overlaps and following is not None:
            self._embed_meanwhile(following, begun)
        found: dict[Key, Result] = {}
        for each in begun:
            found |= self._finish(frame, each, reverse)
        self._tracked += 1
        if self._tracked % _TRIM_EVERY == 0:
            trim_heap()
        return found

    def logits(self, state: SessionState, key: Key) -> Tensor:
        """Mask logits (4s, 4s) of a result that counts; +-10 where the original ones were dropped."""
        own = self.memories.view_of(state.result(key))
        return seen_from(self.memories.logits(state, key), own, self.memories.whole)[0, 0]

    def _begin(self, state: SessionState, frame: int, batch: Sequence[_Target], reverse: bool) -> _Begun:
        """Compute objects that remember frames in the same layout, and are looked at in the same way."""
        view = batch[0].approach.view
        predictor, embedding = self._predictor_at(view.size), self.embed(frame, view)
        features = self._attend(state, embedding, view, batch)
        known = [target.approach.before for target in batch]
        before = None if known[0] is None else torch.cat(known)
        prediction = predictor.track(embedding, features, before, jumped=batch[0].approach.jumped)
        incoming = Incoming(prediction, view, self.model)
        memories = predictor.remember(embedding, prediction.logits, prediction.object_score, prompted=False)
        return _Begun(batch, view, prediction, memories, incoming)

    def _embed_meanwhile(self, frame: int, begun: Sequence[_Begun]) -> None:
        """Give the device the next frame while results arrive, if it will be looked at as a whole as this one was."""
        if any(each.view == self.memories.whole for each in begun):
            with suppress(ReadError):  # which is for when its turn comes
                self.embed(frame)

    def _finish(self, frame: int, begun: _Begun, reverse: bool) -> dict[Key, Result]:
        """Wait for results, and keep what they will be remembered by."""
        found, curve = {}, self.model.config.tracked_iou
        for index, target in enumerate(begun.batch):
            key, own = (target.object_id, frame), slice(index, index + 1)
            found[key] = result = begun.incoming.result(index, self.memories.whole, curve, reverse=reverse)
            self.memories.put_found(key, result, begun.prediction.logits[own], begun.memories[own])
        return found

    def _predict(self, state: SessionState, key: Key, prompt: Prompt) -> tuple[Prediction, View, Prompt]:
        """The answer to a prompt, its view, that of the tracked result it corrects or its own, and the prompt there."""
        object_id, frame = key
        whole, tracked = self.memories.whole, state.tracked.get(key)
        is_tracked = tracked is not None and bool(state.conditioning_frames(object_id) - {frame})
        view, asked = whole, prompt
        if is_tracked and prompt.mask is None and tracked.view is not None:
            closely = tracked.view.prompt(prompt)
            view, asked = (whole, prompt) if closely is None else (tracked.view, closely)
        elif not is_tracked and prompt.mask is None and self.model.config.close_views:
            view, asked = self._looked_at(frame, prompt)
        predictor, embedding = self._predictor_at(view.size), self.embed(frame, view)
        given = None if prompt.mask is None else predictor.accept_mask(embedding, prompt.mask)
        if prompt.mask_only:
            return given, view, asked
        done = 0
        if not is_tracked:
            features = predictor.unconditioned(embedding)
            earlier, done = self._replayed(state, key, prompt, view)
        else:
            target = _Target(object_id, self._plan(state, key, tracked.reverse), Approach(view, None, False))
            features = self._attend(state, embedding, view, [target])
            earlier = self.memories.logits_of(key, tracked, given=False)
            earlier = seen_from(earlier, self.memories.view_of(tracked), view)
        if given is not None:
            earlier = given.logits
        return predictor.predict(embedding, features, asked, view.shape_hw, earlier, done), view, asked

    def _looked_at(self, frame: int, prompt: Prompt) -> tuple[View, Prompt]:
        """Where a prompt without memory is answered, and the prompt there: closely, where the model knows how to."""
        whole = self.memories.whole
        box = prompt.box or self._around_clicks(frame, prompt)
        if box is None:
            return whole, prompt
        margin = CLICK_MARGIN if prompt.box is None else MARGIN
        view = close_view(box, whole.shape_hw, whole.size, margin=margin)
        closely = None if view is None else view.prompt(prompt)
        return (whole, prompt) if closely is None else (view, closely)

    def _around_clicks(self, frame: int, prompt: Prompt) -> Box | None:
        """The box around what the first clicks give in the whole frame.

        There a click may mean many things; in a view around one of them, that one mostly is what is meant.
        """
        embedding, whole = self.embed(frame), self.memories.whole
        features = self.predictor.unconditioned(embedding)
        found = self.predictor.predict(embedding, features, prompt.first_round, whole.shape_hw)
        mask = (masks_at(found.logits, whole.shape_hw)[0] > 0).cpu().numpy()
        return box_of_mask(largest_piece(mask))

    def _replayed(self, state: SessionState, key: Key, prompt: Prompt, view: View) -> tuple[Tensor | None, int]:
        """The logits after all rounds of a prompt but the last, and their number, where they were just computed.

        Only for frames that remember nothing: there they depend on the prompt and its view alone.
        """
        before, result = state.prompts.get(key), state.prompted.get(key)
        was_tracked = key in state.tracked  # then the earlier answer may have come from memory
        if before is None or was_tracked or prompt.mask is not None or not prompt.continues(before):
            return None, 0
        if self.memories.view_of(result) != view:
            return None, 0
        logits = self.memories.original(key, result)
        return (None, 0) if logits is None else (logits, len(prompt.rounds) - 1)

    def _batches(
        self, state: SessionState, ids: Sequence[int], frame: int, reverse: bool
    ) -> Iterator[Sequence[_Target]]:
        """Objects that can be computed together."""
        groups: dict[Any, list[_Target]] = defaultdict(list)
        zoom = self.model.config.close_views if self.zoom is None else self.zoom
        for object_id in ids:
            key = object_id, frame
            approach = self._approaches.to(state, key, reverse, self.model.config, zoom)
            target = _Target(object_id, self._plan(state, key, reverse), approach)
            groups[target.plan.layout, approach.view, approach.before is None, approach.jumped].append(target)
        for group in groups.values():
            for first in range(0, len(group), _MAX_BATCH):
                yield group[first : first + _MAX_BATCH]

    def _plan(self, state: SessionState, key: Key, reverse: bool) -> MemoryPlan:
        object_id, frame = key
        reach = max(self.limits.frames, self.limits.pointers)
        near = (other for other in range(frame - reach, frame + reach + 1) if other != frame)
        return plan_memory(
            frame,
            state.conditioning_frames(object_id) - {frame},
            state.tracked_among(object_id, near),
            reverse=reverse,
            signed=self.predictor.signed_pointers,
            num_frames=len(self.cine),
            limits=self.limits,
        )

    def _attend(self, state: SessionState, embedding: FrameEmbedding, view: View, batch: Sequence[_Target]) -> Tensor:
        spatial, pointers = [], []
        for object_id, plan, _ in batch:
            spatial.append([self.memories.features(state, (object_id, frame), view) for _, frame in plan.spatial])
            pointers.append([state.result((object_id, frame)).pointer for _, frame in plan.pointers])
        return self._predictor_at(view.size).attend(embedding, batch[0].plan, spatial, pointers, len(self.cine))


def _frames_around(frame: int, reach: int) -> Iterator[int]:
    yield frame
    for distance in range(1, reach + 1):
        yield from (frame + distance, frame - distance)
