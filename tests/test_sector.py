"""The scan area: exact shapes, a real fan whose geometry is known, real linear loops, boxes that files state."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from napari_uniultra.core.sector import Fan, detect_sector, find_sector, fit_fan
from napari_uniultra.core.types import Cine
from napari_uniultra.io.readers import read_cine

FAN = Fan(apex_xy=(200.0, -40.0), radii_px=(90.0, 330.0), angles_deg=(-32.0, 32.0))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def written_on(shape_hw: tuple[int, int]) -> np.ndarray:
    """Text, a logo and a grey scale, as scanners burn them in."""
    image = Image.new("L", shape_hw[::-1])
    draw = ImageDraw.Draw(image)
    for line in range(4):
        draw.text((4, 4 + 14 * line), "CANARY^PATIENT 12:34", fill=220)
    draw.rectangle((shape_hw[1] - 14, 40, shape_hw[1] - 8, 140), fill=180)
    draw.ellipse((shape_hw[1] - 40, 4, shape_hw[1] - 22, 22), fill=255)
    return np.asarray(image)


def speckle(mask: np.ndarray, frames: int, seed: int = 0) -> np.ndarray:
    """A loop (T, H, W) uint8 of moving speckle in a mask, darker with depth, and what is written beside it."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(frames, *mask.shape)), (0, 1.2, 1.2))
    depth = np.linspace(1, 0.15, mask.shape[0])[:, None]
    values = np.clip(90 * depth * (1 + 2 * noise), 4, 255) * mask
    return np.maximum(values, written_on(mask.shape) * ~mask).astype(np.uint8)


@pytest.mark.parametrize("frames", [1, 2, 10])
def test_fan_beside_text(frames: int) -> None:
    truth = FAN.mask((320, 400))
    found = detect_sector(speckle(truth, frames))
    assert iou(found, truth) > 0.97
    assert not (found & ndimage.binary_dilation(written_on((320, 400)) > 0) & ~truth).any()


