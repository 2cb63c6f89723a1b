"""Finding a structure again after a jump: known shifts, logits by hand, the bundled model on a loop that jumps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage
from skimage.feature import match_template

from napari_uniultra.core.metrics import dice
from napari_uniultra.core.types import Cine
from napari_uniultra.io.readers import read_cine
from napari_uniultra.model.load import load_model
from napari_uniultra.model.prior import PRIOR_LOGIT, boxes_of, moved
from napari_uniultra.segment.correlation import Look
from napari_uniultra.segment.motion import MotionSearch, Seen
from napari_uniultra.segment.results import PackedMask
from napari_uniultra.segment.session import CineSession

HEIGHT, WIDTH = 240, 320
PIXEL = 320 / 256  # of the search, in pixels of the frame


def texture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH))
    smooth = ndimage.gaussian_filter(noise, 6)
    return np.interp(smooth, (smooth.min(), smooth.max()), (0, 255)).astype(np.uint8)


def disc(row: float, column: float, radius: float) -> PackedMask:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return PackedMask.pack((y - row) ** 2 + (x - column) ** 2 < radius**2)


@pytest.mark.parametrize("shift", [(30, -50), (-12, 7), (60, 90)])
def test_a_known_shift_is_found_to_a_pixel_of_the_search(shift: tuple[int, int]) -> None:
    still = texture()
    search = MotionSearch(Cine(np.stack([still, np.roll(still, shift, axis=(0, 1))])))
    found = search.displacement([Seen(0, disc(120, 150, 25))], 1)
    assert found == pytest.approx(shift, abs=1.01 * PIXEL)


def test_a_shift_in_a_frame_that_is_a_strip() -> None:
    """A pixel of the search is 8 columns long there, and 2.5 rows high."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.random((60, 2000)), (1, 6))
    tall = np.interp(smooth, (smooth.min(), smooth.max()), (0, 255)).astype(np.uint8)
    mask = np.zeros((20, 2000), bool)
    mask[5:10, 980:1020] = True
    search = MotionSearch(Cine(np.stack([tall[20:40], tall[15:35]])))
    rows, columns = search.displacement([Seen(0, PackedMask.pack(mask))], 1)
    assert rows == pytest.approx(5, abs=2.5)
    assert columns == pytest.approx(0, abs=8)


def test_what_stays_does_not_move_whatever_the_noise() -> None:
    rng = np.random.default_rng(1)
    frames = np.stack([texture() * 0.8 + rng.uniform(0, 40, (HEIGHT, WIDTH)) for _ in range(2)]).astype(np.uint8)
    assert MotionSearch(Cine(frames)).displacement([Seen(0, disc(120, 150, 25))], 1) == (0.0, 0.0)


def test_nothing_to_see_moves_nowhere() -> None:
    flat = MotionSearch(Cine(np.full((2, HEIGHT, WIDTH), 90, np.uint8)))
    assert flat.displacement([Seen(0, disc(120, 150, 25))], 1) == (0.0, 0.0)
    assert flat.displacement([Seen(0, PackedMask.pack(np.zeros((HEIGHT, WIDTH), bool)))], 1) == (0.0, 0.0)
    assert flat.displacement([], 1) == (0.0, 0.0)


def test_a_witness_that_is_sure_outvotes_one_that_is_misled() -> None:
    """The frame before shows another structure; the frame that was marked shows the one that is meant."""
    still, other = texture(), texture(5)
    frames = np.stack([still, other, np.roll(still, (20, 40), axis=(0, 1))])
    mask = disc(120, 150, 25)
    found = MotionSearch(Cine(frames)).displacement([Seen(1, mask), Seen(0, mask)], 2)
    assert found == pytest.approx((20, 40), abs=1.01 * PIXEL)


def test_logits_move_with_minus_ten_from_outside() -> None:
    logits = torch.arange(16.0).reshape(1, 4, 4)
    down = moved(logits, 0.25, -0.5)[0]
    assert down[0].tolist() == [-PRIOR_LOGIT] * 4
    assert down[1].tolist() == [2, 3, -PRIOR_LOGIT, -PRIOR_LOGIT]
    assert torch.equal(moved(logits, 0.0, 0.0), logits)
    assert torch.equal(moved(logits, 1.5, 0.0), torch.full_like(logits, -PRIOR_LOGIT))


