"""From frames to the network's input, and from its mask logits back to frames."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# ImageNet's statistics, which SAM2 was trained with; a checkpoint's card repeats them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def prepare_images(frames: Tensor, image_size: int) -> Tensor:
    """Stretch frames to the network's square input and normalise them.

    Parameters
    ----------
    frames : Tensor
        (B, H, W) or (B, H, W, 3) uint8. Grey is repeated over the three channels.
    image_size : int
        Side of the output in pixels.

    Returns
    -------
    Tensor
        (B, 3, image_size, image_size) float32.
    """
    images = frames[:, None] if frames.ndim == 3 else frames.permute(0, 3, 1, 2)
    images = images.float()
    if images.shape[-2:] != (image_size, image_size):
        images = F.interpolate(images, (image_size, image_size), mode="bilinear", align_corners=False, antialias=True)
    mean, std = _statistics(images.device)
    return (images / 255.0 - mean) / std


@lru_cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation (1, 3, 1, 1), uploaded once: a GPU would have to stop for them at every frame."""
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return mean, std


def prepare_masks(masks: Tensor, image_size: int) -> Tensor:
    """Mask prompts (B, H, W) bool to (B, 1, image_size, image_size) float32, 0 or 1, as the official predictor does."""
    values = masks[:, None].float()
    if values.shape[-2:] == (image_size, image_size):
        return values
    values = F.interpolate(values, (image_size, image_size), mode="bilinear", align_corners=False, antialias=True)
    return (values >= 0.5).float()


def masks_at(logits: Tensor, shape_hw: tuple[int, int]) -> Tensor:
    """Mask logits (B, 1, h, w) resized to the frame, (B, H, W) float32; above 0 is inside."""
    return F.interpolate(logits.float(), shape_hw, mode="bilinear", align_corners=False)[:, 0]
