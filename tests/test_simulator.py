"""The ultrasound simulator: speckle, exact masks under motion, attenuation, shadows, variety, determinism."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_uniultra.training.data.pool import SimulatedPool
from napari_uniultra.training.data.simulate import (
    Scene,
    draw_scene,
    render,
    simulate_clip,
    simulate_clips,
    simulate_still,
    simulate_stills,
)
from napari_uniultra.training.data.simulate_anatomy import (
    MAX_DROPOUTS,
    MAX_EDGES,
    MAX_STRUCTURES,
    Structure,
    Tissue,
    _muscles,
    noise_grid,
)
from napari_uniultra.training.data.simulate_batches import SimulatedPart
from napari_uniultra.training.data.simulate_motion import Motion, draw_motion, moved
from napari_uniultra.training.data.simulate_scan import Beams, Scanner, pixel_centres, smoothed, smoothing
from napari_uniultra.training.data.simulate_screen import BLACK, Mark, Screen, draw_screen, painted
from napari_uniultra.training.data.smooth_noise import smooth_noise

NEPER_DB = 20 / math.log(10)
RANGE_DB = 100.0  # of the plain scanner: wide, so that nothing is clipped away
LINEAR = Scanner(
    is_sector=False, left=0, right=1, top=0, bottom=1, apex_x=0.5, apex_y=-0.3, half_angle=0.7, near=0.3, far=1.3,
    axial=1 / 256, lateral=2 / 256, dynamic_range_db=RANGE_DB, gamma=1, gain=0.9, offset=0, blur=0,
)  # fmt: skip
SECTOR = replace(LINEAR, is_sector=True)
PLAIN = Tissue(
    edges=np.full(MAX_EDGES, np.inf), values=np.zeros(MAX_EDGES + 1), lines=np.zeros(MAX_EDGES),
    widths=np.ones(MAX_EDGES), wave=0, slope=0, fibres=0, fibre_pitch=1, fibre_slope=0, fibre_gap=0, mottle=0,
    attenuation=0, clutter=0, unevenness=0, dropouts=np.tile([0.0, 1, 0, 0], (MAX_DROPOUTS, 1)), noise={},
)  # fmt: skip


def motion(frames: int, shift: tuple[float, float] = (0, 0)) -> Motion:
    """The same shift in all frames but the first, in shares of the picture's side."""
    shifts = np.tile(shift, (frames, 1)) * (np.arange(frames) > 0)[:, None]
    still = np.zeros((frames, 2))
    return Motion(shifts, still[:, 0], still, still[:, 0], 0.0, np.zeros((2, 5, 5), np.float32))


def scene(*structures: Structure, scanner: Scanner = LINEAR, tissue: Tissue = PLAIN, moving: Motion | None = None):
    return Scene(scanner, tissue, list(structures), moving or motion(1), decorrelation=0.0)


def disc(x: float, y: float, radius: float, size: int) -> np.ndarray:
    columns, rows = ((axis[0].numpy()) for axis in pixel_centres(1, size, 1.0, "cpu"))
    return np.hypot(columns - x, rows - y) < radius


def decibels(image: torch.Tensor) -> np.ndarray:
    return image.numpy().astype(float) / 255 / LINEAR.gain * RANGE_DB


# Speckle


@pytest.mark.parametrize("scanner", [LINEAR, replace(LINEAR, axial=0.6 / 256, lateral=3.5 / 256)])
def test_fully_developed_speckle_has_a_rayleigh_envelope(scanner: Scanner) -> None:
    beams = Beams([scanner] * 8, 256, "cpu")
    field = torch.randn(8, 2, 256, 256, generator=torch.Generator().manual_seed(0))
    envelope = beams.envelope(field[:, 0], field[:, 1])
    ratio = float(envelope.mean() / envelope.std())
    assert ratio == pytest.approx(math.sqrt(math.pi / (4 - math.pi)), abs=0.03)  # 1.91
    assert float(envelope.square().mean() / envelope.mean() ** 2) == pytest.approx(4 / math.pi, abs=0.02)


def test_rendered_homogeneous_tissue_has_the_spread_of_log_compressed_speckle() -> None:
    made = render([scene(Structure(x=-5))], 1, 256, "cpu", [[1]])
    assert decibels(made.images[0, 0]).std() == pytest.approx(5.57, abs=0.25)  # dB, of any Rayleigh envelope


