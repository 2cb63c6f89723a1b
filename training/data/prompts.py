"""Prompts drawn from ground truth as a person would: boxes a little off, clicks inside, corrections on errors.

Masks are (B, S, S) bool on the model's square, prompts are in model pixels, x right, y down, at pixel edges. Everything
random comes from a ``torch.Generator`` on the CPU, so that the same seed draws the same prompts wherever the masks are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from napari_uniultra.core.prompts import BOX_LABELS

JITTER = 20 / 1024  # of the image's side: the paper moves each side of a box by 0 to 20 px at 1024
_MAX_INWARD = 0.12  # of the box's own side, so that a small structure's box never closes


def tight_boxes(masks: Tensor) -> Tensor:
    """The boxes around masks, (B, 4) float32 x0, y0, x1, y1. An empty mask gives an empty box at the origin."""
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    first = torch.stack([columns.int().argmax(1), rows.int().argmax(1)], dim=1)
    size = masks.shape[-1]
    last = torch.stack([size - columns.flip(1).int().argmax(1), size - rows.flip(1).int().argmax(1)], dim=1)
    boxes = torch.cat([first, last], dim=1).float()
    return boxes * masks.flatten(1).any(dim=1)[:, None]


def jittered_boxes(masks: Tensor, generator: Generator, outwards: float = 1.0, jitter: float = JITTER) -> Tensor:
    """Boxes whose sides are each moved by 0 to ``jitter`` of the image's side, within the image.

    Parameters
    ----------
    outwards : float
        The share of boxes whose sides all move outwards, as in the paper. The others' sides move either way.
    """
    boxes = tight_boxes(masks)
    size = masks.shape[-1]
    count = len(boxes)
    moves = _rand((count, 4), generator, boxes) * jitter * size
    either = _rand((count, 1), generator, boxes) >= outwards
    inward = either & (_rand((count, 4), generator, boxes) < 0.5)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moves = torch.where(inward, -torch.minimum(moves, _MAX_INWARD * sides), moves)
    return (boxes + moves * boxes.new_tensor([-1.0, -1.0, 1.0, 1.0])).clamp(0, size)


def box_points(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (B, 4) as SAM2's pair of points, (B, 2, 2), and labels, (B, 2) int32."""
    labels = torch.tensor(BOX_LABELS, dtype=torch.int32, device=boxes.device).expand(len(boxes), 2)
    return boxes.reshape(-1, 2, 2), labels


def clicks_inside(regions: Tensor, generator: Generator, count: int = 1) -> Tensor:
    """Positions (B, count, 2) in the regions (B, S, S) bool, rather in their middle than at their edge.

    Empty regions give random positions.
    """
    values = regions.float()
    near = F.avg_pool2d(values[:, None], 9, stride=1, padding=4)[:, 0]
    weights = values * near**4
    weights = weights + (weights.sum(dim=(1, 2), keepdim=True) <= 0)  # nowhere to click: anywhere
    # First the row and then the column: so little goes to the CPU that its generator can draw for any device.
    rows = torch.multinomial(weights.sum(dim=2).cpu(), count, replacement=True, generator=generator)
    chosen = weights.gather(1, rows[:, :, None].to(weights.device).expand(-1, -1, weights.shape[2]))
    columns = torch.multinomial(chosen.flatten(0, 1).cpu(), 1, generator=generator).view(-1, count)
    offset = torch.rand(len(regions), count, 2, generator=generator)
    return (torch.stack([columns, rows], dim=-1) + offset).to(regions.device)


def positive_clicks(masks: Tensor, generator: Generator, count: int = 1) -> tuple[Tensor, Tensor]:
    """Clicks inside, as points (B, count, 2) and labels (B, count) int32."""
    points = clicks_inside(masks, generator, count)
    return points, torch.ones(points.shape[:2], dtype=torch.int32, device=points.device)


def correction_clicks(masks: Tensor, predicted: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """One click a sample on what is wrong: positive on missed parts, negative on surplus, chosen by their area.

    A perfect prediction is confirmed by a positive click.
    """
    missed, surplus = masks & ~predicted, predicted & ~masks
    missed_area, surplus_area = missed.flatten(1).sum(1).float(), surplus.flatten(1).sum(1).float()
    share = missed_area / (missed_area + surplus_area).clamp(min=1)
    is_perfect = (missed_area + surplus_area) == 0
    is_positive = (_rand((len(masks),), generator, share) < share) | is_perfect
    region = torch.where(is_positive[:, None, None], missed, surplus)
    region = torch.where(is_perfect[:, None, None], masks, region)
    return clicks_inside(region, generator, 1), is_positive.int()[:, None]


def degraded_masks(masks: Tensor, generator: Generator, shift: float = 0.02) -> Tensor:
    """Masks (B, S, S) bool as a rough painter or an earlier model leaves them: grown or shrunk, wavy, shifted.

    The shift is up to ``shift`` of the image's side, either way.
    """
    size = masks.shape[-1]
    count = len(masks)
    soft = F.avg_pool2d(masks[:, None].float(), 2 * (size // 32) + 1, stride=1, padding=size // 32)
    waves = torch.randn(count, 1, 9, 9, generator=generator).to(soft.device)
    waves = F.interpolate(waves, (size, size), mode="bicubic", align_corners=False)
    threshold = 0.5 + 0.25 * (2 * _rand((count, 1, 1, 1), generator, soft) - 1) + 0.12 * waves
    moves = (_rand((count, 2), generator, soft) * 2 - 1) * 2 * shift
    view = torch.cat([torch.eye(2, device=soft.device).expand(count, 2, 2), moves[:, :, None]], dim=2)
    with torch.autocast(soft.device.type, enabled=False):  # in bfloat16, columns and rows would share their places
        grid = F.affine_grid(view, [count, 1, size, size], align_corners=False)
    return F.grid_sample((soft > threshold.clamp(0.05, 0.95)).float(), grid, align_corners=False)[:, 0] >= 0.5


def _rand(shape: tuple[int, ...], generator: Generator, like: Tensor) -> Tensor:
    """Uniform numbers from the CPU's generator, where ``like`` is."""
    return torch.rand(shape, generator=generator).to(like.device)
