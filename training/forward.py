"""One training step's forward pass: stills through the decoder, clips through the memory, with a person's prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from napari_uniultra.model.preprocess import prepare_images
from napari_uniultra.model.prior import PRIOR_LOGIT, box_prior, mask_prior
from napari_uniultra.training.data.prompts import (
    box_points,
    correction_clicks,
    degraded_masks,
    jittered_boxes,
    positive_clicks,
)
from napari_uniultra.training.data.samples import Batch
from napari_uniultra.training.losses import mask_iou, segmentation_loss

_OUTWARDS = 0.7  # the share of boxes that are drawn outside the structure on all sides
# The share of other prompts that train the three masks too: sam2 falls back on them where the single one is unstable.
_MULTIMASK = 0.3
_CORRECTED = 0.4  # the share of still steps that go on with a correction click
_CLIP_CORRECTED = 0.15  # the share of later frames in clips that are corrected
_MOVED = 0.08  # of the image's side: how far a structure moves between two frames at most
_CARRIED = 0.7  # the share of tracked frames that also get the mask prior
_POINTER_RANGE = 16  # sam2 scales the pointers' temporal code by min(frames, 16) - 1: train on what long loops use
_PREVIOUS_LIMIT = 32.0  # as sam2's predictors clamp logits that come back as a prompt


@dataclass(frozen=True)
class Prompts:
    """One prompt for each object of a batch.

    Attributes
    ----------
    name : str
        For the log.
    points, labels : (B, P, 2) float32 and (B, P) int32, or None
    dense : (B, 1, S/4, S/4) float32, or None
        Mask-prompt logits: a box's prior, an earlier prediction.
    """

    name: str
    points: Tensor | None
    labels: Tensor | None
    dense: Tensor | None = None

    @property
    def inputs(self) -> dict[str, Tensor] | None:
        """As sam2 takes points."""
        return None if self.points is None else {"point_coords": self.points, "point_labels": self.labels}

    def plus(self, points: Tensor, labels: Tensor, dense: Tensor) -> Prompts:
        """With further clicks and the prediction that they correct."""
        before = [] if self.points is None else [(self.points, self.labels)]
        joined = [torch.cat(parts, dim=1) for parts in zip(*before, (points, labels), strict=True)]
        return Prompts("correction", joined[0], joined[1], dense)


@dataclass
class Outcome:
    """The loss of a step and what the log shows of it."""

    loss: Tensor
    dice: dict[str, list[float]] = field(default_factory=dict)
    iou_error: list[float] = field(default_factory=list)


def forward(network: nn.Module, batch: Batch, generator: Generator, prior: float) -> Outcome:
    """The loss of a batch. ``prior`` is the share of boxes that come with the box prior."""
    return (_clips if batch.is_clip else _stills)(network, batch, generator, prior)


class _Losses:
    """Gathers the losses and scores of several predictions against their truths."""

    def __init__(self, masks: Tensor) -> None:
        side = masks.shape[-1] // 2
        self.masks = masks
        self.targets = F.interpolate(masks.flatten(0, 1)[:, None].float(), (side, side), mode="area").view(
            *masks.shape[:2], side, side
        )
        self.losses: list[Tensor] = []
        self.outcome = Outcome(torch.zeros(()))

    def add(self, name: str, frame: int, sam_outputs: tuple[Tensor, ...]) -> None:
        logits, _, ious, best, _, _, score = sam_outputs
        targets = self.targets[:, frame]
        self.losses.append(segmentation_loss(logits, ious, score, targets))
        with torch.no_grad():
            shown = F.interpolate(best, targets.shape[-2:], mode="bilinear", align_corners=False)[:, 0] > 0
            iou = mask_iou(shown, targets >= 0.5)
            self.outcome.dice.setdefault(name, []).extend((2 * iou / (1 + iou)).tolist())
            self.outcome.iou_error.extend((ious.amax(dim=1) - iou).abs().tolist())

    def finish(self) -> Outcome:
        self.outcome.loss = torch.stack(self.losses).mean()
        return self.outcome


def _stills(network: nn.Module, batch: Batch, generator: Generator, prior: float) -> Outcome:
    masks = batch.masks[:, 0]
    features, _, sizes = _encode(network, batch)
    fine = [_as_map(f, size) for f, size in zip(features[:-1], sizes[:-1], strict=True)]
    coarse = _as_map(features[-1] + network.no_mem_embed, sizes[-1])

    def decode(prompts: Prompts) -> tuple[Tensor, ...]:
        # As sam2's own rule: up to one point asks for three masks, of which the best by predicted IoU is taken.
        is_ambiguous = prompts.points is None or prompts.points.shape[1] <= 1
        is_ambiguous = is_ambiguous or bool(torch.rand((), generator=generator) < _MULTIMASK)
        return network._forward_sam_heads(
            backbone_features=coarse,
            point_inputs=prompts.inputs,
            mask_inputs=prompts.dense,
            high_res_features=fine,
            multimask_output=is_ambiguous,
        )

    losses = _Losses(batch.masks)
    with_prior = bool(torch.rand((), generator=generator) < prior)
    first = _box(masks, generator, with_prior)
    second = _draw(_OTHER_PROMPTS, masks, generator)
    for prompts in (first, second):
        outputs = decode(prompts)
        losses.add(prompts.name, 0, outputs)
        if torch.rand((), generator=generator) < _CORRECTED / 2:
            corrected = _corrected(prompts, masks, outputs, generator)
            losses.add(corrected.name, 0, decode(corrected))
    return losses.finish()


def _clips(network: nn.Module, batch: Batch, generator: Generator, prior: float) -> Outcome:
    count, frames = batch.images.shape[:2]
    features, positions, sizes = _encode(network, batch)
    memory: dict[str, dict[int, dict[str, Tensor]]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    losses = _Losses(batch.masks)
    previous: Tensor | None = None

    for frame in range(frames):
        own = slice(frame * count, (frame + 1) * count)
        current = [f[:, own] for f in features]

        def track(prompts: Prompts | None, mask: Tensor | None = None, frame: int = frame, current=current, own=own):
            return network._track_step(
                frame_idx=frame,
                is_init_cond_frame=frame == 0,
                current_vision_feats=current,
                current_vision_pos_embeds=[p[:, own] for p in positions],
                feat_sizes=sizes,
                point_inputs=prompts.inputs if prompts else None,
                mask_inputs=mask,
                output_dict=memory,
                num_frames=_POINTER_RANGE,
                track_in_reverse=False,
                prev_sam_mask_logits=prompts.dense if prompts else None,
            )[1]

        masks = batch.masks[:, frame]
        is_corrected = False
        if frame == 0 and torch.rand((), generator=generator) < 0.15:
            prompts, outputs = None, track(None, masks[:, None].float())
        elif frame == 0:
            prompts = _first_prompt(masks, generator, prior)
            outputs = track(prompts)
            losses.add("first " + prompts.name, frame, outputs)
        else:
            carried = _carried(previous) if torch.rand((), generator=generator) < _CARRIED else None
            prompts, outputs = None, track(carried)
            losses.add(carried.name if carried else "tracked", frame, outputs)
            is_corrected = bool(torch.rand((), generator=generator) < _CLIP_CORRECTED)
            if is_corrected:
                prompts = _corrected(Prompts("tracked", None, None), masks, outputs, generator)
                outputs = track(prompts)
                losses.add("tracked, corrected", frame, outputs)
        _, _, _, low, high, pointer, score = outputs
        previous = low
        kept = {"pred_masks": low, "obj_ptr": pointer}
        network._encode_memory_in_output(current, sizes, prompts.inputs if prompts else None, True, high, score, kept)
        memory["cond_frame_outputs" if frame == 0 or is_corrected else "non_cond_frame_outputs"][frame] = kept
    return losses.finish()


def _encode(network: nn.Module, batch: Batch) -> tuple[list[Tensor], list[Tensor], list[tuple[int, int]]]:
    """Features and position codes, (HW, T * B, C) from fine to coarse with time before clip, and their sizes."""
    frames = batch.images.transpose(0, 1).flatten(0, 1)
    encoded = network.forward_image(prepare_images(frames, batch.images.shape[-1]))
    _, features, positions, sizes = network._prepare_backbone_features(encoded)
    return features, positions, sizes


def _as_map(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature.permute(1, 2, 0).unflatten(2, size)


# Prompts


def _box(masks: Tensor, generator: Generator, with_prior: bool) -> Prompts:
    boxes = jittered_boxes(masks, generator, _OUTWARDS)
    dense = box_prior(boxes, masks.shape[-1]) if with_prior else None
    return Prompts("box+prior" if with_prior else "box", *box_points(boxes), dense)


def _clicks(count: int) -> Callable[[Tensor, Generator], Prompts]:
    def draw(masks: Tensor, generator: Generator) -> Prompts:
        return Prompts(f"{count} click" + "s" * (count > 1), *positive_clicks(masks, generator, count))

    return draw


def _box_and_click(masks: Tensor, generator: Generator) -> Prompts:
    box = _box(masks, generator, True)
    points, labels = positive_clicks(masks, generator)
    return Prompts("box+click", torch.cat([box.points, points], 1), torch.cat([box.labels, labels], 1), box.dense)


def _rough_mask(masks: Tensor, generator: Generator) -> Prompts:
    return Prompts("mask", None, None, _as_logits(degraded_masks(masks, generator)))


def _moved_mask(masks: Tensor, generator: Generator) -> Prompts:
    """As a tracked frame gets the mask of the frame before when tissue or probe moved fast, but without memory."""
    carried = _carried(_as_logits(degraded_masks(masks, generator, _MOVED)))
    return replace(carried, name="moved mask")


def _as_logits(masks: Tensor) -> Tensor:
    """Masks (B, S, S) bool as mask-prompt logits (B, 1, S/4, S/4)."""
    side = masks.shape[-1] // 4
    return (F.interpolate(masks[:, None].float(), (side, side), mode="area") * 2 - 1) * PRIOR_LOGIT


_OTHER_PROMPTS = (
    (0.25, lambda masks, generator: _box(masks, generator, False)),
    (0.4, _clicks(1)),
    (0.1, _clicks(3)),
    (0.15, _box_and_click),
    (0.1, _rough_mask),
    (0.3, _moved_mask),
)


def _draw(
    choices: tuple[tuple[float, Callable[[Tensor, Generator], Prompts]], ...], masks: Tensor, generator: Generator
) -> Prompts:
    weights = torch.tensor([weight for weight, _ in choices])
    return choices[int(torch.multinomial(weights, 1, generator=generator))][1](masks, generator)


def _first_prompt(masks: Tensor, generator: Generator, prior: float) -> Prompts:
    chance = float(torch.rand((), generator=generator))
    if chance < 0.6:
        return _box(masks, generator, chance < 0.6 * prior)
    return _clicks(1)(masks, generator) if chance < 0.88 else _box_and_click(masks, generator)


def _carried(previous: Tensor) -> Prompts:
    """No point, and the mask of the frame before as the model at use gives it."""
    count = previous.shape[0]
    nothing = torch.zeros(count, 1, 2), -torch.ones(count, 1, dtype=torch.int32)
    return Prompts("tracked, carried", *nothing, mask_prior(previous.detach()))


def _corrected(prompts: Prompts, masks: Tensor, outputs: tuple[Tensor, ...], generator: Generator) -> Prompts:
    previous = outputs[3].detach().clamp(-_PREVIOUS_LIMIT, _PREVIOUS_LIMIT)
    predicted = F.interpolate(previous, masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0] > 0
    return prompts.plus(*correction_clicks(masks, predicted, generator), previous)
