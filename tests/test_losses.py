"""Losses against cases worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from napari_uniultra.training.losses import bce_loss, mask_iou, segmentation_loss, soft_dice_loss

SURE = 100.0


def test_soft_dice_of_a_half_right_mask() -> None:
    # 4 pixels, the prediction has 2, the truth has 2, one is common: Dice (2 * 1 + 1) / (2 + 2 + 1) with smoothing 1.
    logits = torch.tensor([[SURE, SURE], [-SURE, -SURE]])
    truth = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert soft_dice_loss(logits, truth).item() == pytest.approx(1 - 3 / 5)


def test_bce_of_undecided_logits_is_log_two() -> None:
    assert bce_loss(torch.zeros(3, 4, 4), torch.ones(3, 4, 4)).tolist() == pytest.approx([math.log(2)] * 3)


def test_iou_of_empty_masks_is_one() -> None:
    empty, full = torch.zeros(2, 2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)
    assert mask_iou(empty, empty).item() == 1
    assert mask_iou(empty, full).item() == 0


def test_only_the_best_of_several_masks_is_trained() -> None:
    truth = torch.zeros(1, 8, 8)
    truth[:, 2:6, 2:6] = 1
    good = (truth * 2 - 1) * 4
    logits = torch.stack([good, -good, torch.zeros_like(good)], dim=1).requires_grad_()
    segmentation_loss(logits, torch.full((1, 3), 0.5), torch.zeros(1, 1), truth).backward()
    assert logits.grad[0, 0].abs().sum() > 0
    assert logits.grad[0, 1:].abs().sum() == 0


def test_predicted_iou_of_all_masks_is_trained() -> None:
    truth = torch.ones(1, 4, 4)
    logits = torch.stack([truth * SURE, -truth * SURE], dim=1)  # true IoU 1 and 0
    sure = segmentation_loss(logits, torch.tensor([[1.0, 0.0]]), torch.full((1, 1), SURE), truth, iou_weight=1.0)
    wrong = segmentation_loss(logits, torch.tensor([[1.0, 0.6]]), torch.full((1, 1), SURE), truth, iou_weight=1.0)
    assert wrong.item() - sure.item() == pytest.approx(0.3)  # the mean of errors 0 and 0.6


def test_an_absent_object_trains_its_score_alone() -> None:
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    score = torch.zeros(1, 1, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 1), 0.5), score, torch.zeros(1, 4, 4), score_weight=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert score.grad.item() == pytest.approx(0.5)
    assert logits.grad.abs().sum() == 0


def test_sam2s_logit_for_an_absent_object_does_not_drown_the_loss() -> None:
    absent = torch.full((1, 1, 4, 4), -1024.0)
    loss = segmentation_loss(absent, torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 4, 4))
    assert loss.item() < 40
