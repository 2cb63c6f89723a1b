"""Frames that are decoded when they are looked at."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import numpy as np

from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError

MAX_PIXELS_PER_FRAME = 1 << 26  # 8192 x 8192: far above any ultrasound picture, far below what exhausts memory
MAX_FRAMES = 1_000_000
CACHE_BYTES = 256 << 20


class LazyFrames(ABC):
    """A sequence of frames (T, H, W) or (T, H, W, 3), decoded on access.

    Decoded frames are kept, the last used ones up to a limit in bytes, so that scrolling back and forth stays fast.
    It may be read from several threads at once: the viewer and the inference thread both do.

    Parameters
    ----------
    shape : tuple of int
        Of the whole sequence.
    dtype : dtype
        Of a decoded frame.
    cache_bytes : int
        Upper limit of the decoded frames kept.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any = np.uint8, cache_bytes: int = CACHE_BYTES) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(dtype)
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cache_frames = max(1, cache_bytes // self.frame_bytes)
        self._lock = threading.RLock()

    @abstractmethod
    def _decode(self, index: int) -> np.ndarray:
        """Decode one frame, and `_keep` others met on the way. Called with the lock held and ``index`` in range."""

    @property
    def frame_bytes(self) -> int:
        """Size of one decoded frame in bytes."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize

    @property
    def bytes_kept(self) -> int:
        """Size of the decoded frames that are kept now, in bytes."""
        return len(self._cache) * self.frame_bytes

    @property
    def size(self) -> int:
        """Number of values, as of a NumPy array."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Index as a NumPy array: an int decodes one frame; a slice, a list or a tuple decodes the frames it needs."""
        leading = (key or (...,))[0] if isinstance(key, tuple) else key
        if leading is Ellipsis or leading is None:
            return np.asarray(self)[key]
        if isinstance(key, tuple):
            first, *rest = key
            frames = self[first]
            is_one_frame = not isinstance(first, slice) and np.ndim(first) == 0
            return frames[tuple(rest)] if is_one_frame else frames[(slice(None), *rest)]
        if isinstance(key, slice):
            return self._stack(range(*key.indices(len(self))))
        if np.ndim(key):
            return self._stack(np.arange(len(self))[np.asarray(key)])
        return self._frame(int(key))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        stack = self._stack(range(len(self)))
        return stack if dtype is None else stack.astype(dtype, copy=False)

    def read_ahead(self, index: int) -> None:
        """Start to decode a frame that will be wanted soon, in the background. Errors show when it is asked for."""
        if index not in self._cache:
            threading.Thread(target=self._read_quietly, args=(index,), name="read ahead").start()

    def _read_quietly(self, index: int) -> None:
        with suppress(Exception):  # whoever wants the frame will meet the same error
            self._frame(index)

    def _stack(self, indices: Any) -> np.ndarray:
        result = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for position, index in enumerate(indices):
            result[position] = self._frame(int(index))
        return result

    def _frame(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        index %= len(self)
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
            return self._keep(index, self._decode(index))

    def _keep(self, index: int, frame: np.ndarray) -> np.ndarray:
        """Put a decoded frame into the cache; it becomes read-only, since everyone is handed the same array."""
        if frame.shape != self.shape[1:] or frame.dtype != self.dtype:
            raise ReadError(
                f"Frame {index} cannot be used",
                f"it is {frame.shape} {frame.dtype}, while the loop is {self.shape[1:]} {self.dtype}",
            )
        frame.setflags(write=False)
        self._cache[index] = frame
        self._cache.move_to_end(index)
        while len(self._cache) > self._cache_frames:
            self._cache.popitem(last=False)
        return frame


def check_size(name: str, frames: int, height: int, width: int) -> None:
    """Refuse sizes that no ultrasound loop has, before memory is set aside for them.

    Raises
    ------
    ReadError
    """
    stated = f"it states {counted(frames, 'frame')} of {width} x {height} pixels"
    if min(frames, height, width) < 1:
        raise ReadError(f"{name} holds no picture", stated)
    if frames > MAX_FRAMES or height * width > MAX_PIXELS_PER_FRAME:
        raise ReadError(
            f"{name} is too large to be an ultrasound loop",
            stated,
            "Check that the file is not damaged",
        )
