"""How clips pass through loops: at which pace, in which direction, and how often something else comes into view."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

ABSENT = 0.08  # the share of clips in which one frame shows something else
_GENTLE = 0.6  # the share of clips whose frames follow each other closely, as in a loop at its full frame rate


def is_gentle(rng: Generator) -> bool:
    """Whether a clip is one in which little moves from frame to frame."""
    return bool(rng.random() < _GENTLE)


def draw_stride(rng: Generator, most: int) -> int:
    """How many frames of a loop further each frame of a clip lies, 1 to ``most``."""
    return 1 if is_gentle(rng) else int(rng.integers(1, max(most, 1) + 1))


def draw_turned(rng: Generator, first: np.ndarray, last: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Which clips run backwards: half of those whose structure is still in sight at the end.

    Parameters
    ----------
    first, last : ndarray
        The structure's area on the first and on the last frame of each clip.
    least : float
        Of its area on the first frame, what has to be there on the last.
    """
    return (rng.random(np.shape(first)) < 0.5) & (np.asarray(last) > least * np.asarray(first))
