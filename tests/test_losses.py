"""Losses against cases worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from napari_uniultra.training.config import LossSettings
from napari_uniultra.training.losses import (
    bce_loss,
    focal_loss,
    focal_tversky_loss,
    mask_iou,
    mask_loss,
    released_loss,
    segmentation_loss,
    soft_dice_loss,
)

SURE = 100.0
MASK_ONLY = LossSettings(iou=0.0, object_score=0.0)


def total(*arguments: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    return torch.stack(list(segmentation_loss(*arguments, settings).values())).sum()


@pytest.fixture
def random_masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and truths (5, 12, 9)."""
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(5, 12, 9, generator=generator), (torch.rand(5, 12, 9, generator=generator) < 0.3).float()


# Each loss against another implementation, or by hand


def test_soft_dice_is_monais(random_masks: tuple[torch.Tensor, torch.Tensor]) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, truth = random_masks
    expected = losses.DiceLoss(sigmoid=True, reduction="none", smooth_nr=1, smooth_dr=1)(
        logits[:, None], truth[:, None]
    )
    torch.testing.assert_close(soft_dice_loss(logits, truth), expected.flatten())


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.7, 1.0), (0.5, 0.0)])
def test_focal_is_monais(random_masks: tuple[torch.Tensor, torch.Tensor], alpha: float, gamma: float) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, truth = random_masks
    # MONAI weighs the one channel of sigmoid masks by alpha inside and 1 - alpha outside, as the paper's Eq. 5.
    expected = losses.FocalLoss(alpha=alpha, gamma=gamma, reduction="none")(logits[:, None], truth[:, None])
    torch.testing.assert_close(focal_loss(logits, truth, alpha, gamma), expected.mean(dim=(1, 2, 3)))


def test_focal_of_one_pixel_by_hand() -> None:
    # p = 0.8 inside: 0.25 (1 - 0.8)^2 ln(1 / 0.8); outside: 0.75 (0.8)^2 ln(1 / 0.2).
    logits = torch.full((2, 1, 1), math.log(4.0))
    truth = torch.tensor([1.0, 0.0]).view(2, 1, 1)
    expected = [0.25 * 0.04 * math.log(1.25), 0.75 * 0.64 * math.log(5)]
    assert focal_loss(logits, truth).tolist() == pytest.approx(expected, rel=1e-5)


def test_focal_tversky_is_monais_to_its_power(random_masks: tuple[torch.Tensor, torch.Tensor]) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, truth = random_masks
    # MONAI's alpha weighs surplus pixels and its beta missed ones.
    tversky = losses.TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, smooth_nr=1, smooth_dr=1, reduction="none")
    expected = tversky(logits[:, None], truth[:, None]).flatten() ** 0.75
    torch.testing.assert_close(focal_tversky_loss(logits, truth, 0.7, 0.75), expected)


def test_focal_tversky_heeds_missed_pixels_more() -> None:
    truth = torch.zeros(1, 4, 4)
    truth[:, :2] = 1
    missed, surplus = -SURE * torch.ones(1, 4, 4), SURE * torch.ones(1, 4, 4)
    # 8 missed: 1 - 1 / (1 + 0.7 * 8); 8 surplus: 1 - 9 / (9 + 0.3 * 8).
    assert focal_tversky_loss(missed, truth).item() == pytest.approx((1 - 1 / 6.6) ** 0.75)
    assert focal_tversky_loss(surplus, truth).item() == pytest.approx((1 - 9 / 11.4) ** 0.75)


def test_focal_tversky_has_a_slope_where_all_is_right() -> None:
    logits = torch.full((1, 4, 4), SURE, requires_grad=True)
    focal_tversky_loss(logits, torch.ones(1, 4, 4)).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_the_released_form_by_hand() -> None:
    # All logits 0: B = ln 2, 1 - exp(-B) = 1/2; Dice (2 * 2 + 1) / (2 + 4 + 1) with 4 of 4 pixels inside at p = 1/2.
    expected = 0.8 * (1 - 5 / 7) + 0.16 * 0.25 * math.log(2)
    assert released_loss(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)).item() == pytest.approx(expected)


def test_the_recipes_are_sums_of_their_parts(random_masks: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, truth = random_masks
    dice, entropy = soft_dice_loss(logits, truth), bce_loss(logits, truth)
    recipes = {
        "dice_bce": dice + entropy,
        "focal_dice": dice + 20 * focal_loss(logits, truth, 0.25, 2.0),
        "sam2lora": dice + entropy + focal_tversky_loss(logits, truth, 0.7, 0.75),
        "released": released_loss(logits, truth),
    }
    for name, expected in recipes.items():
        torch.testing.assert_close(mask_loss(logits, truth, LossSettings(mask=name)), expected)


@pytest.mark.parametrize("name", ["dice_bce", "focal_dice", "released", "sam2lora"])
def test_losses_are_fp32_under_autocast(random_masks: tuple[torch.Tensor, torch.Tensor], name: str) -> None:
    logits, truth = random_masks
    logits = logits[:, None].bfloat16()
    arguments = (torch.full((5, 1), 0.4).bfloat16(), torch.zeros(5, 1).bfloat16(), truth, LossSettings(mask=name))
    with torch.autocast("cpu", torch.bfloat16):
        terms = segmentation_loss(logits, *arguments)
    expected = segmentation_loss(logits.float(), *(x.float() for x in arguments[:3]), arguments[3])
    for term, value in expected.items():
        assert terms[term].dtype == torch.float32
        assert torch.equal(terms[term], value)


# One prediction


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
    total(logits, torch.full((1, 3), 0.5), torch.zeros(1, 1), truth, settings=MASK_ONLY).backward()
    assert logits.grad[0, 0].abs().sum() > 0
    assert logits.grad[0, 1:].abs().sum() == 0


def test_predicted_iou_of_all_masks_is_trained() -> None:
    truth = torch.ones(1, 4, 4)
    logits = torch.stack([truth * SURE, -truth * SURE], dim=1)  # true IoU 1 and 0
    settings = LossSettings(iou=1.0)
    score = torch.full((1, 1), SURE)
    sure = total(logits, torch.tensor([[1.0, 0.0]]), score, truth, settings=settings)
    wrong = total(logits, torch.tensor([[1.0, 0.6]]), score, truth, settings=settings)
    assert wrong.item() - sure.item() == pytest.approx(0.3)  # the mean of errors 0 and 0.6


def test_an_absent_object_trains_its_score_alone() -> None:
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    score = torch.zeros(1, 1, requires_grad=True)
    settings = LossSettings(object_score=1.0)
    loss = total(logits, torch.full((1, 1), 0.5), score, torch.zeros(1, 4, 4), settings=settings)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert score.grad.item() == pytest.approx(0.5)
    assert logits.grad.abs().sum() == 0


def test_sam2s_logit_for_an_absent_object_does_not_drown_the_loss() -> None:
    absent = torch.full((1, 1, 4, 4), -1024.0)
    loss = total(absent, torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 4, 4), settings=LossSettings())
    assert loss.item() < 40
