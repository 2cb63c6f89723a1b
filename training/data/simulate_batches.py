"""Simulated samples made where they are trained on: nothing is stored, and none is ever seen twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from napari_uniultra.training.data.augment import look
from napari_uniultra.training.data.pace import ABSENT, draw_turned
from napari_uniultra.training.data.simulate import simulate_clips

_SIDES = 256, 512  # scenes are rendered at the input size, within these limits


@dataclass(frozen=True)
class SimulatedPart:
    """The samples that a batch still lacks.

    Attributes
    ----------
    count, frames : int
        Loops, and frames of each; stills have one.
    size : int
        Side of the result in pixels, S.
    seed : int
        All follows from it; on another kind of device the noise is another.
    every : int
        Frames of a loop are so many apart.
    strength : float
        Of the augmentation.
    close : float
        The share of loops seen closely.
    """

    count: int
    frames: int
    size: int
    seed: int
    every: int = 1
    strength: float = 1.0
    close: float = 0.0

    @torch.no_grad()
    def make(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Images (B, T, S, S) uint8 and masks (B, T, S, S) bool, on the device."""
        rng = np.random.default_rng(self.seed)
        seeds = rng.integers(1 << 62, size=self.count).tolist()
        made = simulate_clips(seeds, self.frames, min(max(self.size, _SIDES[0]), _SIDES[1]), device, self.every)
        chosen = torch.from_numpy(rng.integers(made.counts.numpy())).to(device)
        masks = made.masks[torch.arange(self.count, device=device), :, chosen]
        images, masks = _reversed(rng, made.images, masks)
        images, masks = look(rng, images, masks, self.size, self.strength, self.close)
        return self._interrupted(rng, images, masks) if self.frames > 1 else (images, masks)

    def _interrupted(self, rng: np.random.Generator, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Some of the loops with something else on one frame."""
        loops = np.flatnonzero(rng.random(self.count) < ABSENT)
        if len(loops):
            others = replace(self, count=len(loops), frames=1, seed=int(rng.integers(1 << 62)))
            frames = rng.integers(1, self.frames, len(loops))
            images[loops, frames] = others.make(images.device)[0][:, 0]
            masks[loops, frames] = False
        return images, masks


def _reversed(rng: np.random.Generator, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Half of the loops backwards, where the structure is still in sight at the end."""
    areas = masks[:, [0, -1]].sum(dim=(2, 3)).cpu().numpy()
    chosen = torch.from_numpy(draw_turned(rng, *areas.T)).to(images.device)[:, None, None, None]
    return torch.where(chosen, images.flip(1), images), torch.where(chosen, masks.flip(1), masks)
