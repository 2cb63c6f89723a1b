"""Where a structure went between two frames: by the look of the image, for jumps that a memory of places cannot follow.

A tracked frame of a model with a ``motion_prior`` is prompted with what was there before, moved to where it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import fft, ndimage

from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Cine
from napari_uniultra.segment.cache import ByteLimitedCache

_SIDE = 256  # px of the image's longer side: what is searched
_BLUR_PX = 1.0  # against speckle, which is another one in every frame
_MARGIN = 0.1  # of the structure's size: more around it than moves with it would mislead
_GAIN = 0.05  # by which the correlation must rise before a structure counts as moved: noise must not shake it
_NEARER = 0.5  # of correlation that a place loses for each image's side that it lies away: tissue moves a little
_SURE = 0.5  # of correlation with what was marked, above which the frame before is trusted fully
_OUTSIDE = -1.0  # the likeness of places at which a structure's surroundings would not fit into the image
_FLAT = 1e-4  # of the grey values' standard deviation: a place where nothing can be told
_CACHE_BYTES = 16 << 20


class Seen(NamedTuple):
    """A structure on a frame where it is known: frame number, and mask (H, W) bool."""

    frame: int
    mask: np.ndarray


class _Look(NamedTuple):
    """A small image (h, w) with what every search in it needs: its spectrum, and running sums (h + 1, w + 1)."""

    grey: np.ndarray
    spectrum: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, grey: np.ndarray) -> _Look:
        """Of grey values (h, w) float32."""
        centred = grey - grey.mean()  # for the numbers' sake; correlations stay the same
        return cls(grey, fft.rfft2(centred), _running_sums(centred), _running_sums(centred**2))

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self)

    def correlation(self, patch: np.ndarray) -> np.ndarray:
        """Normalised cross-correlation (h - a + 1, w - b + 1) with a patch (a, b), 0 where the image is flat."""
        (height, width), (rows, columns) = self.grey.shape, patch.shape
        centred = patch - patch.mean()
        products = fft.irfft2(self.spectrum * np.conj(fft.rfft2(centred, (height, width))), (height, width))
        products = products[: height - rows + 1, : width - columns + 1]
        sums, squares = (_window_sums(own, rows, columns) for own in (self.sums, self.squares))
        spread = np.sqrt(np.maximum(squares - sums**2 / patch.size, 0))
        is_flat = spread < _FLAT * np.sqrt(patch.size)
        return np.where(is_flat, 0, products / (np.where(is_flat, 1, spread) * np.linalg.norm(centred)))

    def correlation_at(self, patch: np.ndarray, row: int, column: int) -> float | None:
        """That at one place alone, without a Fourier transform; None where the patch would not fit into the image."""
        rows, columns = patch.shape
        if not (0 <= row <= self.grey.shape[0] - rows and 0 <= column <= self.grey.shape[1] - columns):
            return None
        seen = self.grey[row : row + rows, column : column + columns]
        if seen.std() < _FLAT:
            return 0.0
        return float(np.corrcoef(seen.ravel(), patch.ravel())[0, 1])


def _running_sums(values: np.ndarray) -> np.ndarray:
    return np.pad(values.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))


def _window_sums(sums: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]


class _Patch(NamedTuple):
    """A structure with its surroundings: grey values, and its centre in the image and in the patch."""

    grey: np.ndarray
    centre: tuple[int, int]
    offset: tuple[int, int]


class MotionSearch:
    """Finds structures again by normalised cross-correlation of their surroundings.

    Parameters
    ----------
    cine : Cine
    """

    def __init__(self, cine: Cine) -> None:
        self._cine = cine
        self._scale = _SIDE / max(cine.shape_hw)
        self._small_hw = tuple(max(8, round(side * self._scale)) for side in cine.shape_hw)
        self._images: ByteLimitedCache[_Look] = ByteLimitedCache(_CACHE_BYTES)

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
        (last, *marked), here = patches, patches[0].centre
        trust = min((self._trust(own, seen[0].frame, here) for own in marked), default=1.0)
        votes = trust * self._likeness(last, frame) + sum(self._likeness(own, frame) for own in marked)
        votes = votes / (trust + len(marked)) - _NEARER * self._distances(here)
        place = np.unravel_index(votes.argmax(), votes.shape)
        if votes[place] - votes[here] < _GAIN:
            return 0.0, 0.0
        return tuple((float(there) - own) / self._scale for there, own in zip(place, here, strict=True))

    def _patch(self, seen: Seen) -> _Patch | None:
        """The surroundings of a structure; None where there is nothing to tell places by."""
        mask = self._shrunk(seen.mask) >= 0.5
        if not mask.any():
            return None
        left, top, right, bottom = box_of_mask(mask)
        rows, columns = (2 + int(_MARGIN * side) for side in (bottom - top, right - left))
        top, left = max(0, int(top) - rows), max(0, int(left) - columns)
        grey = self._image(seen.frame).grey[top : int(bottom) + rows, left : int(right) + columns]
        centre = tuple(round(place) for place in ndimage.center_of_mass(mask))
        return None if grey.std() == 0 else _Patch(grey, centre, (centre[0] - top, centre[1] - left))

    def _trust(self, marked: _Patch, frame: int, place: tuple[int, int]) -> float:
        """How much a place looks like what was marked, 0 to 1; 1 where that cannot be told, at the image's edge."""
        corner = (own - offset for own, offset in zip(place, marked.offset, strict=True))
        likeness = self._image(frame).correlation_at(marked.grey, *corner)
        return 1.0 if likeness is None else min(max(likeness / _SURE, 0.0), 1.0)

    def _likeness(self, patch: _Patch, frame: int) -> np.ndarray:
        """(h, w): how much each place of ``frame`` looks like the structure's centre, -1 to 1."""
        likeness = np.full(self._small_hw, _OUTSIDE, np.float32)
        found = self._image(frame).correlation(patch.grey)
        row, column = patch.offset
        likeness[row : row + found.shape[0], column : column + found.shape[1]] = found
        return likeness

    def _distances(self, place: tuple[int, int]) -> np.ndarray:
        """(h, w): how far each place lies from one, relative to the image's longer side."""
        rows, columns = (
            np.arange(side, dtype=np.float32) - own for side, own in zip(self._small_hw, place, strict=True)
        )
        return np.hypot(rows[:, None], columns) / _SIDE

    def _image(self, frame: int) -> _Look:
        return self._images.get_or(frame, lambda: self._made_small(frame))

    def _made_small(self, frame: int) -> _Look:
        image = np.asarray(self._cine.frame(frame))
        grey = image.mean(axis=-1) if image.ndim == 3 else image
        # The square root lets the dim inside of a structure count beside the bright echoes around it.
        return _Look.of(ndimage.gaussian_filter(np.sqrt(self._shrunk(grey)), _BLUR_PX))

    def _shrunk(self, image: np.ndarray) -> np.ndarray:
        """(H, W) to the size of the search, each pixel the mean of those that it covers, float32."""
        tensor = torch.from_numpy(image.astype(np.float32))[None, None]
        return F.interpolate(tensor, self._small_hw, mode="area")[0, 0].numpy()
