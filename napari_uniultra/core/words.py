"""Numbers in words for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby


def counted(number: int, what: str) -> str:
    """A number of things: "1 loop", "2 loops"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def some_of(names: Sequence[str], shown: int = 5) -> str:
    """The first of many names, and how many there are besides: "a, b, c, d, e and 3 more"."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def frames_in_words(frames: Iterable[int]) -> str:
    """Some frames by their numbers, at least one: "Frame 3", "Frames 1 to 3, 5 and 8 to 90"."""
    frames = sorted(set(frames))
    runs = [[frame for _, frame in run] for _, run in groupby(enumerate(frames), lambda pair: pair[1] - pair[0])]
    words = [word for run in runs for word in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    together = " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
    return f"Frame{'' if len(frames) == 1 else 's'} {together}"
