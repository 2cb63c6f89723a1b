"""What a scanner's screen shows around the scanned area: plain grey, writing, scales and wedges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

_SHARE = 0.4  # of the pictures that show something there


@dataclass(frozen=True)
class Mark:
    """A word, a ruler or a wedge: a small picture of its own somewhere on the screen.

    Attributes
    ----------
    x, y, width, height : float
        In shares of the screen's side.
    cells : (R, C) ndarray
        Grey of 0 to 1, shown without smoothing.
    """

    x: float
    y: float
    width: float
    height: float
    cells: np.ndarray


@dataclass(frozen=True)
class Screen:
    """What lies around the scanned area.

    Attributes
    ----------
    grey : float
        0 (black) to 1.
    marks : tuple of Mark
    """

    grey: float = 0.0
    marks: tuple[Mark, ...] = ()


BLACK = Screen()


def draw_screen(rng: Generator) -> Screen:
    """Mostly plain black."""
    if rng.random() > _SHARE:
        return BLACK
    marks = [_word(rng) for _ in range(rng.integers(0, 30))]
    marks += [_ruler(rng) for _ in range(rng.integers(0, 3))]
    if rng.random() < 0.5:
        marks.append(_wedge(rng))
    return Screen(rng.uniform(0.02, 0.4) * (rng.random() < 0.4), tuple(marks))


def _word(rng: Generator) -> Mark:
    letters = int(rng.integers(2, 12))
    height = rng.uniform(0.008, 0.02)
    cells = (rng.random((4, 3 * letters)) < 0.5) * rng.uniform(0.3, 1)
    return Mark(rng.uniform(-0.05, 1), rng.uniform(0, 1), height * 0.7 * letters, height, cells)


def _ruler(rng: Generator) -> Mark:
    """Ticks down one side."""
    cells = np.zeros((int(rng.integers(20, 100)), 1))
    cells[:: rng.integers(2, 8)] = rng.uniform(0.3, 1)
    return Mark(rng.uniform(0, 1), rng.uniform(0, 0.3), rng.uniform(0.005, 0.015), rng.uniform(0.4, 1), cells)


def _wedge(rng: Generator) -> Mark:
    """The map from level to grey."""
    return Mark(
        rng.choice([rng.uniform(0, 0.1), rng.uniform(0.9, 1)]), rng.uniform(0, 0.5),
        rng.uniform(0.01, 0.03), rng.uniform(0.1, 0.4), np.linspace(1, 0, 64)[:, None],
    )  # fmt: skip


def painted(screens: list[Screen], size: int) -> Tensor:
    """Screens as pictures (B, N, N) uint8."""
    pictures = np.zeros((len(screens), size, size), np.float32)
    for picture, screen in zip(pictures, screens, strict=True):
        picture[:] = screen.grey
        for mark in screen.marks:
            _stamp(picture, mark)
    return torch.from_numpy((pictures * 255).astype(np.uint8))


def _stamp(picture: np.ndarray, mark: Mark) -> None:
    """Draw a mark, or as much of it as lies on the screen."""
    size = len(picture)
    rows = np.arange(max(round(mark.height * size), 1))
    columns = np.arange(max(round(mark.width * size), 1))
    drawn = mark.cells[np.ix_(rows * len(mark.cells) // len(rows), columns * mark.cells.shape[1] // len(columns))]
    top, left = round(mark.y * size), round(mark.x * size)
    drawn = drawn[: size - top, max(-left, 0) : max(size - left, 0)]
    left = max(left, 0)
    place = picture[top : top + drawn.shape[0], left : left + drawn.shape[1]]
    np.maximum(place, drawn, out=place)