def test_the_point_spread_function_is_as_wide_as_stated_along_each_axis() -> None:
    beams = Beams([LINEAR], 256, "cpu")
    point = torch.zeros(1, 256, 256)
    point[0, 128, 128] = 1
    seen = beams.envelope(point, torch.zeros_like(point))[0]
    away = torch.arange(256) - 128
    for axis, sigma in ((1, 1.0), (0, 2.0)):  # summed over columns: the axial profile
        profile = seen.sum(dim=axis)
        assert float((profile * away**2).sum() / profile.sum()) == pytest.approx(sigma**2, rel=0.02)


def test_smoothing_keeps_power_or_mean_up_to_the_edge() -> None:
    noise = torch.randn(1, 400, 64, 64, generator=torch.Generator().manual_seed(0))
    bands = smoothing([3.0], 64, "cpu", unit_power=True)
    made = smoothed(noise, bands, bands)
    assert float(made.var()) == pytest.approx(1, abs=0.03)
    assert float(made[..., :2, :].var()) == pytest.approx(1, abs=0.06)
    bands = smoothing([3.0], 64, "cpu")
    assert torch.allclose(smoothed(torch.ones(1, 1, 64, 64), bands, bands), torch.ones(1, 1, 64, 64), atol=1e-5)


def test_smooth_noise_has_unit_variance_and_does_not_depend_on_its_batch() -> None:
    rng = np.random.default_rng(0)
    grids = [rng.standard_normal((cells + 3, cells + 3)).astype(np.float32) for cells in (5, 40, 20)]
    made = smooth_noise(grids, 128, "cpu")
    assert float(made[1].var()) == pytest.approx(1, abs=0.15)
    assert torch.allclose(made[2], smooth_noise(grids[2:], 128, "cpu")[0], atol=1e-5)


# Geometry and motion


@pytest.mark.parametrize("scanner", [LINEAR, SECTOR, replace(LINEAR, left=0.1, bottom=0.8)])
def test_beam_coordinates_go_there_and_back(scanner: Scanner) -> None:
    beams = Beams([scanner], 32, "cpu")
    across, depth = pixel_centres(1, 32, 1.2, "cpu")
    depth = depth.clamp(min=0)
    back = beams.to_beams(*beams.to_picture(across, depth))
    assert torch.allclose(back[0], across, atol=1e-5)
    assert torch.allclose(back[1], depth, atol=1e-5)


@pytest.mark.parametrize("scanner", [LINEAR, SECTOR])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.09375, -0.125), (0.0711, 0.0333)])
def test_masks_follow_their_tissue_exactly(scanner: Scanner, shift: tuple[float, float]) -> None:
    size, radius = 128, 0.15
    ball = Structure(x=0.5, y=0.5, radius=radius, contrast=-2)
    made = render([scene(ball, scanner=scanner, moving=motion(2, shift))], 2, size, "cpu", [[0]])
    for frame, (dx, dy) in enumerate(((0, 0), shift)):
        expected = disc(0.5 + dx, 0.5 + dy, radius, size)
        wrong = made.masks[0, frame, 0].numpy() != expected
        assert wrong.sum() <= 0.01 * expected.sum()
        # What differs lies within a pixel of the border.
        inner, outer = (disc(0.5 + dx, 0.5 + dy, radius + d / size, size) for d in (-1, 1))
        assert not wrong[inner].any()
        assert not wrong[~outer].any()


def test_scatterers_move_with_the_tissue() -> None:
    size, rows, columns = 128, 16, -8
    moving = motion(2, (columns / size, rows / size))
    made = render([scene(Structure(x=0.5, y=0.5, contrast=-2), moving=moving)], 2, size, "cpu", [[0]])
    first, second = made.images[0, 0].int(), made.images[0, 1].int()
    inside = first[30:90, 30:90]
    assert (second[30 + rows : 90 + rows, 30 + columns : 90 + columns] - inside).abs().max() <= 2
    assert (second[30:90, 30:90] - inside).abs().float().mean() > 10  # elsewhere it is another speckle


def test_blood_changes_its_speckle_and_tissue_keeps_it() -> None:
    ball = Structure(x=0.5, y=0.5, radius=0.2, keep=1.0, blood=1.0, sharpness=60)
    made = render([scene(ball, moving=motion(2))], 2, 128, "cpu", [[0]])
    change = (made.images[0, 0].int() - made.images[0, 1].int()).abs().float()
    assert change[disc(0.5, 0.5, 0.15, 128)].mean() > 10
    assert change[~disc(0.5, 0.5, 0.25, 128)].max() <= 1


