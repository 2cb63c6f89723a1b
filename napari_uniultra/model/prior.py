"""Dense prompts that help models trained from scratch on few images, through SAM2's own mask prompt.

What a box means is learnt much sooner when it also comes as the ellipse inscribed in it (``ModelConfig.box_prior``),
and where an object went when its mask on the frame before comes along (``ModelConfig.mask_prior``). SAM2's weights were
trained without them and must not be given them.
"""

from __future__ import annotations

import torch
from torch import Tensor

PRIOR_LOGIT = 10.0  # sigmoid(10) is 1 to four decimals, as in SAM2's own mask prompts


def box_prior(boxes: Tensor, image_size: int) -> Tensor:
    """Mask-prompt logits of the ellipses inscribed in boxes.

    Parameters
    ----------
    boxes : Tensor
        (B, 4) x0, y0, x1, y1 in model pixels (see ``core.prompts.model_xy``).
    image_size : int
        Side of the model's input in pixels.

    Returns
    -------
    Tensor
        (B, 1, image_size / 4, image_size / 4), float32: +10 inside, -10 outside.
    """
    side = image_size // 4
    centres = (torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5) * 4
    x0, y0, x1, y1 = boxes.float()[:, :, None].unbind(dim=1)
    u = (centres[None] - (x0 + x1) / 2) / ((x1 - x0) / 2).clamp(min=1e-6)
    v = (centres[None] - (y0 + y1) / 2) / ((y1 - y0) / 2).clamp(min=1e-6)
    inside = u[:, None, :].square() + v[:, :, None].square() <= 1
    return torch.where(inside, PRIOR_LOGIT, -PRIOR_LOGIT)[:, None]


def mask_prior(logits: Tensor) -> Tensor:
    """Mask-prompt logits of an object's mask on the frame before, (B, 1, h, w) as they were predicted."""
    return logits.clamp(-PRIOR_LOGIT, PRIOR_LOGIT)
