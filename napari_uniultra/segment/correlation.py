"""Normalised cross-correlation of a patch with an image: everywhere by Fourier transforms, or at one place."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import fft

_FLAT = 1e-4  # of the grey values' standard deviation: a place where nothing can be told


class Look:
    """A small image with what every search in it needs, computed when it is needed first: its spectrum, running sums.

    Parameters
    ----------
    grey : (h, w) float32
    """

    def __init__(self, grey: np.ndarray) -> None:
        self.grey = grey

    @property
    def nbytes(self) -> int:
        """With what searches will add."""
        return 7 * self.grey.nbytes

    @cached_property
    def _centred(self) -> np.ndarray:
        return self.grey - self.grey.mean()  # for the numbers' sake; correlations stay the same

    @cached_property
    def _fast_hw(self) -> tuple[int, int]:
        return tuple(fft.next_fast_len(side, real=True) for side in self.grey.shape)

    @cached_property
    def _spectrum(self) -> np.ndarray:
        return fft.rfft2(self._centred, self._fast_hw)

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the values and of their squares."""
        return _running_sums(self._centred), _running_sums(self._centred**2)

    def part(self, rows: slice, columns: slice) -> Look:
        """A part of it, for a search that need not go farther; itself, with what it has computed, where that is all."""
        grey = self.grey[rows, columns]
        return self if grey.shape == self.grey.shape else Look(grey)

    def correlation(self, patch: np.ndarray) -> np.ndarray:
        """Normalised cross-correlation (h - a + 1, w - b + 1) with a patch (a, b), 0 where the image is flat."""
        (height, width), (rows, columns) = self.grey.shape, patch.shape
        centred = patch - patch.mean()
        products = fft.irfft2(self._spectrum * np.conj(fft.rfft2(centred, self._fast_hw)), self._fast_hw)
        products = products[: height - rows + 1, : width - columns + 1]
        sums, squares = (_window_sums(own, rows, columns) for own in self._sums)
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
