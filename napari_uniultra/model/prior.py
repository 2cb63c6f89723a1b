"""Dense prompts that help models trained from scratch on few images, through SAM2's own mask prompt.

What a box means is learnt much sooner when it also comes as the ellipse inscribed in it (``ModelConfig.box_prior``),
and where an object went when its mask on the frame before comes along (``ModelConfig.mask_prior``), moved to where the
image says that it went (``ModelConfig.motion_prior``). SAM2's weights were
trained without them and must not be given them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_uniultra.core.prompts import BOX_LABELS

CARRIED_MARGIN = 0.03  # of a box around what was there on the frame before
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


def moved(logits: Tensor, share_rows: float, share_columns: float) -> Tensor:
    """Logits (..., h, w) shifted by shares of their height and width; what comes in from outside is -10."""
    height, width = logits.shape[-2:]
    down, right = round(share_rows * height), round(share_columns * width)
    result = torch.full_like(logits, -PRIOR_LOGIT)
    if abs(down) < height and abs(right) < width:
        source = logits[..., max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
        result[..., max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = source
    return result


def boxes_of(logits: Tensor, image_size: int, margin: float) -> tuple[Tensor, Tensor]:
    """Boxes around what logits (B, 1, h, w) show, as SAM2's point prompts; padding for an object that shows nothing.

    Parameters
    ----------
    image_size : int
        Side of the model's input in pixels.
    margin : float
        By how much of its own size a box is larger on each side.

    Returns
    -------
    (Tensor, Tensor)
        (B, 2, 2) corners (x, y) in model pixels, float32, and (B, 2) labels, int32.
    """
    scale = image_size / logits.shape[-1]
    corners = torch.zeros(len(logits), 2, 2, device=logits.device)
    labels = torch.full((len(logits), 2), -1, dtype=torch.int32, device=logits.device)
    for index, inside in enumerate(logits[:, 0] > 0):
        for axis, along in enumerate((0, 1)):  # columns are x
            places = inside.any(dim=along).nonzero()[:, 0]
            if len(places):
                low, high = places[0].item(), places[-1].item() + 1
                grown = margin * (high - low)
                corners[index, :, axis] = torch.tensor([low - grown, high + grown]) * scale
                labels[index] = torch.tensor(BOX_LABELS, dtype=torch.int32)
    return corners, labels


def mask_prior(logits: Tensor) -> Tensor:
    """Mask-prompt logits of an object's mask on the frame before, (B, 1, h, w) as they were predicted."""
    return logits.clamp(-PRIOR_LOGIT, PRIOR_LOGIT)
