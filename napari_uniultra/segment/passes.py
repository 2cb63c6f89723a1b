"""Which frames a propagation visits, in which order: plain data, so that it can be stopped, kept and gone on with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from napari_uniultra.core.types import Direction
from napari_uniultra.errors import PromptError


class Pass(NamedTuple):
    """Frames that are visited one after the other.

    Attributes
    ----------
    reverse : bool
        Whether they go back in time.
    frames : sequence of int
    """

    reverse: bool
    frames: Sequence[int]


def plan_passes(
    direction: Direction, start: int | None, stop: int | None, seeds: Sequence[int], num_frames: int
) -> list[Pass]:
    """The passes of a propagation, as `CineSession.propagate` describes them.

    Parameters
    ----------
    direction : {"forward", "backward", "both"}
    start, stop : int or None
        First and last frame to visit, in the direction of travel; for "both" the ends of the range.
    seeds : sequence of int
        Frames that condition the objects, in order; at least one.
    num_frames : int

    Raises
    ------
    PromptError
        If there is no such direction.
    """
    last = num_frames - 1
    if direction == "both":
        low, high = (0 if start is None else start), (last if stop is None else stop)
        low, high = min(low, high), max(low, high)
        seed = next((frame for frame in seeds if low <= frame <= high), min(max(seeds[0], low), high))
        backward = range(seed - 1, low - 1, -1)
        return [Pass(False, range(seed, high + 1)), *([Pass(True, backward)] if len(backward) else [])]
    begin = seeds[0] if start is None else start
    if direction == "forward":
        return [Pass(False, range(begin, (last if stop is None else stop) + 1))]
    if direction == "backward":
        return [Pass(True, range(begin, (0 if stop is None else stop) - 1, -1))]
    raise PromptError(f"{direction!r} is not a direction", fix='Choose "forward", "backward" or "both"')


def count_frames(passes: Sequence[Pass]) -> int:
    """How many frames the passes visit in all."""
    return sum(len(frames) for _, frames in passes)


def after(passes: Sequence[Pass], done: int) -> tuple[Pass, ...]:
    """What is left of passes of which the first ``done`` frames were visited."""
    left = []
    for reverse, frames in passes:
        rest, done = frames[done:], max(0, done - len(frames))
        if len(rest):
            left.append(Pass(reverse, rest))
    return tuple(left)


def only(passes: Sequence[Pass], wanted: Collection[int]) -> tuple[Pass, ...]:
    """The passes without the frames that are not ``wanted``."""
    kept = [Pass(reverse, [frame for frame in frames if frame in wanted]) for reverse, frames in passes]
    return tuple(own for own in kept if own.frames)
