"""Prompts drawn from truth: the paper's jitter, clicks inside, corrections on errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_uniultra.training.data import prompts

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def disc(size: int = 64, centre: tuple[int, int] = (30, 20), radius: int = 9) -> torch.Tensor:
    y, x = np.mgrid[0:size, 0:size]
    return torch.from_numpy((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2)[None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_tight_boxes_lie_on_pixel_edges() -> None:
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, 3:7, 5:11] = True
    assert prompts.tight_boxes(masks).tolist() == [[5, 3, 11, 7], [0, 0, 0, 0]]


def test_jitter_is_that_of_the_paper() -> None:
    """Each side moves outwards by 0 to 20 pixels at 1024, evenly."""
    masks = disc(1024, (500, 480), 100).expand(150, -1, -1)
    moved = (prompts.jittered_boxes(masks, generator()) - prompts.tight_boxes(masks)) * torch.tensor([-1, -1, 1, 1])
    assert moved.min() >= 0
    assert moved.max() <= 20
    assert moved.mean(dim=0).tolist() == pytest.approx([10] * 4, abs=1.5)
    assert moved.std(dim=0).tolist() == pytest.approx([20 / 12**0.5] * 4, abs=0.8)
    assert torch.corrcoef(moved.T).fill_diagonal_(0).abs().max() < 0.3  # the sides move by themselves


def test_jitter_scales_with_the_input_and_stays_in_the_image() -> None:
    masks = disc(128, (4, 60), 20).expand(200, -1, -1)
    tight = prompts.tight_boxes(masks)
    boxes = prompts.jittered_boxes(masks, generator())
    assert boxes.min() >= 0
    assert ((boxes - tight).abs() <= 128 * 20 / 1024).all()
    assert torch.equal(prompts.jittered_boxes(masks, generator(), jitter=0.0), tight)


def test_inward_jitter_never_closes_a_box() -> None:
    masks = disc(128, (60, 60), 3).expand(200, -1, -1)
    boxes = prompts.jittered_boxes(masks, generator(), outwards=0.0)
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 0.7 * 7).all()
    assert (boxes[:, 0] > 57).any()


def test_a_share_of_boxes_moves_outwards_only() -> None:
    masks = disc(256, (100, 100), 40).expand(1000, -1, -1)
    boxes = prompts.jittered_boxes(masks, generator(), outwards=0.5) - prompts.tight_boxes(masks)
    outwards = ((boxes * torch.tensor([-1, -1, 1, 1])) >= 0).all(dim=1)
    assert float(outwards.float().mean()) == pytest.approx(0.5 + 0.5 / 16, abs=0.05)


@pytest.mark.parametrize("count", [1, 3])
def test_clicks_lie_inside_rather_in_the_middle(count: int) -> None:
    masks = disc(128, (60, 50), 30).expand(300, -1, -1)
    points, labels = prompts.positive_clicks(masks, generator(), count)
    assert points.shape == (300, count, 2)
    assert labels.tolist() == [[1] * count] * 300
    x, y = points[..., 0].long(), points[..., 1].long()
    assert masks[torch.arange(300)[:, None], y, x].all()
    away = torch.hypot(points[..., 0] - 50.5, points[..., 1] - 60.5)
    assert float((away > 26).float().mean()) < 0.15  # evenly it would be a quarter
    assert points.mean(dim=(0, 1)).tolist() == pytest.approx([50.5, 60.5], abs=2)


def test_clicks_on_an_empty_mask_are_anywhere_in_the_image() -> None:
    points = prompts.clicks_inside(torch.zeros(50, 32, 32, dtype=torch.bool), generator())
    assert points.min() >= 0
    assert points.max() <= 32
    assert points.std() > 5


def test_corrections_click_on_errors() -> None:
    truth, missed_half = disc(), disc().clone()
    missed_half[:, :, :20] = False
    point, label = prompts.correction_clicks(truth, missed_half, generator())
    assert label.tolist() == [[1]]
    assert point[0, 0, 0] < 20
    point, label = prompts.correction_clicks(missed_half, truth, generator())
    assert label.tolist() == [[0]]
    assert point[0, 0, 0] < 20
    _, label = prompts.correction_clicks(truth, truth, generator())
    assert label.tolist() == [[1]]


def test_a_rough_mask_resembles_its_truth() -> None:
    masks = disc(128, (60, 50), 25).expand(8, -1, -1)
    rough = prompts.degraded_masks(masks, generator())
    overlap = (rough & masks).sum((1, 2)) / (rough | masks).sum((1, 2))
    assert (overlap > 0.5).all()
    assert (overlap < 1).all()


def test_rough_masks_are_the_same_in_mixed_precision() -> None:
    masks = disc(512).expand(3, -1, -1)
    with torch.autocast("cpu", torch.bfloat16):
        rough = prompts.degraded_masks(masks, generator())
    assert torch.equal(rough, prompts.degraded_masks(masks, generator()))


@pytest.mark.parametrize("device", DEVICES)
def test_prompts_are_where_the_masks_are_and_the_same_on_every_device(device: str) -> None:
    masks = disc(64).expand(5, -1, -1)
    drawn = {}
    for place in ("cpu", device):
        own, random = masks.to(place), generator(3)
        boxes = prompts.jittered_boxes(own, random, 0.5)
        corners, labels = prompts.box_points(boxes)
        clicks = prompts.positive_clicks(own, random, 3)
        corrections = prompts.correction_clicks(own, ~own, random)
        rough = prompts.degraded_masks(own, random)
        made = (boxes, corners, labels, *clicks, *corrections, rough.float())
        assert all(tensor.device.type == place for tensor in made)
        drawn[place] = [tensor.cpu() for tensor in made]
    for expected, got in zip(drawn["cpu"], drawn[device], strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