def test_boxes_of_logits_by_hand() -> None:
    logits = torch.full((2, 1, 16, 16), -5.0)
    logits[0, 0, 4:8, 2:12] = 5.0
    corners, labels = boxes_of(logits, image_size=64, margin=0.1)
    np.testing.assert_allclose(corners[0], [[4.0, 14.4], [52.0, 33.6]], rtol=1e-6)
    assert labels.tolist() == [[2, 3], [-1, -1]]


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model("uniultra-mini", device="cpu")


def tracked(model: Any, motion_prior: bool, frames: np.ndarray, truth: np.ndarray) -> list[float]:
    session = CineSession(Cine(frames), replace(model, config=model.config.with_(motion_prior=motion_prior)))
    rows, columns = np.nonzero(truth[0])
    session.add_box(1, 0, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return [dice(step.masks[1], truth[step.frame]) for step in session.propagate()]


def test_the_bundled_model_follows_a_jump_that_it_loses_without(model: Any, repo_root: Path) -> None:
    loop = read_cine(repo_root / "sample_data" / "simulated.tif")
    masks = tifffile.imread(repo_root / "sample_data" / "simulated_masks.tif") == 2
    frames = np.stack([loop.frame(number) for number in range(5)])
    truth = masks[:5].copy()
    for stack in (frames, truth):
        stack[2:] = np.roll(stack[2:], (30, 90), axis=(1, 2))
    with_motion, without = (tracked(model, motion, frames, truth) for motion in (True, False))
    assert min(with_motion) > 0.8
    assert min(without) < 0.5


def test_an_object_that_jumps_changes_nothing_for_another_one(model: Any) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:240, :320]
    still = ((y - 80) / 55) ** 2 + ((x - 90) / 70) ** 2 < 1
    tissue = ndimage.gaussian_filter(rng.gamma(2, 1, y.shape), 1.5)
    frames = []
    for row, column in ((170, 200), (170, 200), (150, 255)):
        frame = 20 + 160 * tissue / tissue.max()
        frame[still] *= 0.25
        frame[np.hypot(y - row, x - column) < 34] = 230
        frame[np.hypot(y - row, x - column) < 28] = 20
        frames.append(frame + rng.normal(0, 4, y.shape))
    cine = Cine(np.clip(frames, 0, 255).astype(np.uint8))
    found = []
    for others in ((), ((166, 136, 234, 204),)):
        session = CineSession(cine, model)
        session.zoom = False
        for object_id, box in enumerate(((20, 25, 160, 135), *others), start=1):
            session.add_box(object_id, 0, box)
        found.append([step.masks for step in session.propagate()])
    jump = ndimage.center_of_mass(found[1][2][2])
    assert jump == pytest.approx((150, 255), abs=5), "the other one jumps"
    assert sum(np.count_nonzero(alone[1] ^ beside[1]) for alone, beside in zip(*found, strict=True)) <= 2


def test_the_correlation_is_scikit_images() -> None:
    image = ndimage.gaussian_filter(texture(3).astype(np.float32), 1)
    image[:60] = 0  # black beside the scan
    patch = image[100:160, 80:150]
    found = Look(image).correlation(patch)
    np.testing.assert_allclose(found, match_template(image, patch), atol=2e-3)
    assert np.unravel_index(found.argmax(), found.shape) == (100, 80)


def test_the_correlation_at_one_place_is_that_of_all_places() -> None:
    image = np.random.default_rng(3).rayleigh(40, (40, 50)).astype(np.float32)
    image[:12, :12] = 7.0  # flat
    look, patch = Look(image), image[20:29, 10:21]
    everywhere = look.correlation(patch)
    for row, column in ((0, 0), (20, 10), (31, 39), (5, 30)):
        assert look.correlation_at(patch, row, column) == pytest.approx(everywhere[row, column], abs=2e-3)
    assert look.correlation_at(patch, 32, 0) is None
    assert look.correlation_at(patch, 0, -1) is None


