"""Which prompts a step gives: kinds drawn by their weights, the priors some networks know, corrections on errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from napari_uniultra.core.words import counted
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.prior import CARRIED_MARGIN, PRIOR_LOGIT, box_prior, boxes_of, mask_prior, moved
from napari_uniultra.training.data.prompts import (
    box_points,
    correction_clicks,
    degraded_masks,
    jittered_boxes,
    positive_clicks,
)
from napari_uniultra.training.data.settings import PromptSettings

_MOVED = 0.08  # of the image's side: how far a structure moves between two frames at most
# How far off a structure is found again, as shares of the image's side, and how often it is found so badly.
_FOLLOWING_ERROR, _LOST_ERROR, _LOST = 0.01, 0.06, 0.2
_PREVIOUS_LIMIT = 32.0  # as sam2's predictors clamp logits that come back as a prompt
_KINDS = ("box", "one_point", "three_points", "box_and_point", "mask", "moved_mask", "none")
# On a clip's first frame a mask counts as the truth, and there is no frame before.
_CLIP_KINDS = ("box", "one_point", "three_points", "box_and_point", "mask")


@dataclass(frozen=True)
class Prompts:
    """One prompt for each object of a batch.

    Attributes
    ----------
    name : str
        For the log.
    points, labels : (B, P, 2) float32 and (B, P) int32, or None
        In model pixels.
    dense : (B, 1, S/4, S/4) float32, or None
        Mask-prompt logits: a box's prior, a rough mask, an earlier prediction.
    mask : (B, 1, S, S) float32 of 0 and 1, or None
        Taken as the answer itself, on a frame that conditions a clip.
    """

    name: str
    points: Tensor | None = None
    labels: Tensor | None = None
    dense: Tensor | None = None
    mask: Tensor | None = None

    @property
    def inputs(self) -> dict[str, Tensor] | None:
        """As sam2 takes points."""
        return None if self.points is None else {"point_coords": self.points, "point_labels": self.labels}

    def plus(self, points: Tensor, labels: Tensor, dense: Tensor | None) -> Prompts:
        """With further points, and the mask prompt ``dense`` in place of the own."""
        before = [] if self.points is None else [(self.points, self.labels)]
        joined = [torch.cat(parts, dim=1) for parts in zip(*before, (points, labels), strict=True)]
        return replace(self, points=joined[0], labels=joined[1], dense=dense, mask=None)


class Prompter:
    """Draws prompts from the truth.

    Parameters
    ----------
    settings : PromptSettings
    config : ModelConfig
        Says which priors the network knows.
    """

    def __init__(self, settings: PromptSettings, config: ModelConfig) -> None:
        self.settings, self.config = settings, config
        self._draw: dict[str, Callable[[Tensor, Generator, float], Prompts]] = {
            "box": self.box,
            "one_point": self._points(1),
            "three_points": self._points(3),
            "box_and_point": self._box_and_point,
            "mask": _rough_mask,
            "moved_mask": _moved_mask,
            "none": lambda masks, generator, progress: Prompts("none"),
        }

    def for_stills(self, masks: Tensor, generator: Generator, progress: float) -> list[Prompts]:
        """Two prompts of different kinds for the same stills (one, where only one kind has weight)."""
        kinds = self._kinds(_KINDS, 2, generator)
        return [self._draw[kind](masks, generator, progress) for kind in kinds]

    def for_clip(self, masks: Tensor, generator: Generator, progress: float) -> Prompts:
        """The prompt on a frame that conditions a clip."""
        kind = self._kinds(_CLIP_KINDS, 1, generator)[0]
        if kind == "mask":
            return Prompts("mask", mask=masks[:, None].float())
        return self._draw[kind](masks, generator, progress)

    def _kinds(self, kinds: tuple[str, ...], count: int, generator: Generator) -> list[str]:
        weights = torch.tensor([getattr(self.settings, kind) for kind in kinds])
        count = min(count, int((weights > 0).sum()))
        if count == 0:  # such as clips in a run whose prompts are "none" alone
            return ["box"]
        return [kinds[index] for index in torch.multinomial(weights, count, generator=generator).tolist()]

    def box(self, masks: Tensor, generator: Generator, progress: float) -> Prompts:
        """A person's box, in the prior's share of cases with it, for networks that know the prior."""
        boxes = jittered_boxes(masks, generator, self.settings.outwards, self.settings.jitter)
        with_prior = chance(self.prior_share(progress), generator) and self.config.box_prior
        return self.boxes(boxes, masks.shape[-1], with_prior)

    def boxes(self, boxes: Tensor, size: int, with_prior: bool) -> Prompts:
        """Boxes (B, 4) in model pixels."""
        dense = box_prior(boxes, size) if with_prior else None
        return Prompts("box+prior" if with_prior else "box", *box_points(boxes), dense)

    def prior_share(self, progress: float) -> float:
        """The share of boxes that come with the prior, at ``progress`` (0 to 1) of the run."""
        settings = self.settings
        faded = min(progress / settings.prior_fade, 1.0) if settings.prior_fade else 1.0
        return settings.prior_start + faded * (settings.prior_end - settings.prior_start)

    def _points(self, count: int) -> Callable[[Tensor, Generator, float], Prompts]:
        def draw(masks: Tensor, generator: Generator, progress: float) -> Prompts:
            return Prompts(counted(count, "click"), *positive_clicks(masks, generator, count))

        return draw

    def _box_and_point(self, masks: Tensor, generator: Generator, progress: float) -> Prompts:
        box = self.box(masks, generator, progress)
        return replace(box.plus(*positive_clicks(masks, generator), box.dense), name="box+click")


def carried(previous: Tensor) -> Prompts:
    """No point, and the logits (B, 1, S/4, S/4) of the frame before, as the model gets them when it tracks."""
    count = previous.shape[0]
    points = previous.new_zeros(count, 1, 2, dtype=torch.float32)
    labels = torch.full((count, 1), -1, dtype=torch.int32, device=previous.device)
    return Prompts("tracked, carried", points, labels, mask_prior(previous.detach().float()))


def followed(previous: Tensor, masks: Tensor, generator: Generator) -> Prompts:
    """As `carried`, moved to about where the structure now is, and with a box: what the motion prior gives.

    Structures that are gone, or were not found on the frame before, keep what `carried` gives.
    """
    prompts = carried(previous)
    side, dense = masks.shape[-1], prompts.dense.clone()
    size = 4 * previous.shape[-1]
    for index, (before, now) in enumerate(zip(previous[:, 0] > 0, masks, strict=True)):
        error = torch.randn(2, generator=generator) * _following_error(generator)
        if before.any() and now.any():
            shift = _centre(now) - _centre(before) + error
            dense[index] = moved(dense[index], *shift.tolist())
    points, labels = boxes_of(dense, size, CARRIED_MARGIN)
    labels[~masks.flatten(1).any(dim=1)] = -1
    return replace(prompts, name="tracked, followed", points=points * (side / size), labels=labels, dense=dense)


def _following_error(generator: Generator) -> float:
    """The standard deviation of where a structure is found again: mostly small, now and then the place is wrong."""
    return _LOST_ERROR if chance(_LOST, generator) else _FOLLOWING_ERROR


def _centre(mask: Tensor) -> Tensor:
    """The middle (row, column) of a mask (h, w) bool, in shares of its sides, on the CPU."""
    return mask.nonzero().float().mean(dim=0).cpu() / torch.tensor(mask.shape)


def corrected(prompts: Prompts, masks: Tensor, previous: Tensor, generator: Generator) -> Prompts:
    """A prompt with one more click, on an error of the prediction ``previous``, whose logits come back with it."""
    previous = previous.detach().float().clamp(-_PREVIOUS_LIMIT, _PREVIOUS_LIMIT)
    predicted = F.interpolate(previous, masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0] > 0
    clicks = correction_clicks(masks, predicted, generator)
    return replace(prompts.plus(*clicks, previous), name="correction")


def chance(share: float, generator: Generator) -> bool:
    """True in ``share`` of the cases."""
    return bool(torch.rand((), generator=generator) < share)


def _rough_mask(masks: Tensor, generator: Generator, progress: float) -> Prompts:
    return Prompts("mask", dense=_as_logits(degraded_masks(masks, generator)))


def _moved_mask(masks: Tensor, generator: Generator, progress: float) -> Prompts:
    """As a tracked frame gets the mask of the frame before when tissue or probe moved fast, but without memory."""
    return replace(carried(_as_logits(degraded_masks(masks, generator, _MOVED))), name="moved mask")


def _as_logits(masks: Tensor) -> Tensor:
    """Masks (B, S, S) bool as mask-prompt logits (B, 1, S/4, S/4)."""
    side = masks.shape[-1] // 4
    return (F.interpolate(masks[:, None].float(), (side, side), mode="area") * 2 - 1) * PRIOR_LOGIT
