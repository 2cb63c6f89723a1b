"""Smooth noise from a few control points, as a product of matrices: fast on a CPU and on an accelerator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_DEVIATION = 151 / 315  # of white noise under cubic B-splines: the integral of their square, once for each axis


def smooth_noise(grids: Sequence[np.ndarray], size: int, device: torch.device | str) -> Tensor:
    """Cubic B-spline surfaces of about unit variance, (B, N, N) float32.

    Parameters
    ----------
    grids : sequence of (G, G) ndarray
        Control points; their number G may differ. G - 3 cells span the picture.
    size : int
        N.
    """
    largest = max(len(grid) for grid in grids)
    controls = np.zeros((len(grids), largest, largest), np.float32)
    for padded, grid in zip(controls, grids, strict=True):
        padded[: len(grid), : len(grid)] = grid
    cells = torch.tensor([len(grid) - 3.0 for grid in grids], device=device)
    places = (torch.arange(size, device=device) + 0.5) / size * cells[:, None] + 1
    weights = _cubic(places[:, :, None] - torch.arange(largest, device=device))
    return weights @ torch.from_numpy(controls).to(device) @ weights.transpose(1, 2) / _DEVIATION


def gaussian(away: Tensor) -> Tensor:
    """exp(-away^2); far tails are cut, since numbers too small for full precision make it ten times slower."""
    return torch.exp(-away.square().clamp(max=40))


def _cubic(distance: Tensor) -> Tensor:
    """The cubic B-spline."""
    near = distance.abs()
    inner = 2 / 3 - near**2 * (1 - near / 2)
    outer = (2 - near).clamp(min=0) ** 3 / 6
    return torch.where(near < 1, inner, outer)