def test_of_places_alike_the_nearer_one_is_taken() -> None:
    still = texture()
    pattern = texture(7)[:60, :60]
    seen, now = texture(4), still.copy()
    seen[90:150, 60:120] = pattern
    for row, column in ((110, 85), (20, 240)):
        now[row : row + 60, column : column + 60] = pattern
    found = MotionSearch(Cine(np.stack([seen, now]))).displacement([Seen(0, disc(120, 90, 14))], 1)
    assert found == pytest.approx((20, 25), abs=2 * PIXEL)


def test_what_was_lost_is_looked_for_by_the_marked_frame() -> None:
    """The frame before took another place for the structure, and that place looks the same as ever."""
    still, pattern = texture(), texture(7)[:60, :60]
    marked, lost, now = still.copy(), still.copy(), still.copy()
    for frame, (row, column) in ((marked, (30, 60)), (lost, (30, 60)), (now, (60, 90))):
        frame[row : row + 60, column : column + 60] = pattern
    seen = [Seen(1, disc(170, 240, 25)), Seen(0, disc(60, 90, 25))]
    found = MotionSearch(Cine(np.stack([marked, lost, now]))).displacement(seen, 2)
    assert found == pytest.approx((90 - 170, 120 - 240), abs=2 * PIXEL)


def test_a_structure_that_moves_within_what_stays_is_found() -> None:
    still, pattern = texture(), texture(7)
    frames = np.stack([still, still])
    for frame, (row, column) in zip(frames, ((100, 120), (120, 150)), strict=True):
        inside = disc(row, column, 26).unpack()
        frame[inside] = np.roll(pattern, (row - 100, column - 120), axis=(0, 1))[inside]
    found = MotionSearch(Cine(frames)).displacement([Seen(0, disc(100, 120, 25))], 1)
    assert found == pytest.approx((20, 30), abs=4)  # what stays pulls a little


@pytest.mark.parametrize("shift", [(4, -6), (30, -50)])
def test_a_search_nearby_finds_what_one_everywhere_finds(shift: tuple[int, int]) -> None:
    """What has changed its look a little: the less it has, the less far it is looked for."""
    still, rng = texture(), np.random.default_rng(2)
    there = np.roll(still, shift, axis=(0, 1)) * 0.6 + still * 0.4 + rng.uniform(0, 10, still.shape)
    search = MotionSearch(Cine(np.stack([still, there.astype(np.uint8)])))
    found = search.displacement([Seen(0, disc(120, 150, 25))], 1)
    everywhere = MotionSearch(search._cine)
    everywhere._around = lambda place, reach: MotionSearch._around(everywhere, place, 400)
    assert found == everywhere.displacement([Seen(0, disc(120, 150, 25))], 1)


def test_a_part_of_an_image_correlates_as_the_whole_does() -> None:
    image = np.random.default_rng(3).rayleigh(40, (60, 70)).astype(np.float32)
    look, patch = Look(image), image[20:29, 10:21]
    part = look.part(slice(13, 42), slice(5, 40)).correlation(patch)
    np.testing.assert_allclose(part, look.correlation(patch)[13:34, 5:30], atol=2e-3)


@pytest.mark.parametrize("shape", [(600, 800), (200, 310)])
def test_small_masks_are_what_pytorch_makes_of_them(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, bool)
    mask[40:150, 60:170] = rng.random((110, 110)) > 0.4
    search = MotionSearch(Cine(np.zeros((1, *shape), np.uint8)))
    tensor = torch.from_numpy(mask.astype(np.float32))[None, None]
    expected = torch.nn.functional.interpolate(tensor, search._small_hw, mode="area")[0, 0]
    np.testing.assert_allclose(search._shrunk(mask[40:150, 60:170], (40, 60)), expected, atol=1e-6)
    np.testing.assert_allclose(search._shrunk(mask), expected, atol=1e-6)
