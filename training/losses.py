"""Losses on mask logits, predicted IoU and object scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# sam2 writes -1024 where it believes the object absent; an unbounded loss of it would drown the rest.
_LOGIT_LIMIT = 30.0


def soft_dice_loss(logits: Tensor, targets: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - soft Dice of each mask, over the last two axes: (..., H, W) to (...)."""
    inside = logits.sigmoid()
    overlap = (inside * targets).sum(dim=(-2, -1))
    total = inside.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1))
    return 1 - (2 * overlap + smooth) / (total + smooth)


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of each mask, over the last two axes: (..., H, W) to (...)."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=(-2, -1))


def mask_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """IoU of boolean masks over the last two axes; two empty masks agree, 1."""
    intersection = (predicted & truth).sum(dim=(-2, -1)).float()
    union = (predicted | truth).sum(dim=(-2, -1)).float()
    return torch.where(union > 0, intersection / union.clamp(min=1), torch.ones_like(union))


def segmentation_loss(
    logits: Tensor,
    predicted_iou: Tensor,
    object_score: Tensor,
    targets: Tensor,
    dice_weight: float = 1.0,
    bce_weight: float = 1.0,
    iou_weight: float = 0.4,
    score_weight: float = 0.1,
) -> Tensor:
    """The loss of one prediction, a mean over the batch.

    Only the best of several masks is trained, as in SAM2; the predicted IoU of all of them is. Where there is no
    object, only the object score is trained.

    Parameters
    ----------
    logits : (B, M, h, w)
    predicted_iou : (B, M), 0 to 1
    object_score : (B, 1) logits
    targets : (B, H, W) float32 of 0 to 1; the logits are resized to it
    """
    logits = F.interpolate(
        logits.clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT), targets.shape[-2:], mode="bilinear", align_corners=False
    )
    truth = targets[:, None].expand_as(logits)
    is_present = (targets.flatten(1).amax(dim=1) >= 0.5).float()
    per_mask = dice_weight * soft_dice_loss(logits, truth) + bce_weight * bce_loss(logits, truth)
    with torch.no_grad():
        true_iou = mask_iou(logits > 0, truth >= 0.5)
    iou_error = (predicted_iou - true_iou).abs().mean(dim=1)
    score_error = F.binary_cross_entropy_with_logits(object_score[:, 0], is_present)
    per_sample = per_mask.amin(dim=1) + iou_weight * iou_error
    return (per_sample * is_present).sum() / is_present.sum().clamp(min=1) + score_weight * score_error
