"""Dice, IoU, HD, HD95 and NSD against cases worked by hand, and against MONAI where both are defined."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from napari_uniultra.core.metrics import boundary, dice, hausdorff, hausdorff95, iou, nsd
from napari_uniultra.errors import UniUltraError

TOLERANCES = (0.0, 1.0, 2.5)


def rectangle(rows: slice, columns: slice, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def test_two_squares_that_share_half() -> None:
    one, two = rectangle(slice(0, 10), slice(0, 10)), rectangle(slice(0, 10), slice(5, 15))
    assert dice(one, two) == pytest.approx(0.5)
    assert iou(one, two) == pytest.approx(50 / 150)
    assert dice(one, two, smooth=1) == pytest.approx(101 / 201)
    assert iou(one, two, smooth=1) == pytest.approx(51 / 151)
    assert hausdorff(one, two) == 5


def test_a_shifted_mask_is_as_far_as_its_shift() -> None:
    one, two = rectangle(slice(10, 30), slice(10, 30)), rectangle(slice(13, 33), slice(14, 34))
    assert hausdorff(one, two) == pytest.approx(5)  # (3, 4): from corner to corner
    assert hausdorff(one, two, (0.5, 0.25)) == pytest.approx(math.hypot(1.5, 1.0))
    assert hausdorff(two, one, (0.5, 0.25)) == pytest.approx(math.hypot(1.5, 1.0))


def test_a_far_pixel_counts_for_hd_and_hardly_for_hd95() -> None:
    truth = rectangle(slice(10, 40), slice(10, 40))
    spotted = truth.copy()
    spotted[25, 69] = True  # 30 px from the square's right side, one of 117 boundary pixels
    assert hausdorff(spotted, truth) == 30
    assert hausdorff95(spotted, truth) == 0


def test_nsd_by_hand() -> None:
    one, two = rectangle(slice(5, 6), slice(0, 10)), rectangle(slice(7, 8), slice(0, 10))  # two lines, 2 px apart
    assert nsd(one, two, tolerance=1.9) == 0
    assert nsd(one, two, tolerance=2) == 1
    assert nsd(one, two, tolerance=0.2, spacing=(0.1, 5)) == 1
    half = rectangle(slice(5, 6), slice(0, 5))
    assert nsd(half, one, tolerance=0) == pytest.approx((5 + 5) / (5 + 10))


def test_the_same_mask_is_perfect() -> None:
    mask = rectangle(slice(3, 20), slice(7, 70))
    assert dice(mask, mask) == iou(mask, mask) == nsd(mask, mask, tolerance=0) == 1
    assert hausdorff(mask, mask) == hausdorff95(mask, mask) == 0


def test_empty_masks_follow_the_stated_conventions() -> None:
    empty, mask = np.zeros((60, 80), bool), rectangle(slice(0, 5), slice(0, 5))
    assert dice(empty, empty) == iou(empty, empty) == nsd(empty, empty, tolerance=0) == 1
    assert hausdorff(empty, empty) == hausdorff95(empty, empty) == 0
    for one, two in ((empty, mask), (mask, empty)):
        assert dice(one, two) == iou(one, two) == nsd(one, two, tolerance=100) == 0
        assert hausdorff(one, two) == hausdorff95(one, two) == math.inf


def test_boundaries_are_pixels_that_touch_the_outside() -> None:
    assert boundary(rectangle(slice(10, 20), slice(10, 20))).sum() == 36
    assert boundary(np.ones((4, 6), bool)).sum() == 16, "the image's edge is an outside"
    ring = rectangle(slice(10, 15), slice(10, 15))
    ring[12, 12] = False
    assert boundary(ring).sum() == 16 + 4


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(UniUltraError, match=r"\(60, 80\) and \(60, 81\)"):
        dice(np.zeros((60, 80), bool), np.zeros((60, 81), bool))


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two rough, related masks that may have several parts, holes, and touch the image's edge."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(20, 70)), int(rng.integers(20, 70)))
    field, other = (ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(1, 5)) for _ in range(2))
    level = np.quantile(field, rng.uniform(0.3, 0.95))
    return field > level, field + rng.uniform(0, 1) * other > level


def check_against_monai(one: np.ndarray, two: np.ndarray, spacing: tuple[float, float]) -> None:
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    first, second = (torch.from_numpy(mask.copy())[None, None].float() for mask in (one, two))
    plain = {"include_background": True}
    near = {"abs": 1e-4, "rel": 1e-5}  # MONAI computes in float32
    assert dice(one, two) == pytest.approx(float(monai.compute_dice(first, second, **plain)), **near)
    assert iou(one, two) == pytest.approx(float(monai.compute_iou(first, second, **plain)), **near)
    for percentile, ours in ((None, hausdorff), (95, hausdorff95)):
        theirs = monai.compute_hausdorff_distance(first, second, percentile=percentile, spacing=spacing, **plain)
        assert ours(one, two, spacing) == pytest.approx(float(theirs), **near)
    for tolerance in TOLERANCES:
        tolerance *= spacing[0] * 1.0001  # not exactly a distance, which float32 may miss
        theirs = monai.compute_surface_dice(first, second, [tolerance], spacing=spacing, **plain)
        assert nsd(one, two, tolerance, spacing) == pytest.approx(float(theirs), **near)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.31, 0.17)])
@pytest.mark.parametrize("seed", range(20))
def test_random_masks_as_monai(seed: int, spacing: tuple[float, float]) -> None:
    one, two = blobs(seed)
    assert one.any(), "nothing to compare"
    assert two.any(), "nothing to compare"
    check_against_monai(one, two, spacing)


@pytest.mark.parametrize("case", ["still/hc18/masks/060_HC.png", "still/usgra/masks/0008.png"])
def test_real_masks_as_monai(case: str, shared_data: Path) -> None:
    with Image.open(shared_data / case) as image:
        truth = np.asarray(image) > 0
    moved = ndimage.binary_erosion(ndimage.shift(truth, (3, -5), order=0), iterations=2)
    check_against_monai(moved, truth, (0.0883, 0.12))
