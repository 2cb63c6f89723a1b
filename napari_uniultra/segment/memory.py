"""What a frame remembers: which other frames it attends to, and what is kept of them.

Memories are a cache over results and never state: one that was dropped for space is encoded again from the stored
mask. So memory stays bounded for any length of loop, and undo, redo and restoring a session need nothing from it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class FrameMemory:
    """One object's memory of one frame.

    Attributes
    ----------
    features : Tensor, optional
        (1, 64, m, m) bfloat16, as SAM2's predictor stores them; m is s over the model's pooling of memories. None
        until another frame first attends to them.
    logits : Tensor
        (1, 1, 4s, 4s) float32 mask logits, the starting point of a correction.
    source : object
        The result that this was made from; the memory is stale when another one has taken its place.
    """

    features: Tensor | None
    logits: Tensor
    source: object

    @property
    def nbytes(self) -> int:
        tensors = (self.logits,) if self.features is None else (self.logits, self.features)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


MOST_FRAMES = 7  # SAM2 has codes for no more


class MemoryLimits(NamedTuple):
    """How much a frame attends to.

    Attributes
    ----------
    frames : int
        Spatial memories besides the conditioning ones, plus one; at most `MOST_FRAMES`, as in SAM2.
    pointers : int
        Object pointers of recent frames, plus one (SAM2: 16).
    conditioning : int
        Conditioning frames, the closest in time; the official predictor takes all, which a loop with many accepted
        frames could not afford.
    """

    frames: int = MOST_FRAMES
    pointers: int = 16
    conditioning: int = 8


@dataclass(frozen=True)
class MemoryPlan:
    """Which frames to attend to from one frame.

    Attributes
    ----------
    spatial : tuple of (int, int)
        (distance in frames, frame), the farthest first; 0 for conditioning frames, which come before all others.
    pointers : tuple of (int, int)
        (distance in frames, frame) of the object pointers; positive in the past of the direction of travel.
    """

    spatial: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, int], ...]

    @property
    def layout(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What two objects must share to be computed in one batch."""
        return tuple(distance for distance, _ in self.spatial), tuple(distance for distance, _ in self.pointers)


def plan_memory(
    frame: int,
    conditioning: Collection[int],
    tracked: Collection[int],
    *,
    reverse: bool,
    signed: bool,
    num_frames: int,
    limits: MemoryLimits = MemoryLimits(),  # noqa: B008 - immutable
) -> MemoryPlan:
    """Choose the frames that ``frame`` attends to, as SAM2's ``_prepare_memory_conditioned_features`` does.

    Parameters
    ----------
    frame : int
        The frame about to be segmented.
    conditioning, tracked : collection of int
        Frames of this object with prompts or accepted masks, and frames it was propagated to.
    reverse : bool
        Going backwards in time.
    signed : bool
        Whether pointer distances carry a sign (SAM2 2.1) or not (2.0).
    num_frames : int
        Frames of the loop.
    limits : MemoryLimits
    """
    step = -1 if reverse else 1
    selected = closest_frames(frame, conditioning, limits.conditioning)
    recent = set(tracked) | (set(conditioning) - set(selected))

    spatial = [(0, other) for other in selected]
    for distance in range(limits.frames - 1, 0, -1):
        other = frame - step * distance
        if other in recent:
            spatial.append((distance, other))

    pointers = []
    for other in selected:
        distance = (frame - other) * step
        if distance >= 0:
            pointers.append((distance if signed else abs(distance), other))
    for distance in range(1, min(num_frames, limits.pointers)):
        other = frame - step * distance
        if not 0 <= other < num_frames:
            break
        if other in recent:
            pointers.append((distance, other))
    return MemoryPlan(tuple(spatial), tuple(pointers))


def closest_frames(frame: int, candidates: Collection[int], limit: int) -> list[int]:
    """At most ``limit`` of the candidates, in time order: the nearest on each side first, then the nearest of all."""
    if len(candidates) <= limit:
        return sorted(candidates)
    before = max((t for t in candidates if t < frame), default=None)
    after = min((t for t in candidates if t >= frame), default=None)
    chosen = [t for t in (before, after) if t is not None]
    rest = sorted((t for t in candidates if t not in chosen), key=lambda t: (abs(t - frame), t))
    return sorted(chosen + rest[: limit - len(chosen)])
