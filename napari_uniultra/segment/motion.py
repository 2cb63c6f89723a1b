"""Where a structure went between two frames: by the look of the image, for jumps that a memory of places cannot follow.

A tracked frame of a model with a ``motion_prior`` is prompted with what was there before, moved to where it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from napari_uniultra.core.types import Cine
from napari_uniultra.segment.cache import ByteLimitedCache
from napari_uniultra.segment.correlation import Look
from napari_uniultra.segment.results import PackedMask

_SIDE = 256  # px of the image's longer side: what is searched
_LEAST = 8  # pixels of the small image's shorter side
_BLUR_PX = 1.0  # against speckle, which is another one in every frame
_MARGIN = 0.1  # of the structure's size: more around it than moves with it would mislead
_GAIN = 0.05  # by which the correlation must rise before a structure counts as moved: noise must not shake it
_NEARER = 0.5  # of correlation that a place loses for each image's side that it lies away: tissue moves a little
_SURE = 0.5  # of correlation with what was marked, above which the frame before is trusted fully
_OUTSIDE = -1.0  # the likeness of places at which a structure's surroundings would not fit into the image
_CACHE_BYTES, _PATCH_BYTES = 16 << 20, 2 << 20


class Seen(NamedTuple):
    """A structure on a frame where it is known: frame number and mask."""

    frame: int
    mask: PackedMask


class _Patch(NamedTuple):
    """A structure with its surroundings: grey values, and its centre in the image and in the patch."""

    grey: np.ndarray
    centre: tuple[int, int]
    offset: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.grey.nbytes


class _Area(NamedTuple):
    """Places of the small image: those of ``rows`` and ``columns``, which have a start and a stop."""

    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


class MotionSearch:
    """Finds structures again by normalised cross-correlation of their surroundings.

    Parameters
    ----------
    cine : Cine
    """

    def __init__(self, cine: Cine) -> None:
        self._cine = cine
        scale = _SIDE / max(cine.shape_hw)
        self._small_hw = tuple(max(_LEAST, round(side * scale)) for side in cine.shape_hw)
        self._scales = tuple(max(_LEAST / side, scale) for side in cine.shape_hw)  # a narrow frame is widened
        self._to_rows, self._to_columns = map(_averages, cine.shape_hw, self._small_hw)
        self._images: ByteLimitedCache[Look] = ByteLimitedCache(_CACHE_BYTES)
        self._patches: ByteLimitedCache[_Patch] = ByteLimitedCache(_PATCH_BYTES)

    def displacement(self, seen: Sequence[Seen], frame: int) -> tuple[float, float]:
        """How far the structure has moved from where it was on the first of ``seen``, as (rows, columns) in pixels.

        All of ``seen`` vote, which keeps small errors from adding up: the frame before knows how it looks now, a frame
        that the user marked knows what it is. The frame before counts as much as the structure there still looks like
        the marked one: what was lost is looked for by the marked frame. Of places alike the nearer one is taken, and
        (0, 0) where the structure is hardly better to be found elsewhere.
        """
        patches = [patch for patch in map(self._patch, seen) if patch is not None]
        if not patches:
            return 0.0, 0.0
        here, marked = patches[0].centre, patches[1:]
        trust = min((self._trust(own, seen[0].frame, here) for own in marked), default=1.0)
        shares = np.array([trust, *(1.0 for _ in marked)]) / (trust + len(marked))
        stays = sum(share * self._likeness_at(own, frame, here) for share, own in zip(shares, patches, strict=True))
        reach = (1 - _GAIN - stays) / _NEARER * _SIDE  # farther away even what looks quite the same gains too little
        if reach < 1:
            return 0.0, 0.0
        area = self._around(here, int(reach))
        votes = sum(share * self._likeness(own, frame, area) for share, own in zip(shares, patches, strict=True))
        votes = votes - _NEARER * _distances(area, here)
        if votes.max() - stays < _GAIN:
            return 0.0, 0.0
        place = np.unravel_index(votes.argmax(), votes.shape)
        found = area.rows.start + place[0], area.columns.start + place[1]
        moves = zip(found, here, self._scales, strict=True)
        return tuple((float(there) - own) / scale for there, own, scale in moves)

    def _patch(self, seen: Seen) -> _Patch | None:
        """The surroundings of a structure; None where there is nothing to tell places by."""
        if (known := self._patches.get(seen)) is not None:
            return known
        small = PackedMask.pack(self._shrunk(seen.mask.inside, seen.mask.origin) >= 0.5)
        if not small:
            return None
        left, top, right, bottom = map(int, small.box)
        rows, columns = (2 + int(_MARGIN * side) for side in (bottom - top, right - left))
        centre = tuple(map(round, small.centre))
        top, left = max(0, top - rows), max(0, left - columns)
        grey = self._image(seen.frame).grey[top : bottom + rows, left : right + columns]
        if grey.std() == 0:
            return None
        return self._patches.put(seen, _Patch(grey.copy(), centre, (centre[0] - top, centre[1] - left)))

    def _trust(self, marked: _Patch, frame: int, place: tuple[int, int]) -> float:
        """How much a place looks like what was marked, 0 to 1; 1 where that cannot be told, at the image's edge."""
        likeness = self._image(frame).correlation_at(marked.grey, *_corner(marked, place))
        return 1.0 if likeness is None else min(max(likeness / _SURE, 0.0), 1.0)

    def _likeness_at(self, patch: _Patch, frame: int, place: tuple[int, int]) -> float:
        likeness = self._image(frame).correlation_at(patch.grey, *_corner(patch, place))
        return _OUTSIDE if likeness is None else likeness

    def _likeness(self, patch: _Patch, frame: int, area: _Area) -> np.ndarray:
        """How much each place of an area of ``frame`` looks like the structure's centre, -1 to 1."""
        likeness = np.full(area.shape, _OUTSIDE, np.float32)
        needed = [
            slice(max(0, own.start - offset), min(side, own.stop - offset + extent))
            for own, offset, extent, side in zip(area, patch.offset, patch.grey.shape, self._small_hw, strict=True)
        ]
        if any(own.stop - own.start < extent for own, extent in zip(needed, patch.grey.shape, strict=True)):
            return likeness
        if not _is_small(needed, self._small_hw):  # then what is kept of the whole image takes less time
            needed = [slice(0, side) for side in self._small_hw]
        found = self._image(frame).part(*needed).correlation(patch.grey)
        first = [own.start + offset for own, offset in zip(needed, patch.offset, strict=True)]
        into, out_of = zip(*map(_overlap, area, first, found.shape), strict=True)
        likeness[into] = found[out_of]
        return likeness

    def _around(self, place: tuple[int, int], reach: int) -> _Area:
        spans = zip(place, self._small_hw, strict=True)
        return _Area(*(slice(max(0, own - reach), min(side, own + reach + 1)) for own, side in spans))

    def _image(self, frame: int) -> Look:
        return self._images.get_or(frame, lambda: self._made_small(frame))

    def _made_small(self, frame: int) -> Look:
        image = np.asarray(self._cine.frame(frame))
        grey = image if image.ndim == 2 else sum(image[..., own].astype(np.float32) for own in range(3)) / 3
        # The square root lets the dim inside of a structure count beside the bright echoes around it.
        return Look(ndimage.gaussian_filter(np.sqrt(self._shrunk(grey)), _BLUR_PX))

    def _shrunk(self, part: np.ndarray, origin: tuple[int, int] = (0, 0)) -> np.ndarray:
        """An image (H, W) at the size of the search, each pixel the mean of those that it covers, float32.

        ``part`` (h, w) is all of the image, or what of it is not 0, with its first row and column.
        """
        (top, left), (height, width) = origin, part.shape
        rows, columns = self._to_rows[:, top : top + height], self._to_columns[:, left : left + width]
        with torch.inference_mode():
            return (rows @ torch.from_numpy(part.astype(np.float32)) @ columns.T).numpy()


