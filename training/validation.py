"""A look at the val part during training: boxes on stills, tracking through loops, and pictures for a person.

Boxes come from the truth, moved outwards as a person's are, the same at every validation. Dice and IoU are those of
the frame as the network sees it, a square; `uniultra evaluate` scores in the frame's own pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.core.metrics import dice
from napari_uniultra.errors import UniUltraError
from napari_uniultra.io.writers.overlay import draw_masks
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.training.config import RunSettings
from napari_uniultra.training.data.cases import Annotated, Case, OpenCase, grey, stretched
from napari_uniultra.training.data.importers import open_manifests
from napari_uniultra.training.data.prompts import jittered_boxes
from napari_uniultra.training.data.settings import DataSettings, PromptSettings
from napari_uniultra.training.losses import mask_iou
from napari_uniultra.training.passes import Clips, Stills, encode
from napari_uniultra.training.prompting import Prompter, Prompts, carried
from napari_uniultra.training.task import Validation

_FRAMES = 4  # of a loop, looked at as stills
_STRUCTURES = 8  # decoded together
_GAP = 4  # pixels between the two halves of a picture


class Validator:
    """Validates a network on the val part of a run's data.

    Parameters
    ----------
    config : ModelConfig
        The network's.
    data : DataSettings
    run : RunSettings

    Raises
    ------
    ReadError
        When a manifest cannot be used.
    """

    def __init__(self, config: ModelConfig, data: DataSettings, run: RunSettings) -> None:
        self._config, self._run = config, run
        self._cases = _spread(open_manifests(data.manifests).part("val"), run.validation_cases)
        self._prompter = Prompter(PromptSettings(outwards=1.0), config)

    def __call__(self, network: nn.Module) -> Validation | None:
        """Score the network as it is, on its device; None without cases.

        The metrics are ``dice``, ``iou`` and ``iou_error`` (how far the predicted IoU is off) of boxes on stills,
        ``dice/SOURCE`` where there are several sources, and ``tracked_dice`` of loops from one box.
        """
        scores: list[_Score] = []
        tracked: list[float] = []
        found = Validation({})
        drawn = {id(case) for case in _spread(self._cases, self._run.overlays)}
        for number, case in enumerate(self._cases):
            generator = torch.Generator().manual_seed(number)
            try:
                opened = OpenCase(case)
                for annotated in _stills_of(opened, self._config.image_size):
                    masks, own = self._segment(network, annotated, case.source, generator)
                    scores += own
                    if id(case) in drawn:
                        drawn.discard(id(case))
                        found.pictures.append(_picture(annotated.image, annotated.masks, masks))
                if self._run.validation_frames > 1 and opened.is_loop:
                    tracked += self._track(network, opened, generator)
            except UniUltraError as error:
                found.skipped.append((case.name, str(error)))
        if not scores:
            return None
        found.metrics.update(_summary(scores))
        if tracked:
            found.metrics["tracked_dice"] = float(np.mean(tracked))
        return found

    def _segment(
        self, network: nn.Module, annotated: Annotated, source: str, generator: torch.Generator
    ) -> tuple[np.ndarray, list[_Score]]:
        """The masks (K, S, S) that boxes around the true ones give, and their scores."""
        device = next(network.parameters()).device
        truth = torch.from_numpy(annotated.masks)
        boxes = jittered_boxes(truth, generator)
        encoded = encode(network, torch.from_numpy(np.array(annotated.image))[None, None].to(device))
        masks, scores = [], []
        for part in torch.arange(len(truth)).split(_STRUCTURES):
            stills = Stills(network, encoded.repeated(len(part)))
            prompts = self._prompter.boxes(boxes[part].to(device), self._config.image_size, self._config.box_prior)
            answer = stills.ask(prompts, multimask=False)
            mask = _at(answer.best, self._config.image_size)
            iou = mask_iou(mask, truth[part].to(device))
            masks.append(mask.cpu().numpy())
            error = (answer.ious.float()[:, 0] - iou).abs()
            scores += [_Score(source, *pair) for pair in zip(iou.tolist(), error.tolist(), strict=True)]
        return np.concatenate(masks), scores

    def _track(self, network: nn.Module, case: OpenCase, generator: torch.Generator) -> list[float]:
        """Dice on the annotated frames of a loop's first ones, from a box on the first of them."""
        size, device = self._config.image_size, next(network.parameters()).device
        first = next((a for a in _annotated(case, case.frames, size) if len(a.masks)), None)
        if first is None:
            return []
        frames = range(first.frame, min(first.frame + self._run.validation_frames, len(case.cine)))
        images = torch.from_numpy(np.stack([stretched(grey(case.cine.frame(frame)), size) for frame in frames]))
        boxes = jittered_boxes(torch.from_numpy(first.masks[:1]), generator).to(device)
        box = self._prompter.boxes(boxes, size, self._config.box_prior)
        masks = track(network, images.to(device), box, self._config.mask_prior)
        later = [frame for frame in case.frames if first.frame < frame < frames.stop]
        return [
            dice(masks[annotated.frame - first.frame], _mask_of(annotated, first.objects[0]))
            for annotated in _annotated(case, later, size)
        ]


