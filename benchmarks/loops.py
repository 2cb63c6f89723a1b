"""The loop that every case looks at: dark discs that drift over speckle, and the boxes around them."""

from __future__ import annotations

import numpy as np

from napari_uniultra.core.types import Box

SHAPE_HW = (600, 800)  # pixels, about what a clinic's machine exports
_SPECKLE_PERIOD = 50  # frames after which the ground repeats
_RADIUS = 0.2  # of a disc, in shares of the room that it has


class SyntheticLoop:
    """Discs that drift over speckle, (T, H, W) uint8, drawn when a frame is asked for.

    A loop of any length thus takes no memory of its own, which would hide what the predictors take.

    Parameters
    ----------
    frames : int
    shape_hw : (int, int)
        Height and width in pixels.
    discs : int
        Four, or up to sixteen smaller ones.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, frames: int, shape_hw: tuple[int, int] = SHAPE_HW, discs: int = 4) -> None:
        self.shape = (frames, *shape_hw)
        self._boxes = boxes(discs, shape_hw)
        self._speckle = np.random.default_rng(0).rayleigh(40.0, shape_hw).clip(0, 255).astype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, t: int) -> np.ndarray:
        if not 0 <= t < len(self):
            raise IndexError(t)
        _, height, width = self.shape
        y, x = np.ogrid[:height, :width]
        frame = np.roll(self._speckle, t % _SPECKLE_PERIOD, axis=1)
        drift = width / 80 * np.sin(t / 15)
        for left, top, right, bottom in self._boxes:
            centre_x, centre_y, radius = (left + right) / 2 + drift, (top + bottom) / 2, (right - left) / 2
            frame[(x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2] //= 5
        return frame


def loop_in_memory(frames: int, discs: int = 4) -> np.ndarray:
    """The same loop as an array, so that drawing it is not timed."""
    return np.stack(list(SyntheticLoop(frames, discs=discs)))


def boxes(count: int, shape_hw: tuple[int, int] = SHAPE_HW) -> list[Box]:
    """The boxes (x0, y0, x1, y1) of that many discs, sixteen at most, on the first frame."""
    side = 2 if count <= 4 else 4
    room_y, room_x = (length / side for length in shape_hw)
    radius = _RADIUS * room_y
    centres = [(room_x * (column + 0.5), room_y * (row + 0.5)) for row in range(side) for column in range(side)]
    return [(x - radius, y - radius, x + radius, y + radius) for x, y in centres[:count]]
