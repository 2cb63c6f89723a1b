"""Prompts made from the truth as a person would draw them.

Each depends on the seed and on the names of its case, frame and object alone: not on the order of the cases, nor on
which others are scored, so that two models, or one model on two days, get the same ones.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.random import Generator

from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Box, Prompt
from napari_uniultra.training.evaluation.settings import BOX, BOX_POINT, JITTER_AT, NONE, POINT, THREE_POINTS

_CLICKS = {NONE: 0, POINT: 1, THREE_POINTS: 3, BOX: 0, BOX_POINT: 1}
_MOVES, _PLACES = "moves", "places"  # separate streams: a box is the same with and without a click


def drawn_prompt(kind: str, truth: np.ndarray, jitter: float, seed: int, key: tuple[object, ...]) -> Prompt:
    """The prompt of a kind for one object.

    Parameters
    ----------
    kind : str
        One of `PROMPTS`.
    truth : (H, W) bool
        Not empty.
    jitter : float
        How far a box's side moves outwards at most, in px at 1024.
    seed : int
    key : tuple
        Names of the case, frame and object.
    """
    box = None
    if kind in (BOX, BOX_POINT):
        box = jittered_box(truth, generator(seed, *key, _MOVES), jitter)
    points = clicks_inside(truth, generator(seed, *key, _PLACES), _CLICKS[kind]) if _CLICKS[kind] else ()
    return Prompt(box=box, points=points, labels=(1,) * len(points))


def generator(seed: int, *key: object) -> Generator:
    """A random generator that a seed and names decide."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, np.uint32).tolist()])


def jittered_box(mask: np.ndarray, rng: Generator, jitter: float) -> Box:
    """The box around a mask (H, W) bool, each side moved outwards by 0 to ``jitter`` px at 1024, within the frame."""
    height, width = mask.shape
    x0, y0, x1, y1 = box_of_mask(mask)
    left, up, right, down = rng.uniform(0, 1, 4) * jitter / JITTER_AT * (width, height, width, height)
    return max(x0 - left, 0.0), max(y0 - up, 0.0), min(x1 + right, float(width)), min(y1 + down, float(height))


def clicks_inside(mask: np.ndarray, rng: Generator, count: int) -> tuple[tuple[float, float], ...]:
    """Positions (x, y) in the inner half of a mask, at pixel centres, as a person clicks."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= depth.max() / 2)
    chosen = rng.integers(len(rows), size=count)
    return tuple((float(columns[index]) + 0.5, float(rows[index]) + 0.5) for index in chosen)
