"""Batches by step number: the same step always gives the same batch, so that a resumed run goes on as it would have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from napari_uniultra.training.config import TrainConfig
from napari_uniultra.training.data.augment import GreyChange, random_affine, to_uint8, view
from napari_uniultra.training.data.pool import SimulatedPool
from napari_uniultra.training.data.real import Annotated, load_loop, load_still, read_split
from napari_uniultra.training.data.simulate import motion, warp

_REAL_SIDE = 512  # real frames are kept at this size
_GENTLE = 0.6  # the share of clips whose frames follow each other closely, as in a loop at its full frame rate
_ABSENT = 0.08  # the share of clips in which one frame shows something else


@dataclass(frozen=True)
class Batch:
    """Frames of one step; stills are clips of one frame.

    Attributes
    ----------
    images : (B, T, S, S) uint8
    masks : (B, T, S, S) bool
        One structure a clip, there on the first frame.
    """

    images: Tensor
    masks: Tensor

    @property
    def is_clip(self) -> bool:
        return self.images.shape[1] > 1


class Samples(Dataset):
    """The batches of a run, by step."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.pool = SimulatedPool(config.simulated_pool)
        # Sets are drawn evenly, however many cases each has.
        self.sets, self.loops = _load_real(config.data) if config.simulated_share < 1 else ([], [])

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(step)
        rng = np.random.default_rng([self.config.seed, step])
        sizes = self.config.image_sizes or (self.config.image_size,)
        size = sizes[rng.integers(len(sizes))]
        batch = self.config.frames_at(size)
        if rng.random() < self.config.clip_share:
            frames = int(rng.integers(self.config.clip_frames[0], self.config.clip_frames[1] + 1))
            samples = [self._clip(rng, step, frames, size) for _ in range(max(batch // frames, 1))]
        else:
            samples = [self._still(rng, step, size) for _ in range(batch)]
        return Batch(*(torch.from_numpy(np.stack(arrays)) for arrays in zip(*samples, strict=True)))

    def _reach(self, step: int, count: int) -> int:
        """How many of the pool's samples this step may draw from."""
        ahead = min(self.config.simulated_ahead, count)
        return ahead + int((count - ahead) * min(1.0, 2 * step / self.config.steps))

    def _real(self, rng: Generator) -> Annotated:
        cases = self.sets[rng.integers(len(self.sets))]
        return cases[rng.integers(len(cases))]

    def _is_simulated(self, rng: Generator) -> bool:
        return rng.random() < self.config.simulated_share

    def _still(self, rng: Generator, step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        if self._is_simulated(rng):
            image, masks = self.pool.still(int(rng.integers(self._reach(step, self.config.simulated_stills))))
        else:
            case = self._real(rng)
            image, masks = case.image, case.masks
        mask = masks[rng.integers(len(masks))]
        return self._look(rng, image[None], mask[None], size)

    def _clip(self, rng: Generator, step: int, frames: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        if self._is_simulated(rng):
            images, masks = self._simulated_clip(rng, step, frames)
        elif self.loops and rng.random() < 0.5:
            images, masks = _window(rng, self.loops[rng.integers(len(self.loops))], frames)
        else:
            images, masks = _moved(rng, self._real(rng), frames)
        images, masks = self._look(rng, images, masks, size)
        if rng.random() < _ABSENT:
            frame = rng.integers(1, frames)
            images, masks = images.copy(), masks.copy()
            images[frame], _ = (array[0] for array in self._still(rng, step, size))
            masks[frame] = False
        return images, masks

    def _simulated_clip(self, rng: Generator, step: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
        images, masks = self.pool.clip(int(rng.integers(self._reach(step, self.config.simulated_clips))))
        is_gentle = rng.random() < _GENTLE
        stride = 1 if is_gentle else int(rng.integers(1, max((len(images) - 1) // (frames - 1), 1) + 1))
        images, masks = images[: stride * frames : stride][:frames], masks[: stride * frames : stride][:frames]
        mask = masks[:, rng.integers(masks.shape[1])]
        if rng.random() < 0.5 and mask[-1].sum() > 0.5 * mask[0].sum():
            images, mask = images[::-1], mask[::-1]
        return images, mask

    def _look(self, rng: Generator, images: np.ndarray, masks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The same random view and the same machine settings for all frames of a clip."""
        for _ in range(4):
            matrix = random_affine(rng, masks[0])
            _, seen = view(images[0], masks[:1], matrix, size)
            if seen.sum() >= 40:
                break
        else:
            matrix = np.eye(2, 3, dtype=np.float32)
        change = GreyChange.draw(rng)
        frames = [view(image, mask[None], matrix, size) for image, mask in zip(images, masks, strict=True)]
        grey = [to_uint8(change.apply(rng, image)) for image, _ in frames]
        return np.stack(grey), np.stack([mask[0] for _, mask in frames])


def _load_real(folder: str | None) -> tuple[list[list[Annotated]], list[list[Annotated]]]:
    """The training part as sets of annotated frames, and its loops."""
    if folder is None:
        return [], []
    stills: dict[str, list[Annotated]] = {}
    loops = []
    for case in read_split(folder, "train"):
        if case.startswith("cine/"):
            loops.append(load_loop(folder, case, _REAL_SIDE))
        else:
            stills.setdefault(case.split("/")[1], []).append(load_still(folder, case, _REAL_SIDE))
    sets = [*stills.values(), [frame for loop in loops for frame in loop]]
    usable = [[case for case in cases if len(case.masks)] for cases in sets]
    return [cases for cases in usable if cases], loops


def _window(rng: Generator, loop: list[Annotated], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a loop in order, forward or backward, a few apart, that begin with the structure in sight."""
    stride = 1 if rng.random() < _GENTLE else int(rng.integers(1, 4))
    stride = max(1, min(stride, (len(loop) - 1) // max(frames - 1, 1)))
    first = int(rng.integers(0, max(len(loop) - stride * (frames - 1), 1)))
    chosen = [loop[min(first + stride * k, len(loop) - 1)] for k in range(frames)]
    if rng.random() < 0.5:
        chosen = chosen[::-1]
    present = [case for case in chosen if len(case.masks)]
    chosen = chosen if len(chosen[0].masks) else [present[0] if present else loop[0], *chosen[1:]]
    empty = np.zeros_like(chosen[0].image, dtype=bool)
    return np.stack([c.image for c in chosen]), np.stack([c.masks[0] if len(c.masks) else empty for c in chosen])


def _moved(rng: Generator, case: Annotated, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A real still as a loop: tissue moved smoothly."""
    mask = case.masks[rng.integers(len(case.masks))]
    fields = motion(rng, len(mask), frames) * (rng.uniform(0.05, 0.5) if rng.random() < _GENTLE else 1.0)
    images, masks = [case.image], [mask]
    for field in fields[1:]:
        moved = warp(np.stack([case.image, mask]), field)
        images.append(np.clip(moved[0], 0, 255).astype(np.uint8))
        masks.append(moved[1] > 0.5)
    return np.stack(images), np.stack(masks)
