"""How sure the model is of each object on each frame, as numbers, in words, and as a list of frames to look at."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from napari_uniultra.core.types import WEAK_IOU
from napari_uniultra.plugin.layers import Key

_GOOD_IOU = 0.85  # a Dice of 0.92


class Score(NamedTuple):
    """What the model thinks of its own mask.

    Attributes
    ----------
    predicted_iou : float
        The IoU to expect of the mask, 0 to 1; NaN for a mask that no model judged, such as one that was filled in.
    object_score : float
        Logit; below 0 the model believes that the object is not in the frame.
    """

    predicted_iou: float
    object_score: float

    @property
    def is_weak(self) -> bool:
        """Whether somebody should look at the frame."""
        return self.object_score < 0 or self.predicted_iou < WEAK_IOU

    @property
    def words(self) -> str:
        """Such as "Predicted IoU 0.91 (good), in the picture (object score 6.2)"."""
        if math.isnan(self.predicted_iou):
            return "Filled in, no predicted IoU"
        quality = "good" if self.predicted_iou >= _GOOD_IOU else "fair" if self.predicted_iou >= WEAK_IOU else "weak"
        seen = "in the picture" if self.object_score >= 0 else "not seen in the picture"
        return f"Predicted IoU {self.predicted_iou:.2f} ({quality}), {seen} (object score {self.object_score:.1f})"


class Confidence:
    """The scores of all objects of a loop.

    Parameters
    ----------
    num_frames : int
    """

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self._scores: dict[int, np.ndarray] = {}  # object id to (T, 2): predicted IoU, object score; NaN where unknown

    def update(self, scores: Mapping[int, Mapping[int, Score]], everything: bool = False) -> frozenset[int]:
        """Take over the scores by object of some frames; with ``everything`` all other frames become empty.

        Returns
        -------
        frozenset of int
            The frames that may look different now.
        """
        emptied = self.known_frames() - set(scores) if everything else frozenset()
        for frame in (*emptied, *scores):
            for values in self._scores.values():
                values[frame] = np.nan
        for frame, by_object in scores.items():
            for object_id, score in by_object.items():
                self._values(object_id)[frame] = score
        return frozenset(emptied | scores.keys())

    def _values(self, object_id: int) -> np.ndarray:
        if object_id not in self._scores:
            self._scores[object_id] = np.full((self.num_frames, 2), np.nan, np.float32)
        return self._scores[object_id]

    def at(self, object_id: int, frame: int) -> Score | None:
        """The score of an object on a frame, or None where nothing is known."""
        values = self._scores.get(object_id)
        if values is None or np.isnan(values[frame, 1]):
            return None
        return Score(*values[frame].tolist())

    def predicted_iou(self, object_id: int) -> np.ndarray:
        """Predicted IoU of an object over the loop, (T,) float32; NaN where no model judged. Not to be changed."""
        return self._values(object_id)[:, 0]

    def object_score(self, object_id: int) -> np.ndarray:
        """Object score of an object over the loop, (T,) float32; NaN where nothing is known. Not to be changed."""
        return self._values(object_id)[:, 1]

    def known_frames(self, objects: Iterable[int] | None = None) -> frozenset[int]:
        """Frames on which all of ``objects`` are known; without it, those on which any object is."""
        ids, join = (self._scores, np.logical_or) if objects is None else (objects, np.logical_and)
        known = [~np.isnan(self.object_score(object_id)) for object_id in ids]
        found = join.reduce(known) if known else np.zeros(0, bool)
        return frozenset(np.flatnonzero(found).tolist())

    def weak_objects(self, frame: int, settled: Collection[Key] = ()) -> list[int]:
        """The objects that are weak on a frame, but for those that the user has settled there."""
        found = ((object_id, self.at(object_id, frame)) for object_id in sorted(self._scores))
        return [o for o, score in found if score is not None and score.is_weak and (o, frame) not in settled]

    def weak_frames(self, settled: Collection[Key] = ()) -> list[int]:
        """Frames to look at, in order, but for objects that the user has settled there by accepting or painting."""
        weak = np.zeros(self.num_frames, bool)
        for values in self._scores.values():
            with np.errstate(invalid="ignore"):  # NaN is never weak
                weak |= (values[:, 0] < WEAK_IOU) | (values[:, 1] < 0)
        return [frame for frame in np.flatnonzero(weak).tolist() if self.weak_objects(frame, settled)]

    def next_weak(self, frame: int, step: int, settled: Collection[Key] = ()) -> int | None:
        """The weak frame after (``step`` 1) or before (-1) a frame, around the end of the loop; None without any."""
        weak = self.weak_frames(settled)
        return min(weak, key=lambda own: ((own - frame) * step - 1) % self.num_frames, default=None)
