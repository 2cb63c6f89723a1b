"""What is kept of frames that were seen: mask logits and memory features, made again from stored masks if dropped."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_uniultra.core.types import Cine
from napari_uniultra.model.inference import FrameEmbedding
from napari_uniultra.segment.cache import ByteLimitedCache
from napari_uniultra.segment.memory import FrameMemory
from napari_uniultra.segment.predictor import MASK_LOGIT, Predictor
from napari_uniultra.segment.results import Result
from napari_uniultra.segment.state import Key, SessionState
from napari_uniultra.segment.view import View, memory_view, whole_view

_GIVEN, _FOUND = "given", "found"  # the two memories that a frame may have of an object


class Memories:
    """The memories of one loop's objects, at the input sizes that they are needed at.

    Parameters
    ----------
    cine : Cine
    max_bytes : int
    embed : callable
        A frame's embedding in a view.
    predictor : callable
        The predictor for an input size; asked with None, for the model's own size.
    """

    def __init__(
        self,
        cine: Cine,
        max_bytes: int,
        embed: Callable[[int, View], FrameEmbedding],
        predictor: Callable[[int | None], Predictor],
    ) -> None:
        self._cine, self._embed, self._predictor = cine, embed, predictor
        self.kept: ByteLimitedCache[FrameMemory] = ByteLimitedCache(max_bytes)

    def put_given(self, key: Key, result: Result, logits: Tensor) -> None:
        """Keep a prompt's answer. Its memory is encoded when another frame first attends to it."""
        self._put(key, FrameMemory(None, logits, result), self.view_of(result), given=True)

    def put_found(self, key: Key, result: Result, logits: Tensor, features: Tensor) -> None:
        """Keep what tracking found."""
        self._put(key, FrameMemory(features, logits, result), self.view_of(result), given=False)

    @property
    def whole(self) -> View:
        """All of a frame at the model's own input size."""
        return whole_view(self._cine.shape_hw, self._predictor(None).image_size)

    def view_of(self, result: Result) -> View:
        """The view in which a result was found."""
        return result.view or self.whole

    def logits(self, state: SessionState, key: Key) -> Tensor:
        """Mask logits (1, 1, 4s, 4s) of the result that counts, in its own view."""
        result = state.result(key)
        return self.logits_of(key, result, given=state.is_conditioning(key))

    def logits_of(self, key: Key, result: Result, *, given: bool) -> Tensor:
        """Mask logits of a result in its own view; +-10 where the original ones were dropped."""
        return self._kept_or_made(key, result, self.view_of(result), given=given).logits

    def original(self, key: Key, result: Result) -> Tensor | None:
        """The very logits that a prompt gave, in its result's own view, unless they were dropped."""
        kept = self._kept(key, result, self.view_of(result), given=True)
        return None if kept is None else kept.logits

    def features(self, state: SessionState, key: Key, like: View) -> Tensor:
        """Memory features (1, 64, m, m) of the result that counts, for a frame that is seen through the view ``like``.

        What was given, by a prompt or by accepting it, is remembered as certain; what tracking found is not.
        """
        result, given = state.result(key), state.is_conditioning(key)
        kept = self._kept(key, result, like, given=given)
        if kept is not None and kept.features is not None:
            return kept.features
        view = self._remembered_view(result, like)
        logits = self._kept_or_made(key, result, view, given=given).logits
        predictor = self._predictor(view.size)
        score = torch.tensor([[result.object_score]], device=predictor.model.device)
        features = predictor.remember(self._embed(key[1], view), logits, score, prompted=given)
        self._put(key, FrameMemory(features, logits, result), view, given=given)
        return features

    def _remembered_view(self, result: Result, like: View) -> View:
        own = self.view_of(result)
        if self._kind(own) == self._kind(like):
            return own
        return like if like == self.whole else memory_view(result.mask.unpack(), like.size, like)

    def _kind(self, view: View) -> tuple[int, bool]:
        """What two views must share for a memory from one to serve in the other: the input size, and how it is used."""
        return view.size, view == self.whole

    def _put(self, key: Key, memory: FrameMemory, view: View, *, given: bool) -> None:
        self.kept.put((*key, _GIVEN if given else _FOUND, *self._kind(view)), memory)

    def _kept(self, key: Key, result: Result, view: View, *, given: bool) -> FrameMemory | None:
        """The memory kept of a result for views of a kind, unless it was dropped or made from another result."""
        kept = self.kept.get((*key, _GIVEN if given else _FOUND, *self._kind(view)))
        return kept if kept is not None and kept.source is result else None

    def _kept_or_made(self, key: Key, result: Result, view: View, *, given: bool) -> FrameMemory:
        """The memory kept of a result at a view's size, or one without features that is made from the stored mask."""
        kept = self._kept(key, result, view, given=given)
        return kept or FrameMemory(None, self._logits_of_mask(result, view), result)

    def _logits_of_mask(self, result: Result, view: View) -> Tensor:
        mask = torch.from_numpy(view.cut(result.mask.unpack()))[None, None].to(self._predictor(None).model.device)
        logits = mask.float() * (2 * MASK_LOGIT) - MASK_LOGIT
        return F.interpolate(logits, (view.size // 4,) * 2, mode="bilinear", align_corners=False, antialias=True)