def test_a_pulse_changes_the_area_by_the_square_of_its_size() -> None:
    at_rest = motion(2)
    pulsing = replace(at_rest, beat=np.array([0, 0.5]), centre=(0.5, 0.5), reach=10.0, pulse=0.2)
    made = render([scene(Structure(x=0.5, y=0.5, radius=0.2), moving=pulsing)], 2, 256, "cpu", [[0]])
    areas = made.masks[0, :, 0].float().sum(dim=(1, 2))
    assert float(areas[1] / areas[0]) == pytest.approx(1 / (1 - 0.5 * 0.2) ** 2, rel=0.01)


def test_a_structure_may_leave_the_picture() -> None:
    ball = Structure(x=0.9, y=0.5, radius=0.06, contrast=-2)
    made = render([scene(ball, moving=motion(2, (0.2, 0.0)))], 2, 64, "cpu", [[0]])
    assert made.masks[0, 0, 0].any()
    assert not made.masks[0, 1, 0].any()


def test_drawn_motion_starts_at_rest_and_differs() -> None:
    for seed in range(20):
        drawn = draw_motion(np.random.default_rng(seed), 6)
        assert not drawn.shift[0].any()
        assert drawn.turn[0] == drawn.beat[0] == 0
    jumps = [np.abs(np.diff(draw_motion(np.random.default_rng(s), 8).shift, axis=0)).max() for s in range(60)]
    assert min(jumps) < 0.02
    assert max(jumps) > 0.15


def test_a_still_moves_as_its_motion_says() -> None:
    ramp = torch.arange(32.0).expand(32, 32)[None]
    loop = moved(ramp, motion(3, (-3 / 32, 0)), 3)
    assert torch.equal(loop[0], ramp)
    assert torch.allclose(loop[2, 0, :, 5], torch.full((32,), 8.0), atol=1e-3)


# What the probe does


def test_attenuation_with_depth_is_as_stated() -> None:
    tissue = replace(PLAIN, attenuation=2.0)
    made = render([scene(Structure(x=-5), tissue=tissue)], 1, 256, "cpu", [[0]])
    by_depth = decibels(made.images[0, 0]).mean(axis=1)
    loss = by_depth[48:80].mean() - by_depth[176:208].mean()  # half of the depth apart
    assert loss == pytest.approx(1.0 * NEPER_DB, abs=0.6)


@pytest.mark.parametrize("gain", [-2.0, 1.0])
def test_shadow_and_enhancement_below_a_structure_are_as_stated(gain: float) -> None:
    ball = Structure(x=0.5, y=0.3, radius=0.12, keep=1.0, behind=gain)
    made = render([scene(ball)], 1, 256, "cpu", [[0]])
    image = decibels(made.images[0, 0])
    below, beside, above = image[140:230, 120:136], image[140:230, 20:60], image[5:40, 120:136]
    assert below.mean() - beside.mean() == pytest.approx(gain * NEPER_DB, abs=0.8)
    assert above.mean() - image[5:40, 20:60].mean() == pytest.approx(0, abs=0.8)


def test_shadows_in_a_sector_follow_the_beams() -> None:
    ball = Structure(x=0.7, y=0.3, radius=0.05, keep=1.0, behind=-4.0)
    made = render([scene(ball, scanner=SECTOR)], 1, 256, "cpu", [[0]])
    image = decibels(made.images[0, 0])

    def around(x: float, y: float) -> float:
        return image[int(y * 256) - 8 : int(y * 256) + 8, int(x * 256) - 8 : int(x * 256) + 8].mean()

    x, y = (apex + 1.8 * (at - apex) for apex, at in ((SECTOR.apex_x, ball.x), (SECTOR.apex_y, ball.y)))
    assert around(x, y) < around(1 - x, y) - 10  # the beam through the ball, and its mirror image
    assert around(ball.x, y) > around(x, y) + 10  # straight below the ball another beam passes


def test_what_lies_outside_the_scan_is_black_and_has_no_mask() -> None:
    big = Structure(x=0.5, y=0.5, radius=0.9, aspect=1.0, contrast=1.0)
    for scanner in (SECTOR, replace(LINEAR, left=0.1, right=0.9, top=0.1, bottom=0.8)):
        made = render([scene(big, scanner=scanner)], 1, 128, "cpu", [[0]])
        image, mask = made.images[0, 0], made.masks[0, 0, 0]
        assert not image[:8, :8].any()
        assert not mask[:8, :8].any()
        assert (image[mask] > 0).float().mean() > 0.99


