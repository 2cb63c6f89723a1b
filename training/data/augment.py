"""Augmentation of ultrasound frames: what a probe, a patient and a machine's knobs may change, on NumPy and torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor


def random_affine(rng: Generator, mask: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """A random view of a frame as a (2, 3) matrix for ``F.affine_grid``, in which the structure stays in sight.

    Parameters
    ----------
    mask : (H, W) bool
        The structure that must stay in the view.
    """
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    centre = np.array([(columns.mean() + 0.5) / width, (rows.mean() + 0.5) / height]) * 2 - 1
    extent = max(np.ptp(columns) / width, np.ptp(rows) / height) + 1e-3
    # The view's side relative to the frame: below 1 zooms in. Large structures are not zoomed out of the view.
    zoom = np.exp(rng.normal(-0.1, 0.35) * strength)
    zoom = np.clip(zoom, min(1.0, 0.9 * extent + 0.15), 1.7)
    aspect = np.exp(rng.normal(0, 0.16) * strength)
    angle = np.deg2rad(rng.normal(0, 12) * strength)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([zoom * aspect**0.5, zoom / aspect**0.5])
    if strength > 0 and rng.random() < 0.5:
        matrix[:, 0] *= -1
    if strength > 0 and rng.random() < 0.05:
        matrix[:, 1] *= -1
    # Zoomed in, look anywhere that keeps the structure in the view; zoomed out, near the middle.
    slack = max(zoom - extent, 0.1 * zoom)
    offset = rng.uniform(-1, 1, 2) * max(1 - zoom, 0.12 * strength)
    offset = np.clip(offset, centre - slack, centre + slack)
    return np.concatenate([matrix, offset[:, None]], axis=1).astype(np.float32)


def view(image: np.ndarray, masks: np.ndarray, matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Look at a frame through ``matrix``.

    Returns
    -------
    image : (size, size) float32 of 0 to 1, black outside the frame
    masks : (K, size, size) bool
    """
    stack = torch.from_numpy(np.concatenate([image[None], masks.astype(np.uint8) * 255])).float()[None] / 255
    # Shrinking by bilinear sampling alone would turn speckle into noise: average first.
    step = float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))) * stack.shape[-1] / size
    if step > 1.25:
        side = max(int(stack.shape[-1] / step), 16)
        stack = F.interpolate(stack, (side, side), mode="bilinear", align_corners=False, antialias=True)
    grid = F.affine_grid(torch.from_numpy(matrix)[None], [1, 1, size, size], align_corners=False)
    seen = F.grid_sample(stack, grid, align_corners=False)[0].numpy()
    return seen[0], seen[1:] >= 0.5


def change_grey(rng: Generator, image: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Gain, gamma, time-gain compensation, shadow, blur, noise and burnt-in marks, on (H, W) float32 of 0 to 1."""
    return GreyChange.draw(rng, strength).apply(rng, image)


@dataclass(frozen=True)
class GreyChange:
    """One draw of the machine's knobs, so that all frames of a clip get the same."""

    gamma: float
    gain: float
    offset: float
    ramp: tuple[float, float]
    blur: float
    grain: float
    noise: float
    shadow: tuple[float, float, float] | None
    mark: tuple[float, float, float, float, float] | None

    @classmethod
    def draw(cls, rng: Generator, strength: float = 1.0) -> GreyChange:
        return cls(
            gamma=float(np.exp(rng.normal(0, 0.3) * strength)),
            gain=float(np.exp(rng.normal(0, 0.25) * strength)),
            offset=float(rng.normal(0, 0.03) * strength),
            ramp=tuple(rng.normal(0, 0.3, 2) * strength),
            blur=float(max(rng.uniform(-1.0, 1.2), 0) * strength),
            grain=float(max(rng.uniform(-0.2, 0.3), 0) * strength),
            noise=float(max(rng.uniform(-0.04, 0.05), 0) * strength),
            shadow=(rng.uniform(0, 1), rng.uniform(0.02, 0.12), rng.uniform(0.3, 1))
            if rng.random() < 0.2 * strength
            else None,
            mark=tuple(rng.uniform(0, 1, 5)) if rng.random() < 0.15 * strength else None,
        )

    def apply(self, rng: Generator, image: np.ndarray) -> np.ndarray:
        """``rng`` draws the noise, which differs from frame to frame."""
        size = len(image)
        tissue = image > 0.004  # the black around the sector stays black
        depth = np.linspace(-1, 1, size, dtype=np.float32)
        changed = np.clip(image, 0, 1) ** self.gamma * self.gain
        changed = changed * np.exp(self.ramp[0] * depth)[:, None] * np.exp(self.ramp[1] * depth * 0.7)[None]
        if self.shadow:
            centre, width, depth_of = self.shadow
            profile = np.exp(-(((depth / 2 + 0.5 - centre) / width) ** 2))
            changed = changed * (1 - depth_of * profile)[None]
        if self.grain:
            changed = changed * (1 + self.grain * rng.standard_normal(changed.shape, dtype=np.float32))
        if self.blur > 0.2:
            changed = blurred(changed, self.blur)
        changed = changed + self.offset + self.noise * rng.standard_normal(changed.shape, dtype=np.float32)
        changed = np.where(tissue, changed, image)
        if self.mark:
            x, y, width, height, grey = self.mark
            rows, columns = int(y * size), int(x * size)
            changed[rows : rows + int(height * size * 0.1) + 1, columns : columns + int(width * size * 0.15) + 1] = grey
        return np.clip(changed, 0, 1)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of (H, W) float32."""
    radius = max(int(3 * sigma + 0.5), 1)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    tensor: Tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    tensor = F.conv2d(F.pad(tensor, (radius, radius, 0, 0), mode="replicate"), kernel)
    tensor = F.conv2d(F.pad(tensor, (0, 0, radius, radius), mode="replicate"), kernel.transpose(2, 3))
    return tensor[0, 0].numpy()


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Grey of 0 to 1 as a frame."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
