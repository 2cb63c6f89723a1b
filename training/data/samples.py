"""Batches by step number: the same step always gives the same batch, so that a resumed run goes on as it would have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from napari_uniultra.core.settings import ConfigError
from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.augment import look
from napari_uniultra.training.data.cases import Annotated
from napari_uniultra.training.data.importers import open_manifests
from napari_uniultra.training.data.pace import ABSENT, draw_stride, draw_turned, is_gentle
from napari_uniultra.training.data.pool import SimulatedPool
from napari_uniultra.training.data.settings import DataSettings
from napari_uniultra.training.data.simulate_batches import SimulatedPart
from napari_uniultra.training.data.simulate_motion import draw_motion, moved
from napari_uniultra.training.data.store import FrameStore

_SIDES = 512, 1024  # real frames are kept at the largest input size, within these limits
_LARGEST_STRIDE = 3  # of clips from loops that have enough frames
_STEP_STREAM = 0x57E9  # keeps what all processes draw alike apart from what each draws for itself


@dataclass(frozen=True)
class Batch:
    """Frames of one step; stills are clips of one frame.

    Attributes
    ----------
    images : (B, T, S, S) uint8
    masks : (B, T, S, S) bool
        One structure a clip, there on the first frame.
    skipped : tuple of (str, str)
        Cases that could not be read and why; others took their places.
    simulated : SimulatedPart, optional
        Samples that `to` makes on the device and adds.
    """

    images: Tensor
    masks: Tensor
    skipped: tuple[tuple[str, str], ...] = ()
    simulated: SimulatedPart | None = None

    @property
    def is_clip(self) -> bool:
        return self.images.shape[1] > 1

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the images, once all of them are made."""
        clips, *rest = self.images.shape
        return clips + (self.simulated.count if self.simulated else 0), *rest

    def to(self, device: torch.device | str) -> Batch:
        """On a device (asynchronously from pinned memory), with the samples that are simulated there."""
        images, masks = self.images.to(device, non_blocking=True), self.masks.to(device, non_blocking=True)
        if self.simulated is not None:
            made = self.simulated.make(device)
            images, masks = torch.cat([images, made[0]]), torch.cat([masks, made[1]])
        return replace(self, images=images, masks=masks, simulated=None)

    def pin_memory(self) -> Batch:
        """In page-locked memory; a `DataLoader` calls it."""
        return replace(self, images=self.images.pin_memory(), masks=self.masks.pin_memory())


