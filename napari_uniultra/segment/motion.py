"""Where a structure went between two frames: by the look of the image, for jumps that a memory of places cannot follow.

A tracked frame of a model with a ``motion_prior`` is prompted with what was there before, moved to where it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.feature import match_template

from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Cine
from napari_uniultra.segment.cache import ByteLimitedCache

_SIDE = 256  # px of the image's longer side: what is searched
_BLUR_PX = 1.0  # against speckle, which is another one in every frame
_MARGIN = 0.5  # of the structure's size: what lies around it is looked for with it
_GAIN = 0.05  # by which the correlation must rise before a structure counts as moved: noise must not shake it
_CACHE_BYTES = 16 << 20


class Seen(NamedTuple):
    """A structure on a frame where it is known: frame number, and mask (H, W) bool."""

    frame: int
    mask: np.ndarray


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
        self._images: ByteLimitedCache[np.ndarray] = ByteLimitedCache(_CACHE_BYTES)

    def displacement(self, seen: Sequence[Seen], frame: int) -> tuple[float, float]:
        """How far the structure has moved from where it was on the first of ``seen``, as (rows, columns) in pixels.

        All of ``seen`` vote, which keeps small errors from adding up: the frame before knows how it looks now, a frame
        that the user marked knows what it is. (0, 0) where it is hardly better to be found elsewhere.
        """
        votes, here = np.zeros(self._small_hw, np.float32), None
        for frame_seen, mask in seen:
            small = self._shrunk(mask) >= 0.5
            if not small.any():
                continue
            centre = tuple(round(place) for place in ndimage.center_of_mass(small))
            here = here or centre
            votes += self._likeness(frame_seen, small, centre, frame)
        if here is None:
            return 0.0, 0.0
        place = np.unravel_index(votes.argmax(), votes.shape)
        if votes[place] - votes[here] < _GAIN * len(seen):
            return 0.0, 0.0
        return tuple((float(there) - own) / self._scale for there, own in zip(place, here, strict=True))

    def _likeness(self, seen: int, mask: np.ndarray, centre: tuple[int, int], frame: int) -> np.ndarray:
        """(h, w): how much each place of ``frame`` looks like the structure's centre, -1 to 1."""
        left, top, right, bottom = box_of_mask(mask)
        rows, columns = (2 + int(_MARGIN * side) for side in (bottom - top, right - left))
        top, left = max(0, int(top) - rows), max(0, int(left) - columns)
        patch = self._image(seen)[top : int(bottom) + rows, left : int(right) + columns]
        likeness = np.full(self._small_hw, -1.0, np.float32)
        if patch.std() == 0:  # nothing to tell places by
            return likeness
        found = match_template(self._image(frame), patch)
        row, column = centre[0] - top, centre[1] - left
        likeness[row : row + found.shape[0], column : column + found.shape[1]] = found
        return likeness

    def _image(self, frame: int) -> np.ndarray:
        return self._images.get_or(frame, lambda: self._made_small(frame))

    def _made_small(self, frame: int) -> np.ndarray:
        image = np.asarray(self._cine.frame(frame))
        grey = image.mean(axis=-1) if image.ndim == 3 else image
        return ndimage.gaussian_filter(self._shrunk(grey), _BLUR_PX)

    def _shrunk(self, image: np.ndarray) -> np.ndarray:
        """(H, W) to the size of the search, each pixel the mean of those that it covers, float32."""
        tensor = torch.from_numpy(image.astype(np.float32))[None, None]
        return F.interpolate(tensor, self._small_hw, mode="area")[0, 0].numpy()