def track(network: nn.Module, images: Tensor, prompts: Prompts, with_prior: bool) -> np.ndarray:
    """Masks (T, S, S) bool of one object, prompted on the first of the frames (T, S, S) uint8."""
    clips, masks, previous = Clips(network), [], None
    for frame in range(len(images)):  # one at a time: the features of a whole loop would not fit
        encoded = encode(network, images[None, frame : frame + 1])
        asked = prompts if frame == 0 else carried(previous) if with_prior else None
        answer = clips.ask(frame, encoded, asked, first=frame == 0)
        clips.keep(frame, encoded, answer, prompts if frame == 0 else None, conditions=frame == 0)
        previous = answer.best
        masks.append(_at(answer.best, images.shape[-1])[0].cpu().numpy())
    return np.stack(masks)


@dataclass(frozen=True)
class _Score:
    """Of one structure."""

    source: str
    iou: float
    iou_error: float

    @property
    def dice(self) -> float:
        return 2 * self.iou / (1 + self.iou)


def _summary(scores: Sequence[_Score]) -> dict[str, float]:
    metrics = {name: float(np.mean([getattr(s, name) for s in scores])) for name in ("dice", "iou", "iou_error")}
    sources = sorted({score.source for score in scores})
    for source in sources if len(sources) > 1 else ():
        metrics[f"dice/{source}"] = float(np.mean([score.dice for score in scores if score.source == source]))
    return metrics


def _spread(items: Sequence[Case], count: int) -> list[Case]:
    """``count`` of them at most, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, count).round().astype(int)] if count else []


def _stills_of(case: OpenCase, side: int) -> Iterator[Annotated]:
    """Annotated frames with a structure; of a loop some, evenly spread."""
    frames = case.frames
    if len(frames) > _FRAMES:
        frames = [frames[index] for index in np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int)]
    yield from (annotated for annotated in _annotated(case, frames, side) if len(annotated.masks))


def _annotated(case: OpenCase, frames: Sequence[int], side: int) -> Iterator[Annotated]:
    return (case.annotated(frame, side) for frame in frames)


def _at(logits: Tensor, size: int) -> Tensor:
    """Logits (B, 1, h, w) as masks (B, size, size) bool."""
    return F.interpolate(logits.float(), (size, size), mode="bilinear", align_corners=False)[:, 0] > 0


def _mask_of(annotated: Annotated, name: str) -> np.ndarray:
    """The mask of one object, empty where it is not."""
    if name in annotated.objects:
        return annotated.masks[annotated.objects.index(name)]
    return np.zeros(annotated.image.shape, bool)


def _picture(image: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The true masks on the left, the network's on the right: (S, 2 S + gap, 3) uint8."""
    halves = [draw_masks(image, _labels(each)) for each in (truth, masks)]
    return np.concatenate([halves[0], np.zeros((len(image), _GAP, 3), np.uint8), halves[1]], axis=1)


def _labels(masks: np.ndarray) -> np.ndarray:
    """Masks (K, H, W) bool as one label image; later ones lie on top."""
    labels = np.zeros(masks.shape[1:], np.int32)
    for number, mask in enumerate(masks, 1):
        labels[mask] = number
    return labels