def test_later_structures_cover_earlier_ones_and_hidden_ones_are_no_targets() -> None:
    lower = Structure(x=0.45, y=0.5, radius=0.1, contrast=-1)
    upper = Structure(x=0.55, y=0.5, radius=0.1, contrast=-2)
    over = Structure(x=0.45, y=0.5, radius=0.2, contrast=1, is_target=False)
    made = render([scene(lower, upper), scene(lower, over), scene(lower, replace(over, hides=False))], 1, 128, "cpu",
                  [[0], [1], [2]])  # fmt: skip
    assert not (made.masks[0, 0, 0] & made.masks[0, 0, 1]).any()
    assert made.targets.tolist() == [[True, True], [False, False], [True, False]]


# Whole scenes


def test_stills_have_structures_of_some_size() -> None:
    made = simulate_stills(range(12), size=96)
    assert made.images.shape == (12, 1, 96, 96)
    assert made.images.dtype == torch.uint8
    assert made.masks.dtype == torch.bool
    for image, masks, count in zip(made.images[:, 0], made.masks[:, 0], made.counts, strict=True):
        assert 1 <= count <= MAX_STRUCTURES
        assert all(mask.float().mean() > 0.001 for mask in masks[:count])
        assert not masks[count:].any()
        assert image.float().std() > 3


def test_the_seed_decides_everything_whatever_else_is_in_the_batch() -> None:
    together = simulate_clips([7, 8, 9], frames=3, size=64)
    alone = simulate_clips([8], frames=3, size=64)
    count = int(alone.counts[0])
    assert int(together.counts[1]) == count
    assert torch.equal(together.images[1], alone.images[0])
    assert torch.equal(together.masks[1, :, :count], alone.masks[0])
    assert not torch.equal(together.images[0], together.images[1])
    images, masks = simulate_clip(8, 3, 64)
    assert np.array_equal(images, alone.images[0].numpy())
    assert np.array_equal(masks, alone.masks[0].numpy())


def test_scenes_rendered_at_once_equal_those_rendered_alone() -> None:
    scenes = [draw_scene(np.random.default_rng(seed), 2) for seed in range(5)]
    seeds = [[seed] for seed in range(5)]
    at_once = render(scenes, 2, 64, "cpu", seeds)
    for index in range(5):
        alone = render(scenes[index : index + 1], 2, 64, "cpu", seeds[index : index + 1])
        assert (at_once.images[index].int() - alone.images[0].int()).abs().max() <= 1
        assert (at_once.masks[index, :, : alone.masks.shape[2]] != alone.masks[0]).float().mean() < 1e-4


def test_a_still_is_a_clip_of_one_frame() -> None:
    image, masks = simulate_still(5, size=64)
    images, clip_masks = simulate_clip(5, frames=1, size=64)
    assert np.array_equal(image, images[0])
    assert np.array_equal(masks, clip_masks[0])


def test_frames_further_apart_differ_more() -> None:
    near, far = (simulate_clips(range(10), frames=3, size=64, every=every) for every in (1, 4))
    assert near.images.shape == far.images.shape
    overlap = [
        float((made.masks[:, 0, 0] & made.masks[:, 2, 0]).sum() / (made.masks[:, 0, 0] | made.masks[:, 2, 0]).sum())
        for made in (near, far)
    ]
    assert overlap[0] > overlap[1] + 0.05


def test_scenes_are_varied() -> None:
    scenes = [draw_scene(np.random.default_rng(seed), 1) for seed in range(300)]
    targets = [[s for s in drawn.structures if s.is_target] for drawn in scenes]
    assert {len(found) for found in targets} >= {1, 2, 3, 4, 5}
    structures = [s for found in targets for s in found]
    assert 0.1 < np.mean([s.is_strip for s in structures]) < 0.4
    assert 0.3 < np.mean([drawn.scanner.is_sector for drawn in scenes]) < 0.6
    assert any(not s.is_target and s.behind < -2 for drawn in scenes for s in drawn.structures)  # bone and gas
    assert any(abs(s.pulse) > 0.1 for s in structures)  # hearts
    radii = [s.radius for s in structures if not s.is_strip]
    assert np.quantile(radii, 0.05) < 0.06
    assert np.quantile(radii, 0.95) > 0.3


def test_a_part_made_on_the_device_follows_from_its_seed() -> None:
    part = SimulatedPart(count=3, frames=2, size=64, seed=11)
    (images, masks), again = part.make("cpu"), part.make("cpu")
    assert images.shape == masks.shape == (3, 2, 64, 64)
    assert masks[:, 0].flatten(1).any(dim=1).all()
    assert torch.equal(images, again[0])
    assert torch.equal(masks, again[1])
    assert not torch.equal(images, replace(part, seed=12).make("cpu")[0])


