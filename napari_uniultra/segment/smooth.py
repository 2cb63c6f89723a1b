"""Smooth outlines: mask logits without the steps of their coarse grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LIMIT = 20.0  # of the logits that are smoothed: a larger one would push the outline away from it


def smoothed(logits: Tensor, sigma: float) -> Tensor:
    """Mask logits (B, 1, h, w) through a Gaussian of ``sigma`` pixels; 0 leaves them as they are."""
    if not sigma:
        return logits
    reach = round(3 * sigma)
    places = torch.arange(-reach, reach + 1, device=logits.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (places / sigma) ** 2)
    weights = weights / weights.sum()
    padded = F.pad(logits.float().clamp(-_LIMIT, _LIMIT), (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
