"""Losses on mask logits, predicted IoU and object scores, in float32 whatever the network computes in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_uniultra.training.config import LossSettings

# sam2 writes -1024 where it believes the object absent; an unbounded loss of it would drown the rest.
_LOGIT_LIMIT = 30.0
_NO_ERROR = 1e-6  # the focal Tversky loss has no finite slope at 0


def soft_dice_loss(logits: Tensor, targets: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - soft Dice of each mask, over the last two axes: (..., H, W) to (...)."""
    inside = logits.sigmoid()
    overlap = (inside * targets).sum(dim=(-2, -1))
    total = inside.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1))
    return 1 - (2 * overlap + smooth) / (total + smooth)


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of each mask, over the last two axes: (..., H, W) to (...)."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=(-2, -1))


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Mean focal loss of each mask (Lin et al. 2017, Eq. 5), over the last two axes: (..., H, W) to (...).

    Parameters
    ----------
    alpha : float
        Weight of pixels inside; those outside have 1 - alpha.
    gamma : float
        How little pixels count that are right already.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    inside = logits.sigmoid()
    wrong = inside * (1 - targets) + (1 - inside) * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * wrong**gamma * entropy).mean(dim=(-2, -1))


def focal_tversky_loss(
    logits: Tensor, targets: Tensor, alpha: float = 0.7, gamma: float = 0.75, smooth: float = 1.0
) -> Tensor:
    """(1 - Tversky index) ** gamma of each mask (Abraham and Khan 2019), over the last two axes: (..., H, W) to (...).

    Parameters
    ----------
    alpha : float
        Weight of missed pixels; surplus ones have 1 - alpha.
    """
    inside = logits.sigmoid()
    hit = (inside * targets).sum(dim=(-2, -1))
    missed = ((1 - inside) * targets).sum(dim=(-2, -1))
    surplus = (inside * (1 - targets)).sum(dim=(-2, -1))
    index = (hit + smooth) / (hit + alpha * missed + (1 - alpha) * surplus + smooth)
    return (1 - index).clamp(min=_NO_ERROR) ** gamma


def released_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss in the code of UniUltra's authors, of each mask: (..., H, W) to (...).

    0.8 Dice + 0.2 x 0.8 (1 - exp(-B))^2 B, where B is the mask's mean cross-entropy: "focal" by the mask, not by the
    pixel.
    """
    entropy = bce_loss(logits, targets)
    return 0.8 * soft_dice_loss(logits, targets) + 0.2 * 0.8 * (1 - torch.exp(-entropy)) ** 2 * entropy


def mask_loss(logits: Tensor, targets: Tensor, settings: LossSettings) -> Tensor:
    """The chosen loss of each mask, (..., H, W) to (...)."""
    if settings.mask == "released":
        return released_loss(logits, targets)
    dice = soft_dice_loss(logits, targets)
    if settings.mask == "focal_dice":
        focal = focal_loss(logits, targets, settings.focal_alpha, settings.focal_gamma)
        return dice + settings.focal_weight * focal
    loss = dice + bce_loss(logits, targets)
    if settings.mask == "sam2lora":
        loss = loss + focal_tversky_loss(logits, targets, settings.tversky_alpha, settings.tversky_gamma)
    return loss


def mask_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """IoU of boolean masks over the last two axes; two empty masks agree, 1."""
    intersection = (predicted & truth).sum(dim=(-2, -1)).float()
    union = (predicted | truth).sum(dim=(-2, -1)).float()
    return torch.where(union > 0, intersection / union.clamp(min=1), torch.ones_like(union))


def segmentation_loss(
    logits: Tensor, predicted_iou: Tensor, object_score: Tensor, targets: Tensor, settings: LossSettings
) -> dict[str, Tensor]:
    """The terms of the loss of one prediction, weighted, each a mean over the batch: ``mask``, ``iou``, ``score``.

    Only the best of several masks is trained, as in SAM2; the predicted IoU of all of them is. Where there is no
    object, only the object score is trained.

    Parameters
    ----------
    logits : (B, M, h, w)
    predicted_iou : (B, M), 0 to 1
    object_score : (B, 1) logits
    targets : (B, H, W) float32 of 0 to 1; the logits are resized to it
    settings : LossSettings
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = F.interpolate(
            logits.float().clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT),
            targets.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        truth = targets[:, None].expand_as(logits)
        is_present = (targets.flatten(1).amax(dim=1) >= 0.5).float()
        present = is_present.sum().clamp(min=1)
        best = mask_loss(logits, truth, settings).amin(dim=1)
        with torch.no_grad():
            true_iou = mask_iou(logits > 0, truth >= 0.5)
        iou_error = (predicted_iou.float() - true_iou).abs().mean(dim=1)
        score_error = F.binary_cross_entropy_with_logits(object_score[:, 0].float(), is_present)
        return {
            "mask": (best * is_present).sum() / present,
            "iou": settings.iou * (iou_error * is_present).sum() / present,
            "score": settings.object_score * score_error,
        }
