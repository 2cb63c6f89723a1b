"""What to track, as the user asks for it and as frames to visit. Plain data."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from napari_uniultra.core.types import Direction
from napari_uniultra.segment.passes import Pass, after, count_frames


@dataclass(frozen=True)
class TrackRequest:
    """What the user asks for.

    Attributes
    ----------
    direction : {"forward", "backward", "both"}
    frame : int
        The frame that is shown.
    low, high : int
        First and last frame of the range, both included.
    objects : tuple of int or None
        None for all that can be tracked.
    zoom : bool or None
        Whether small structures are looked at closely; None for as the model was trained.
    """

    direction: Direction
    frame: int
    low: int
    high: int
    objects: tuple[int, ...] | None = None
    zoom: bool | None = None

    def concerns(self, object_id: int) -> bool:
        """Whether an object is to be tracked."""
        return self.objects is None or object_id in self.objects

    def ends(self, said: Set[int]) -> tuple[int, int]:
        """First and last frame in the direction of travel, from the frames of which the user ``said`` something."""
        begin, end, sign = (self.low, self.high, 1) if self.direction == "forward" else (self.high, self.low, -1)
        inside = [frame for frame in said if self.low <= frame <= self.high]
        before = [frame for frame in inside if (self.frame - frame) * sign >= 0]
        if before:  # the nearest on the way to the frame that is shown
            begin = max(before, key=lambda frame: frame * sign)
        elif inside and not any((begin - frame) * sign > 0 for frame in said):
            begin = min(inside, key=lambda frame: frame * sign)
        return begin, end


@dataclass(frozen=True)
class TrackPlan:
    """Frames to visit, for which objects (None for all that can be tracked), and whether to look closely."""

    passes: tuple[Pass, ...]
    objects: tuple[int, ...] | None = None
    zoom: bool | None = None

    @property
    def steps(self) -> int:
        """How many frames in all."""
        return count_frames(self.passes)

    def after(self, done: int) -> TrackPlan:
        """What is left once the first ``done`` frames are finished."""
        return replace(self, passes=after(self.passes, done))
