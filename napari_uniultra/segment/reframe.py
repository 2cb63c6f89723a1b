"""Mask logits of one view as another one shows them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_uniultra.model.prior import PRIOR_LOGIT
from napari_uniultra.segment.view import View


def seen_from(logits: Tensor, source: View, target: View, shift: Sequence[float] = (0.0, 0.0)) -> Tensor:
    """Logits of one view as another one shows them.

    Parameters
    ----------
    logits : (B, 1, source.size / 4, source.size / 4) Tensor
    source, target : View
    shift : (float, float)
        How far what they show has moved since, (rows, columns) in pixels of the frame.

    Returns
    -------
    Tensor
        (B, 1, target.size / 4, target.size / 4); -10 where ``source`` shows nothing.
    """
    if source == target and not any(shift):
        return logits
    places = (torch.arange(target.size // 4, device=logits.device) + 0.5) / (target.size // 4)
    rows = (target.top + places * target.height - shift[0] - source.top) / source.height
    columns = (target.left + places * target.width - shift[1] - source.left) / source.width
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1) * 2 - 1
    grid = grid.to(logits.dtype).expand(len(logits), -1, -1, -1)
    return F.grid_sample(logits + PRIOR_LOGIT, grid, align_corners=False) - PRIOR_LOGIT