@pytest.mark.parametrize("frames", [1, 10])
@pytest.mark.parametrize("colour", [False, True])
def test_rectangle_beside_text(frames: int, colour: bool) -> None:
    truth = np.zeros((300, 400), bool)
    truth[20:280, 150:370] = True
    loop = speckle(truth, frames)
    found = detect_sector(np.stack([loop, loop // 2, loop], axis=-1) if colour else loop)
    assert iou(found, truth) > 0.98


def test_whole_picture_and_nothing() -> None:
    assert detect_sector(speckle(np.ones((200, 300), bool), 5)).mean() > 0.99
    assert detect_sector(np.zeros((3, 100, 100), np.uint8)) is None
    assert detect_sector(written_on((300, 400))[None]) is None
    assert detect_sector(np.full((1, 1, 1), 200, np.uint8)) is None


def test_geometry_of_a_fan_is_found_again() -> None:
    fan = fit_fan(FAN.mask((320, 400)), symmetric=True)
    assert fan.apex_xy == pytest.approx(FAN.apex_xy, abs=6)
    assert fan.radii_px == pytest.approx(FAN.radii_px, abs=6)
    assert fan.angles_deg == pytest.approx(FAN.angles_deg, abs=1)
    assert fit_fan(np.ones((100, 100), bool)) is None


def test_a_stated_box_is_where_it_is_looked_for() -> None:
    truth = FAN.mask((320, 400))
    loop = speckle(truth, 8)
    box = np.zeros_like(truth)
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    assert iou(find_sector(Cine(loop, sector=box)), truth) > 0.97
    loop[:, 100:] = 0  # so dark that only the near field can be seen
    np.testing.assert_array_equal(find_sector(Cine(loop, sector=box)), box)


def test_real_fan(shared_data: Path) -> None:
    folder = shared_data / "cine" / "liver_imfusion"
    cine = read_cine(folder / "video.mp4")
    known = json.loads((folder / "meta.json").read_text())["sector_geometry"]
    angles = (-known["half_opening_deg"], known["half_opening_deg"])
    truth = Fan(tuple(known["apex_xy"]), (known["short_radius_px"], known["long_radius_px"]), angles)
    assert iou(find_sector(cine), truth.mask(cine.shape_hw)) > 0.93


def test_real_linear_loop(shared_data: Path) -> None:
    folder = shared_data / "cine" / "muscle_p6_isokinetic030_01_push_01"
    cine = read_cine(folder / "video.mp4")
    x, y, width, height = json.loads((folder / "meta.json").read_text())["image_rect_xywh"]
    truth = np.zeros(cine.shape_hw, bool)
    truth[y : y + height, x : x + width] = True
    assert iou(find_sector(cine), truth) > 0.93


def test_real_structures_lie_in_the_scan_area(shared_data: Path) -> None:
    for folder in sorted((shared_data / "cine").glob("carotid_*"))[:3]:
        sector = find_sector(read_cine(folder / "frames"))
        for path in sorted((folder / "masks").iterdir())[::9]:
            with Image.open(path) as image:
                assert sector[np.asarray(image) > 0].mean() > 0.99


def test_real_box_without_the_text_in_its_corners(shared_data: Path) -> None:
    cine = read_cine(shared_data / "dicom" / "JPGLosslessP14SV1_1s_1f_8b.dcm")
    found = find_sector(cine)
    assert (found <= cine.sector).all()
    assert found.mean() < 0.5 * cine.sector.mean()
    assert found[400, 520], "the middle of the heart"
    assert not found[60:160, 20:200].any(), "the text at the top left"


# Where text and tissue are in real stills, looked up by eye: (top, bottom, left, right) in pixels.
DARK_FAN_TEXT = [(0, 59, 0, 800), (62, 256, 0, 80), (84, 104, 120, 308), (80, 215, 776, 800), (60, 82, 308, 334)]
DARK_FAN_TISSUE = [(100, 128, 360, 560), (280, 310, 455, 505), (200, 345, 320, 600)]
LINEAR_TEXT = [(0, 104, 0, 640), (345, 480, 0, 640), (130, 260, 0, 8), (130, 260, 632, 640)]
LINEAR_TISSUE = [(112, 334, 45, 595)]
LINEAR_FILE, DARK_FAN_FILE = "US1_J2KI.dcm", "pydicom_examples_palette.dcm"  # the second tells a box larger than itself


@pytest.mark.parametrize(
    "name, text, tissue",
    [(DARK_FAN_FILE, DARK_FAN_TEXT, DARK_FAN_TISSUE), (LINEAR_FILE, LINEAR_TEXT, LINEAR_TISSUE)],
)
def test_real_stills_without_tags_lose_their_text(shared_data: Path, name: str, text: list, tissue: list) -> None:
    cine = read_cine(shared_data / "dicom" / name)
    assert cine.sector is None
    found = find_sector(cine)
    for top, bottom, left, right in text:
        assert not found[top:bottom, left:right].any()
    for top, bottom, left, right in tissue:
        assert found[top:bottom, left:right].all()


def test_a_dark_fan_in_the_box_of_its_file(shared_data: Path) -> None:
    found = find_sector(read_cine(shared_data / "dicom" / "no-pixel-spacing.dcm"))
    assert not found[:60].any()
    assert not found[475:530, 175:235].any(), "the focus drawn beside the fan"
    assert found[100:500, 450:460].all()


@pytest.mark.parametrize("kind, names", [("hc18", ("000_HC", "018_HC", "066_HC", "102_2HC")), ("usgra", ("00*",))])
def test_annotated_structures_of_stills_lie_in_the_scan_area(shared_data: Path, kind: str, names: tuple) -> None:
    folder = shared_data / "still" / kind
    pictures = [path for name in names for path in sorted((folder / "images").glob(f"{name}.*"))[::10]]
    assert len(pictures) >= 4
    for path in pictures:
        with Image.open(path) as image, Image.open(next((folder / "masks").glob(f"{path.stem}.*"))) as mask:
            sector = find_sector(Cine(np.asarray(image)[None]))
            assert sector[np.asarray(mask) > 0].all(), path.stem


def test_a_bar_for_text_is_no_scan_area() -> None:
    picture = np.repeat(speckle(FAN.mask((320, 400)), 1)[..., None], 3, axis=-1)
    picture = np.concatenate([np.full((1, 50, 400, 3), (40, 80, 160), np.uint8), picture], axis=1)
    found = detect_sector(picture)
    assert not found[:50].any()
    assert iou(found[50:], FAN.mask((320, 400))) > 0.95