def _averages(side: int, small: int) -> Tensor:
    """The matrix (small, side) that takes the mean of what each of ``small`` pixels covers of ``side`` ones."""
    edges = np.arange(small + 1) * side
    first, last = edges[:-1] // small, -(-edges[1:] // small)
    pixel = np.arange(side)
    covers = (pixel >= first[:, None]) & (pixel < last[:, None])
    return torch.from_numpy((covers / covers.sum(axis=1, keepdims=True)).astype(np.float32))


def _corner(patch: _Patch, place: tuple[int, int]) -> tuple[int, int]:
    """Where the patch's corner lies when its structure's centre is at a place."""
    return place[0] - patch.offset[0], place[1] - patch.offset[1]


def _distances(area: _Area, place: tuple[int, int]) -> np.ndarray:
    """How far each place of an area lies from one, relative to the image's longer side."""
    rows, columns = (
        np.arange(own.start, own.stop, dtype=np.float32) - here for own, here in zip(area, place, strict=True)
    )
    return np.hypot(rows[:, None], columns) / _SIDE


def _is_small(part: Sequence[slice], shape_hw: Sequence[int]) -> bool:
    """Whether a part of an image is so small that a search in it takes less time than one in all of it."""
    height, width = (own.stop - own.start for own in part)
    return height * width < 0.5 * shape_hw[0] * shape_hw[1]


def _overlap(wanted: slice, first: int, count: int) -> tuple[slice, slice]:
    """Where ``count`` values from ``first`` on belong in the span ``wanted``, and which of them do."""
    start, stop = max(wanted.start, first), min(wanted.stop, first + count)
    stop = max(start, stop)
    return slice(start - wanted.start, stop - wanted.start), slice(start - first, stop - first)
