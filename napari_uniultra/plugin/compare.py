"""How two sets of masks of a loop agree, frame by frame and object by object. No Qt, no napari."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from napari_uniultra.core.counterparts import is_unnamed, pair_objects
from napari_uniultra.core.csv_table import Table
from napari_uniultra.core.masks import Masks
from napari_uniultra.core.metrics import dice, hausdorff95
from napari_uniultra.core.types import PIXELS
from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError


@dataclass(frozen=True)
class ObjectAgreement:
    """One object in both sets of masks.

    Attributes
    ----------
    id_a, id_b : int
    name : str
    dice : ndarray
        (T,) 0 to 1; NaN on frames where neither has the object.
    hd95 : ndarray
        (T,) in mm, or px where the spacing is unknown; NaN where neither has it, infinite where only one does.
    """

    id_a: int
    id_b: int
    name: str
    dice: np.ndarray
    hd95: np.ndarray

    @property
    def frames(self) -> int:
        """On how many frames at least one of the two has it."""
        return int(np.isfinite(self.dice).sum())

    @property
    def one_sided(self) -> int:
        """On how many frames just one of the two has it."""
        return int(np.isinf(self.hd95).sum())

    @property
    def mean_dice(self) -> float:
        """Over the frames where at least one has it; NaN without any."""
        known = self.dice[np.isfinite(self.dice)]
        return float(known.mean()) if known.size else math.nan

    @property
    def mean_hd95(self) -> float:
        """Over the frames where both have it; NaN without any."""
        known = self.hd95[np.isfinite(self.hd95)]
        return float(known.mean()) if known.size else math.nan


@dataclass(frozen=True)
class Comparison:
    """Two sets of masks and how they agree.

    Attributes
    ----------
    titles : (str, str)
        What A and B are.
    masks : (Masks, Masks)
    objects : tuple of ObjectAgreement
    only_a, only_b : tuple of str
        Names of the objects that the other has no counterpart of.
    unit : {"mm", "px"}
        Of HD95.
    """

    titles: tuple[str, str]
    masks: tuple[Masks, Masks]
    objects: tuple[ObjectAgreement, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unit: str

    def worst(self, count: int) -> list[tuple[int, ObjectAgreement]]:
        """(frame, object) where they differ most: by Dice, and by HD95 where Dice is the same; equal masks are out."""
        found = [
            (float(item.dice[frame]), -float(item.hd95[frame]), int(frame), item)
            for item in self.objects
            for frame in np.flatnonzero(item.dice < 1)
        ]
        return [(frame, item) for _, _, frame, item in sorted(found, key=lambda entry: entry[:3])[:count]]

    def table(self) -> Table:
        """Header and cells, as text, of every frame and object that at least one of the two has."""
        header = ["frame", "object", "id_a", "id_b", "dice", f"hd95_{self.unit}"]
        cells = [
            [str(frame), item.name, str(item.id_a), str(item.id_b), *map(_number, (item.dice[frame], item.hd95[frame]))]
            for frame in range(len(self.masks[0]))
            for item in self.objects
            if np.isfinite(item.dice[frame])
        ]
        return header, cells


def compare_masks(
    titles: tuple[str, str], a: Masks, b: Masks, spacing_mm: tuple[float, float] | None
) -> Iterator[int | Comparison]:
    """Compare frame by frame: yields the number of frames that are done, and at last the comparison.

    Raises
    ------
    ReadError
        When the masks differ in size.
    """
    if a.labels.shape != b.labels.shape:
        raise ReadError(
            "The two do not fit each other",
            f"{titles[0]} has {_size(a)}, {titles[1]} has {_size(b)}",
            "Choose masks of the same loop",
        )
    pairs = pair_objects(a, b)
    overlap, distance = (np.full((len(pairs), len(a)), np.nan) for _ in range(2))
    for frame in range(len(a)):
        for row, (number, other) in enumerate(pairs):
            first, second = a.labels[frame] == number, b.labels[frame] == other
            if first.any() or second.any():
                overlap[row, frame] = dice(first, second)
                distance[row, frame] = hausdorff95(first, second, spacing_mm or PIXELS)
        yield frame + 1
    objects = tuple(
        ObjectAgreement(number, other, _name_of_pair(a, b, number, other), overlap[row], distance[row])
        for row, (number, other) in enumerate(pairs)
    )
    yield Comparison(
        titles,
        (a, b),
        objects,
        _left_over(a, [number for number, _ in pairs]),
        _left_over(b, [other for _, other in pairs]),
        "px" if spacing_mm is None else "mm",
    )


def _name_of_pair(a: Masks, b: Masks, number: int, other: int) -> str:
    return b.name(other) if is_unnamed(a, number) and not is_unnamed(b, other) else a.name(number)


def _left_over(masks: Masks, paired: Sequence[int]) -> tuple[str, ...]:
    return tuple(masks.name(number) for number in masks.ids if number not in paired)


def _size(masks: Masks) -> str:
    frames, height, width = masks.labels.shape
    return f"{counted(frames, 'frame')} of {width} x {height} pixels"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
