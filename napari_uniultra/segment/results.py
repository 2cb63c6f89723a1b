"""What is known of one object on one frame, small enough to keep for every frame of a long loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import center_of_mass

from napari_uniultra.core.postprocess import largest_piece
from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Box
from napari_uniultra.segment.view import View


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask as the bits of its bounding box. Compared by identity: what was computed of one may be kept by it.

    Attributes
    ----------
    shape_hw : (int, int)
        Height and width of the frame.
    origin : (int, int)
        First row and column of the bounding box.
    size : (int, int)
        Height and width of the bounding box; zero for an empty mask.
    bits : ndarray
        The bounding box's pixels, row by row, eight to a byte, uint8.
    """

    shape_hw: tuple[int, int]
    origin: tuple[int, int]
    size: tuple[int, int]
    bits: np.ndarray

    def __bool__(self) -> bool:
        """Whether any pixel is inside."""
        return bool(self.size[0])

    @classmethod
    def pack(cls, mask: np.ndarray) -> PackedMask:
        """Pack a mask (H, W) bool."""
        box = box_of_mask(mask)
        if box is None:
            return cls(mask.shape, (0, 0), (0, 0), np.zeros(0, np.uint8))
        left, top, right, bottom = (int(edge) for edge in box)
        inside = mask[top:bottom, left:right]
        return cls(mask.shape, (top, left), inside.shape, np.packbits(inside))

    def unpack(self) -> np.ndarray:
        """The mask, (H, W) bool."""
        mask = np.zeros(self.shape_hw, bool)
        (top, left), (height, width) = self.origin, self.size
        mask[top : top + height, left : left + width] = self.inside
        return mask

    @property
    def inside(self) -> np.ndarray:
        """The bounding box's pixels, (height, width) bool."""
        height, width = self.size
        return np.unpackbits(self.bits, count=height * width).astype(bool).reshape(height, width)

    @property
    def box(self) -> Box | None:
        """The bounding box (x0, y0, x1, y1), as `box_of_mask` gives it; None for an empty mask."""
        (top, left), (height, width) = self.origin, self.size
        return (float(left), float(top), float(left + width), float(top + height)) if self else None

    @property
    def centre(self) -> tuple[float, float]:
        """The centre of mass (row, column) of a mask that is not empty."""
        row, column = center_of_mass(self.inside)
        return self.origin[0] + row, self.origin[1] + column

    def main_piece(self) -> PackedMask:
        """The largest piece of the mask alone; the mask itself where there are no others."""
        inside = self.inside
        piece = largest_piece(inside)
        if np.array_equal(piece, inside):
            return self
        packed = PackedMask.pack(piece)
        (top, left), (down, right) = self.origin, packed.origin
        return replace(packed, shape_hw=self.shape_hw, origin=(top + down, left + right))


@dataclass(frozen=True, eq=False)
class Result:
    """One object on one frame. Compared by identity: memories made from a result are valid while it stands.

    Attributes
    ----------
    mask : PackedMask
    predicted_iou : float or None
        The IoU to expect of the mask, 0 to 1: the model's estimate, corrected where the model says how. None for a mask
        that no model judged.
    object_score : float
        Logit; above 0 when the object is believed to be in the frame.
    pointer : ndarray
        (256,) float32, SAM2's object pointer.
    reverse : bool
        Whether the frame was reached backwards in time.
    view : View or None
        The part of the frame that was looked at; None for all of it.
    """

    mask: PackedMask
    predicted_iou: float | None
    object_score: float
    pointer: np.ndarray
    reverse: bool = False
    view: View | None = None


def expected_iou(estimate: float, curve: Sequence[tuple[float, float]]) -> float:
    """What a network's estimate means, by a curve of the model's configuration; the estimate itself without one."""
    return float(np.interp(estimate, *zip(*curve, strict=True))) if curve else estimate
