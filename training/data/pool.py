"""Simulated samples kept on disk, so that each is made once, by whoever needs it first."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from napari_uniultra.training.data.simulate import simulate_clip

STILL_SIDE, CLIP_SIDE, CLIP_FRAMES = 384, 320, 8  # as many frames at least
_VERSION = 4  # of the simulator: what an earlier one made is not taken for this one's
_CLIP_SEEDS = 10_000_000  # clips use other seeds than stills


class SimulatedPool:
    """Stills and clips by number.

    Parameters
    ----------
    folder : path, optional
        None makes every sample anew.
    longest : int
        Frames that are asked of a clip at most.
    """

    def __init__(self, folder: str | Path | None, longest: int = CLIP_FRAMES) -> None:
        self.folder = Path(folder) if folder else None
        self.clip_frames = max(CLIP_FRAMES, longest)

    def still(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (N, N) uint8 and masks (K, N, N) bool."""
        images, masks = self._get(number, 1, STILL_SIDE)
        return images[0], masks[0]

    def clip(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (T, N, N) uint8 and masks (T, K, N, N) bool."""
        return self._get(_CLIP_SEEDS + number, self.clip_frames, CLIP_SIDE)

    def _get(self, seed: int, frames: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        if self.folder is None:
            return simulate_clip(seed, frames, size)
        path = self.folder / f"v{_VERSION}_{frames}x{size}_{seed}.npz"
        try:
            with open(path, "rb") as file, np.load(file) as stored:
                images, count = stored["images"], int(stored["count"])
                bits = np.unpackbits(stored["bits"], count=frames * count * size * size)
                return images, bits.reshape(frames, count, size, size).astype(bool)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # not there yet, or damaged: make it
        images, masks = simulate_clip(seed, frames, size)
        self._store(path, images=images, bits=np.packbits(masks), count=masks.shape[1])
        return images, masks

    def _store(self, path: Path, **arrays: np.ndarray | int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())  # else a power cut may leave an empty file of the final name
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
