"""How simulated tissue moves: drift, tilt, stretch, elastic pulsation, a beating centre, a probe that jumps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from napari_uniultra.training.data.simulate_anatomy import noise_grid
from napari_uniultra.training.data.simulate_scan import pixel_centres
from napari_uniultra.training.data.smooth_noise import gaussian, smooth_noise

_LARGEST = 0.35  # of the picture's side: far enough to leave the view
_JUMPS = 0.25  # the share of loops in which the probe jumps


@dataclass(frozen=True)
class Motion:
    """The motion of one loop. Lengths are in shares of the picture's side.

    Attributes
    ----------
    shift : (T, 2) ndarray
        Of the whole picture, x and y.
    turn, stretch : (T,) and (T, 2) ndarray
        About the middle: radians, and relative to the size.
    beat : (T,) ndarray
        Phase of the pulsation: 0 at first, within -2 to 2.
    elastic : float
        How far tissue is moved by the pulsation.
    grids : (2, G, G) ndarray
        Control points of the elastic motion.
    centre, reach, pulse : (float, float), float, float
        A place that swells with the beat, how far around, and by how much.
    """

    shift: np.ndarray
    turn: np.ndarray
    stretch: np.ndarray
    beat: np.ndarray
    elastic: float
    grids: np.ndarray
    centre: tuple[float, float] = (0.5, 0.5)
    reach: float = 0.1
    pulse: float = 0.0

    def thinned(self, every: int) -> Motion:
        """Every so many frames of the motion."""
        kept = {name: getattr(self, name)[::every] for name in ("shift", "turn", "stretch", "beat")}
        return replace(self, **kept)

    def scaled(self, factor: float) -> Motion:
        """The same motion, smaller or larger."""
        return replace(
            self,
            shift=self.shift * factor,
            turn=self.turn * factor,
            stretch=self.stretch * factor,
            beat=self.beat * factor,
        )


def draw_motion(
    rng: Generator,
    frames: int,
    centre: tuple[float, float] = (0.5, 0.5),
    reach: float = 0.1,
    pulse: float = 0.0,
) -> Motion:
    """The motion of a loop; the first frame is at rest."""
    time = np.arange(frames)
    rate, phase = rng.uniform(0.1, 0.8), rng.uniform(0, 2 * np.pi)
    drift = rng.normal(0, rng.choice([0.005, 0.02, 0.05]), 2)
    walk = np.cumsum(rng.normal(0, 0.5, (frames, 2)), axis=0)
    shift = drift * time[:, None] + (walk - walk[0]) * np.abs(drift)
    jump, when = rng.normal(0, 0.1, 2), int(rng.integers(1, max(frames, 2)))
    if rng.random() < _JUMPS:
        shift[when:] += jump
    beat = np.sin(rate * time + phase) - np.sin(phase)
    return Motion(
        shift=np.clip(shift, -_LARGEST, _LARGEST),
        turn=rng.normal(0, 0.02) * time,
        stretch=rng.normal(0, 0.02, 2) * beat[:, None] * 2,
        beat=beat,
        elastic=rng.uniform(0, 0.03),
        grids=np.stack([noise_grid(rng, 3), noise_grid(rng, 3)]),
        centre=centre,
        reach=reach,
        pulse=pulse,
    )


class Moving:
    """A batch of motions over fixed places.

    Parameters
    ----------
    motions : list of Motion
    x, y : (B, N, N)
        Picture coordinates, 0 to 1.
    """

    def __init__(self, motions: list[Motion], x: Tensor, y: Tensor) -> None:
        self._motions, self._x, self._y = motions, x, y
        size, device = x.shape[-1], x.device
        self._elastic = [smooth_noise([motion.grids[axis] for motion in motions], size, device) for axis in (0, 1)]
        centres = np.array([motion.centre for motion in motions], np.float32)
        self._from_centre = [at - self._column(centres[:, axis]) for axis, at in enumerate((x, y))]
        reach = self._column([motion.reach for motion in motions])
        self._near = gaussian(torch.hypot(*self._from_centre) / (reach * 2**0.5))

    def displacement(self, frame: int) -> tuple[Tensor, Tensor]:
        """How far the tissue at each place has come since the first frame, (B, N, N) dx and dy; 0 on the first."""

        def column(name: str, axis: int | None = None) -> Tensor:
            values = [getattr(motion, name)[frame] for motion in self._motions]
            return self._column(values if axis is None else [value[axis] for value in values])

        turn, beat = column("turn"), column("beat")
        elastic = beat * self._column([motion.elastic for motion in self._motions])
        swell = beat * self._column([motion.pulse for motion in self._motions]) * self._near
        x, y = self._x - 0.5, self._y - 0.5
        moved = []
        for axis, (along, across) in enumerate(((x, -y), (y, x))):
            rigid = column("shift", axis) + column("stretch", axis) * along + turn * across
            moved.append(rigid + elastic * self._elastic[axis] + swell * self._from_centre[axis])
        return moved[0], moved[1]

    def origin(self, frame: int) -> tuple[Tensor, Tensor]:
        """Where the tissue at each place was on the first frame, (B, N, N) x and y."""
        dx, dy = self.displacement(frame)
        return self._x - dx, self._y - dy

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(np.asarray(values, np.float32), device=self._x.device)[:, None, None]


def moved(images: Tensor, motion: Motion, frames: int) -> Tensor:
    """A still (C, N, N) float32 as a loop (T, C, N, N) in which its tissue moves; the border is mirrored."""
    size = images.shape[-1]
    x, y = pixel_centres(1, size, 1.0, images.device)
    moving = Moving([motion], x, y)
    grids = [torch.stack(moving.origin(frame), dim=-1) * 2 - 1 for frame in range(1, frames)]
    seen = [F.grid_sample(images[None], grid, padding_mode="reflection", align_corners=False)[0] for grid in grids]
    return torch.stack([images, *seen])