class Samples(Dataset):
    """The batches of a run, by step: all that is random follows from the seed, the step and the rank.

    Sources are drawn evenly, however many cases each has, and so are the cases of a source. A case that cannot be read
    is replaced by the next of its source, and the batch says so.

    Parameters
    ----------
    data : DataSettings
    image_size : int
        Side of the model's input in pixels.
    steps : int
        Of the whole run.
    seed : int
    rank, world : int
        Of this process among those that train together. All of them draw the same size and kind of batch for a step.

    Raises
    ------
    ConfigError
        When there is nothing to train on.
    ReadError
        When a manifest cannot be used.
    """

    def __init__(
        self, data: DataSettings, image_size: int, steps: int, seed: int = 1, rank: int = 0, world: int = 1
    ) -> None:
        if not 0 <= rank < world:
            raise ConfigError(f"There is no process {rank} among {world}")
        self.data, self.steps, self.seed, self.rank = data, steps, seed, rank
        self.sizes = data.image_sizes or (image_size,)
        self.image_size = image_size
        self.pool = SimulatedPool(data.simulated_pool, data.clip_frames[1])
        cases = open_manifests(data.manifests).part("train") if data.simulated_share < 1 else ()
        if not cases and data.simulated_share < 1:
            raise ConfigError(
                "There is nothing to train on",
                "the manifests list no case of the part 'train'" if data.manifests else "no manifest is named",
                "Name manifests with a 'train' part, or set data.simulated_share to 1",
            )
        self.store = FrameStore(cases, max(_SIDES[0], min(_SIDES[1], max(self.sizes))), data.cache_mb << 20)
        sources = sorted({case.source for case in cases})
        self.sets = [[index for index, case in enumerate(cases) if case.source == source] for source in sources]
        self.loops = [index for index, case in enumerate(cases) if case.may_be_loop]

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(step)
        common = np.random.default_rng([_STEP_STREAM, self.seed, step])
        size = self.sizes[common.integers(len(self.sizes))]
        count = frames_at(self.data.batch, self.image_size, size)
        draw = _Draw(self, np.random.default_rng([self.seed, step, self.rank]), step, size)
        frames = 1
        if common.random() < self.data.clip_share:
            frames = int(common.integers(self.data.clip_frames[0], self.data.clip_frames[1] + 1))
        count = max(count // frames, 1)
        simulated = None
        if self.data.simulate_on == "device":
            simulated = draw.simulated_part(int(draw.rng.binomial(count, self.data.simulated_share)), frames)
            count -= simulated.count
        samples = [draw.clip(frames) if frames > 1 else draw.still() for _ in range(count)]
        images = torch.stack([image for image, _ in samples]) if samples else torch.empty(0, frames, size, size)
        masks = torch.stack([mask for _, mask in samples]) if samples else torch.empty(0, frames, size, size)
        simulated = simulated if simulated and simulated.count else None
        return Batch(images.to(torch.uint8), masks.bool(), tuple(draw.skipped.items()), simulated)


def frames_at(batch: int, image_size: int, size: int) -> int:
    """Frames a step at another input size that cost about as much as ``batch`` at the model's own."""
    return max(round(batch * (image_size / size) ** 2), 1)


class _Draw:
    """What one step draws."""

    def __init__(self, samples: Samples, rng: Generator, step: int, size: int) -> None:
        self.samples, self.rng, self.step, self.size = samples, rng, step, size
        self.skipped: dict[str, str] = {}

    def simulated_part(self, count: int, frames: int) -> SimulatedPart:
        """What is left to the device."""
        every = draw_stride(self.rng, _LARGEST_STRIDE)
        data, seed = self.samples.data, int(self.rng.integers(1 << 62))
        return SimulatedPart(count, frames, self.size, seed, every, data.augmentation, data.close_views)

    def still(self) -> tuple[Tensor, Tensor]:
        """Images (1, S, S) uint8 and masks (1, S, S) bool."""
        if self._is_simulated():
            image, masks = self.samples.pool.still(self._reach(self.samples.data.simulated_stills))
        else:
            case = self._real(self._frame)
            image, masks = case.image, case.masks
        return self._look(image[None], masks[self.rng.integers(len(masks))][None])

    def clip(self, frames: int) -> tuple[Tensor, Tensor]:
        """Images (T, S, S) uint8 and masks (T, S, S) bool."""
        loops = self.samples.loops
        if self._is_simulated():
            images, masks = self._simulated_clip(frames)
        elif loops and self.rng.random() < 0.5:
            first = int(self.rng.integers(len(loops)))
            images, masks = self._readable(loops, first, lambda case: self._window(case, frames))
        else:
            images, masks = _moved(self.rng, self._real(self._frame), frames)
        images, masks = self._look(images, masks)
        if self.rng.random() < ABSENT:
            frame = self.rng.integers(1, frames)
            images[frame] = self.still()[0][0]
            masks[frame] = False
        return images, masks

    def _is_simulated(self) -> bool:
        data = self.samples.data
        return data.simulate_on == "workers" and self.rng.random() < data.simulated_share

    def _reach(self, count: int) -> int:
        """One of the pool's samples that this step may draw: few at first, all from the middle of the run on."""
        ahead = min(self.samples.data.simulated_ahead, count)
        reach = ahead + int((count - ahead) * min(1.0, 2 * self.step / self.samples.steps))
        return int(self.rng.integers(reach))

    def _real(self, read: Callable[[int], Annotated]) -> Annotated:
        cases = self.samples.sets[self.rng.integers(len(self.samples.sets))]
        return self._readable(cases, int(self.rng.integers(len(cases))), read)

    def _readable(self, cases: list[int], first: int, read: Callable[[int], object]):
        """What ``read`` gives for the first case from ``first`` on, round the list, that can be read."""
        for offset in range(len(cases)):
            case = cases[(first + offset) % len(cases)]
            try:
                return read(case)
            except ReadError as error:
                self.skipped[self.samples.store.cases[case].name] = str(error)
        raise ReadError(
            "None of the cases of a source can be read",
            next(reversed(self.skipped.values())),
            "Check the manifest with 'uniultra data check'",
        )

    def _frame(self, case: int) -> Annotated:
        """A frame of a case that shows a structure."""
        store = self.samples.store
        frames = store.frames(case)
        first = int(self.rng.integers(len(frames)))
        for offset in range(len(frames)):
            annotated = store.get(case, frames[(first + offset) % len(frames)])
            if len(annotated.masks):
                return annotated
        raise ReadError(f"All masks of {store.cases[case].name} are empty", fix="Correct them, or remove the case")

    def _window(self, case: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames of a loop in order, forward or backward, a few apart, that begin with the structure in sight."""
        store = self.samples.store
        numbers = store.frames(case)
        if len(numbers) < 2:
            return _moved(self.rng, self._frame(case), frames)
        stride = draw_stride(self.rng, min(_LARGEST_STRIDE, (len(numbers) - 1) // (frames - 1)))
        first = int(self.rng.integers(0, max(len(numbers) - stride * (frames - 1), 1)))
        chosen = [store.get(case, numbers[min(first + stride * k, len(numbers) - 1)]) for k in range(frames)]
        shown = [len(chosen[end].masks) for end in (0, -1)]
        if draw_turned(self.rng, *shown, least=0):
            chosen = chosen[::-1]
        if not len(chosen[0].masks):
            chosen = [next((seen for seen in chosen if len(seen.masks)), None) or self._frame(case), *chosen[1:]]
        target = chosen[0].objects[self.rng.integers(len(chosen[0].objects))]
        return np.stack([seen.image for seen in chosen]), np.stack([_mask_of(seen, target) for seen in chosen])

    def _simulated_clip(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        rng = self.rng
        images, masks = self.samples.pool.clip(self._reach(self.samples.data.simulated_clips))
        stride = draw_stride(rng, (len(images) - 1) // (frames - 1))
        images, masks = images[: stride * frames : stride][:frames], masks[: stride * frames : stride][:frames]
        mask = masks[:, rng.integers(masks.shape[1])]
        if draw_turned(rng, mask[0].sum(), mask[-1].sum()):
            images, mask = images[::-1], mask[::-1]
        return images, mask

    def _look(self, images: np.ndarray, masks: np.ndarray) -> tuple[Tensor, Tensor]:
        frames, truth = (torch.tensor(np.ascontiguousarray(array))[None] for array in (images, masks))
        data = self.samples.data
        seen, found = look(self.rng, frames, truth, self.size, data.augmentation, data.close_views)
        return seen[0], found[0]


def _mask_of(annotated: Annotated, target: str) -> np.ndarray:
    """The mask (H, W) bool of a structure by its name; empty where it is not there."""
    own = [mask for mask, name in zip(annotated.masks, annotated.objects, strict=True) if name == target]
    return np.any(own, axis=0) if own else np.zeros(annotated.image.shape, bool)


def _moved(rng: Generator, case: Annotated, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A real still as a loop: tissue moved smoothly."""
    mask = case.masks[rng.integers(len(case.masks))]
    motion = draw_motion(rng, frames).scaled(rng.uniform(0.05, 0.5) if is_gentle(rng) else 1.0)
    loop = moved(torch.from_numpy(np.stack([case.image, mask * np.uint8(255)])).float(), motion, frames)
    return loop[:, 0].to(torch.uint8).numpy(), (loop[:, 1] > 127.5).numpy()
