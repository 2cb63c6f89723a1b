"""Frames of any kind as a lazy (T, H, W[, 3]) uint8 sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_uniultra.errors import ReadError

_RANGE_FRAMES = 16  # frames looked at to find the intensity range of a loop that is not uint8


def as_frames(frames: Any) -> Any:
    """Return ``frames`` as something with ``shape`` (T, H, W) or (T, H, W, 3), dtype uint8 and ``frames[t]``.

    uint8 input is passed through untouched, so a lazy array stays lazy. Other dtypes are mapped frame by frame.

    Raises
    ------
    ReadError
        For no frames, an empty frame, or a shape that is neither grey nor RGB.
    """
    if not hasattr(frames, "shape") or not hasattr(frames, "dtype"):
        frames = np.asarray(frames)
    frames = _with_time_axis(frames)
    shape = frames.shape
    if min(shape) < 1:
        raise ReadError(f"The loop is empty: its shape is {shape}", fix="Check the file or the array")
    if frames.dtype == np.uint8 and (len(shape) == 3 or shape[3] == 3):
        return frames
    if not (np.issubdtype(frames.dtype, np.number) or frames.dtype == bool) or np.iscomplexobj(frames[0]):
        raise ReadError(f"Frames of type {frames.dtype} are not an image", fix="Give numbers, best uint8")
    return ScaledFrames(frames)


def _with_time_axis(frames: Any) -> Any:
    shape = tuple(frames.shape)
    is_colour = len(shape) >= 3 and shape[-1] in (3, 4) and min(shape[-3:-1]) > 4
    if len(shape) == 2 or (len(shape) == 3 and is_colour):
        return np.asarray(frames)[None]
    if len(shape) == 3 or (len(shape) == 4 and is_colour):
        return frames
    if len(shape) == 4 and shape[-1] == 1:
        return np.asarray(frames)[..., 0]
    raise ReadError(
        f"An array of shape {shape} is not an ultrasound loop",
        "a loop is (T, H, W) or (T, H, W, 3); a still is (H, W) or (H, W, 3)",
        "Choose one channel, slice or volume of it first",
    )


def bytes_in_memory(frames: Any) -> int:
    """What frames take there now: all of an array that is no map of its file, else what was decoded and is kept."""
    if isinstance(frames, np.ndarray):
        return 0 if isinstance(frames, np.memmap) else frames.nbytes
    return getattr(frames, "bytes_kept", 0)


class ScaledFrames:
    """A sequence of frames mapped to uint8 by the range of the loop; alpha is dropped; NaN and infinities are black."""

    dtype = np.dtype(np.uint8)

    def __init__(self, frames: Any) -> None:
        self._frames = frames
        colour = frames.shape[3:] and (3,)
        self.shape = (*frames.shape[:3], *colour)
        self.ndim = len(self.shape)
        self._low, self._high = (0.0, 255.0) if frames.dtype == np.uint8 else self._range()

    def _range(self) -> tuple[float, float]:
        low, high = np.inf, -np.inf
        for index in np.unique(np.linspace(0, len(self) - 1, _RANGE_FRAMES).round().astype(int)):
            frame = np.asarray(self._frames[int(index)], dtype=np.float64)
            finite = frame[np.isfinite(frame)]
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        return (low, high) if high > low else (0.0, 0.0)

    @property
    def bytes_kept(self) -> int:
        """Of the frames that are scaled; those that were are not kept."""
        return bytes_in_memory(self._frames)

    def read_ahead(self, index: int) -> None:
        """Have the frames that are scaled read ahead, where they know how to."""
        start = getattr(self._frames, "read_ahead", None)
        if start is not None:
            start(index)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        picked = np.asarray(self._frames[index])
        if len(self.shape) == 4:
            picked = picked[..., :3]
        if self._high <= self._low:
            return np.zeros(picked.shape, np.uint8)
        values = picked.astype(np.float64)
        values[~np.isfinite(values)] = self._low
        scaled = (values - self._low) * (255.0 / (self._high - self._low))
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        stack = np.stack([self[t] for t in range(len(self))])
        return stack if dtype is None else stack.astype(dtype)