def test_some_loops_made_on_the_device_show_something_else_on_one_frame() -> None:
    part = SimulatedPart(count=60, frames=3, size=64, seed=11)
    images, masks = torch.zeros(60, 3, 64, 64, dtype=torch.uint8), torch.ones(60, 3, 64, 64, dtype=torch.bool)
    images, masks = part._interrupted(np.random.default_rng(2), images, masks)
    gone = ~masks.flatten(2).any(dim=2)
    assert 0 < gone.sum() < 15
    assert not gone[:, 0].any()
    assert gone.sum(dim=1).max() == 1
    assert torch.equal(images.flatten(2).any(dim=2), gone)


def test_the_pool_gives_the_same_from_disk_and_repairs_damage(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("napari_uniultra.training.data.pool.STILL_SIDE", 64)
    made = SimulatedPool(tmp_path).still(4)
    stored = SimulatedPool(tmp_path).still(4)
    assert np.array_equal(made[0], stored[0])
    assert np.array_equal(made[1], stored[1])
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for left in (100, 0):
        file.write_bytes(whole[:left])
        repaired = SimulatedPool(tmp_path).still(4)
        assert np.array_equal(made[1], repaired[1])
        assert file.read_bytes() == whole


def test_muscles_lie_on_one_another_from_side_to_side() -> None:
    for seed in range(20):
        muscles = [replace(muscle, tilt=0.0, bend=0.0, taper=0.0) for muscle in _muscles(np.random.default_rng(seed))]
        masks = render([scene(*muscles)], 1, 96, "cpu", [[seed]]).masks[0, 0].numpy()
        assert masks.sum(axis=0).max() == 1
        for mask in masks[[mask.any() for mask in masks]]:
            assert mask.any(axis=0).all()
        tops = [np.nonzero(mask)[0].min() for mask in masks if mask.any()]
        assert tops == sorted(tops)


def test_dark_spots_darken_a_structure() -> None:
    nerve = Structure(radius=0.3, keep=1.0, noise={"spots": noise_grid(np.random.default_rng(0), 20)}, spot_level=0.2)
    middle = disc(0.5, 0.5, 0.25, 128)
    plain, spotted = (
        decibels(render([scene(replace(nerve, spots=each))], 1, 128, "cpu", [[0]]).images[0, 0])[middle]
        for each in (0.0, -1.5)
    )
    share = (spotted < plain - 3).mean()
    assert 0.2 < share < 0.6  # 42 % of a normal noise lie above 0.2
    assert np.median(np.abs(spotted - plain)) < 12


def test_what_a_screen_shows_lies_around_the_scan_alone() -> None:
    everywhere = Screen(0.2, (Mark(0.0, 0.0, 1.0, 1.0, np.ones((1, 1))),))
    narrow = replace(LINEAR, left=0.25, right=0.75, top=0.1, bottom=0.9)
    plain = scene(Structure(radius=0.1), scanner=narrow)
    without, grey, white = (
        render([replace(plain, screen=screen)], 1, 80, "cpu", [[3]]).images[0, 0].numpy()
        for screen in (BLACK, Screen(0.2), everywhere)
    )
    scan = np.zeros((80, 80), bool)
    scan[8:72, 20:60] = True
    for picture, around in ((without, 0), (grey, 51), (white, 255)):
        assert np.array_equal(picture[scan], without[scan])
        assert (picture[~scan] == around).all()


def test_marks_that_stick_out_are_cut_off() -> None:
    checks = np.array([[1.0, 0.0], [0.0, 1.0]])
    picture = painted([Screen(0.0, (Mark(-0.25, 0.75, 0.5, 0.5, checks),))], 8)[0].numpy()
    # Of the 4 x 4 pixels of 2 x 2 checks, the right half is seen, and the upper half of that: the upper right check.
    assert not picture.any()
    expected = np.zeros((8, 8), np.uint8)
    picture = painted([Screen(0.0, (Mark(-0.25, 0.75, 0.5, 0.5, 1 - checks),))], 8)[0].numpy()
    expected[6:, :2] = 255
    assert np.array_equal(picture, expected)
    drawn = [draw_screen(np.random.default_rng(seed)) for seed in range(60)]
    assert painted(drawn, 64).flatten(1).any(dim=1).float().mean() < 0.6
