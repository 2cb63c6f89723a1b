"""Cases to score: frames as the viewer would show them, and the truth of each object by its name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from PIL import Image

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.cases import Case, OpenCase
from napari_uniultra.training.evaluation.answers import IMAGE

Masks = dict[str, np.ndarray]  # object name -> (H, W) bool


class LabelledCase:
    """An image, or a loop as a sequence of the frames that are kept of it.

    Parameters
    ----------
    case : Case
    every : int
        Of a loop keep every n-th frame between the first and last annotated ones, and all annotated ones.
    canvas : int, optional
        Stretch frames and truths to a square of that side; the spacing is unknown then.

    Attributes
    ----------
    name, source, group : str
        ``group`` names the subject, or the case where the subject is unknown: what resampling keeps together.
    cine : Cine
        The frames that are kept.
    numbers : tuple of int
        The number in the file of each frame that is kept.
    annotated : tuple of int
        Positions, among the frames that are kept, of those with a truth.

    Raises
    ------
    ReadError
        When the frames, or which masks there are, cannot be read.
    """

    def __init__(self, case: Case, every: int = 1, canvas: int | None = None) -> None:
        self._opened, self._canvas = OpenCase(case), canvas
        self.name, self.source = case.name, case.source or "data"
        self.group = "/".join(case.group)
        with_truth = set(self._opened.frames)
        span = range(min(with_truth), max(with_truth) + 1)
        self.numbers = tuple(n for n in span if n in with_truth or n % every == 0)
        self.annotated = tuple(index for index, number in enumerate(self.numbers) if number in with_truth)
        self.cine = self._kept(self._opened.cine)
        # The last two: a frame is asked for once for every kind of prompt, then never again.
        self.truth = lru_cache(maxsize=2)(self._truth)

    @property
    def is_loop(self) -> bool:
        """Whether there is something to track: a truth on two frames or more."""
        return len(self.annotated) > 1

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """Size of a pixel, (row, column), or None where it is unknown."""
        return self.cine.spacing_mm

    @property
    def file_shape_hw(self) -> tuple[int, int]:
        """Height and width of the frames in the file."""
        return self._opened.cine.shape_hw

    def at_canvas(self, labels: np.ndarray) -> np.ndarray:
        """Labels of the file's size, (H, W) bool or integers, at the size at which they are scored."""
        if self._canvas is None:
            return labels
        rows, columns = (((np.arange(self._canvas) + 0.5) * side / self._canvas).astype(int) for side in labels.shape)
        return labels[np.ix_(rows, columns)]

    @cached_property
    def starts(self) -> dict[str, int]:
        """Every object and the position of the first annotated frame that shows it, in this order.

        Every annotated frame and its truth is read for it, so that what is damaged shows before anything is scored.

        Raises
        ------
        ReadError
        """
        starts: dict[str, int] = {}
        for index in self.annotated:
            starts |= {name: index for name in self.truth(index) if name not in starts}
        if IMAGE in starts:
            raise ReadError(
                f"A structure of {self.name} is called {IMAGE!r}",
                "that is what scores call all structures together",
                "Give it another name in the manifest's 'labels'",
            )
        return starts

    def _kept(self, cine: Cine) -> Cine:
        frames = _View(cine.frames, self.numbers, self._canvas)
        if self._canvas is None:
            return Cine(frames, cine.spacing_mm)
        return Cine(frames)

    def _truth(self, index: int) -> Masks:
        """The objects on the annotated frame at position ``index``; none where it shows none."""
        annotated = self._opened.annotated(self.numbers[index])
        found = zip(_unique(annotated.objects), map(self.at_canvas, annotated.masks), strict=True)
        return {name: mask for name, mask in found if mask.any()}


def union(masks: Iterable[np.ndarray], shape_hw: tuple[int, int]) -> np.ndarray:
    """Where any of the masks (H, W) bool is."""
    together = np.zeros(shape_hw, bool)
    for mask in masks:
        together |= mask
    return together


def _unique(names: Iterable[str]) -> list[str]:
    """Names, numbered from the second of its kind on: nerve, nerve 2."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return result


class _View:
    """Some frames of a loop, stretched when they are looked at."""

    dtype = np.dtype(np.uint8)

    def __init__(self, frames: Any, numbers: tuple[int, ...], side: int | None) -> None:
        self._frames, self._numbers, self._side = frames, numbers, side
        size = frames.shape[1:3] if side is None else (side, side)
        self.shape = (len(numbers), *size, *frames.shape[3:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        frame = np.asarray(self._frames[self._numbers[index]])
        if self._side is None:
            return frame
        return np.asarray(Image.fromarray(frame).resize((self._side, self._side), Image.Resampling.BILINEAR))
