"""Masks, measurements and pictures: what was written is what is read back, by us and by others."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from napari_uniultra.core.measure import CycleMeasurement, MaskShape, Measurement
from napari_uniultra.core.palette import colour_of
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import WriteError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.writers import (
    write_contact_sheet,
    write_cycles_csv,
    write_masks_tiff,
    write_measurements_csv,
    write_overlay_video,
)
from napari_uniultra.io.writers.overlay import draw_masks

TIMES = np.array([0, 0.04, 0.10, 0.11, 0.30])


def labels(frames: int = 5, dtype: type = np.uint8) -> np.ndarray:
    masks = np.zeros((frames, 45, 61), dtype)
    for frame in range(frames):
        masks[frame, 10:30, 10 + frame : 30 + frame] = 1
        masks[frame, 20:40, 40:55] = 2
    return masks


def cine(**changes: object) -> Cine:
    return Cine(np.random.default_rng(0).integers(0, 256, (5, 45, 61), dtype=np.uint8), **changes)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.int64])
def test_masks_come_back(dtype: type, tmp_path: Path) -> None:
    masks = labels(dtype=dtype)
    write_masks_tiff(tmp_path / "masks.tif", masks, (0.3, 0.2), np.arange(5) * 0.04)
    back = read_cine(tmp_path / "masks.tif")
    np.testing.assert_array_equal(np.asarray(back.frames), masks)
    assert back.spacing_mm == pytest.approx((0.3, 0.2), rel=1e-6)
    np.testing.assert_allclose(back.frame_times_s, np.arange(5) * 0.04)
    with tifffile.TiffFile(tmp_path / "masks.tif") as file:
        assert file.is_imagej
        assert file.series[0].axes == "TYX"
        assert file.imagej_metadata["unit"] == "mm"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "masks.tif"))), masks)


def test_labels_above_255_are_kept(tmp_path: Path) -> None:
    masks = labels(dtype=np.int32) * 300
    write_masks_tiff(tmp_path / "masks.tif", masks)
    back = tifffile.imread(tmp_path / "masks.tif")
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, masks)


def test_unknown_scale_stays_unknown(tmp_path: Path) -> None:
    write_masks_tiff(tmp_path / "masks.tif", labels(), None, TIMES)  # unevenly spaced: no single interval
    back = read_cine(tmp_path / "masks.tif")
    assert (back.spacing_mm, back.frame_times_s) == (None, None)


@pytest.mark.parametrize("shape", [(1, 45, 61), (5, 45, 3), (3, 45, 61), (4, 2, 2)])
def test_unusual_shapes_of_masks(shape: tuple[int, ...], tmp_path: Path) -> None:
    masks = (np.arange(np.prod(shape)) % 3).astype(np.uint8).reshape(shape)
    write_masks_tiff(tmp_path / "masks.tif", masks, (0.3, 0.2))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "masks.tif").reshape(shape), masks)


def test_very_large_masks_become_ome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_uniultra.io.writers.masks._IMAGEJ_BYTES", 0)
    write_masks_tiff(tmp_path / "masks.tif", labels(), (0.3, 0.2), np.arange(5) * 0.04)
    back = read_cine(tmp_path / "masks.tif")
    np.testing.assert_array_equal(np.asarray(back.frames), labels())
    assert back.spacing_mm == pytest.approx((0.3, 0.2))
    np.testing.assert_allclose(back.frame_times_s, np.arange(5) * 0.04)


@pytest.mark.parametrize(
    "masks", [np.zeros((4, 4), int), np.zeros((2, 4, 4)), -labels(dtype=int), labels(dtype=int) * 40000]
)
def test_what_is_no_mask_is_refused(masks: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        write_masks_tiff(tmp_path / "masks.tif", masks)
    assert list(tmp_path.iterdir()) == []


def rows(unit: str = "mm2") -> list[Measurement]:
    shape = MaskShape(3.0, 4.5, 0.5, 2.25, None, 1.125, True)
    return [
        Measurement(0, 0.0, 1, 'lumen, "left"', 12.34567, unit, 0.9, 3.5, shape, -0.5),
        Measurement(1, None, 2, "Füßchen", 0.0, unit, None, None),
    ]


def test_measurements(tmp_path: Path) -> None:
    write_measurements_csv(tmp_path / "m.csv", rows())
    with (tmp_path / "m.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    columns = ["frame", "time_s", "object_id", "object", "area_mm2", "predicted_iou", "object_score"]
    columns += ["perimeter_mm", "longest_diameter_mm", "perpendicular_diameter_mm", "equivalent_diameter_mm"]
    columns += ["ellipse_circumference_mm", "thickness_mm", "area_change_percent", "cut_by_border"]
    assert [list(row.values()) for row in table] == [
        ["0", "0", "1", 'lumen, "left"', "12.3457", "0.9", "3.5", "3", "4.5", "0.5", "2.25", "", "1.125", "-50", "1"],
        ["1", "", "2", "Füßchen", "0", "", "", *[""] * 8],
    ]
    assert list(table[0]) == columns
    write_measurements_csv(tmp_path / "m.csv", rows("px"))
    header = (tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.split(",") == [column.replace("mm2", "px").replace("mm", "px") for column in columns]
    with pytest.raises(WriteError, match="some are in mm2 and some in pixels"):
        write_measurements_csv(tmp_path / "m.csv", rows() + rows("px"))


def test_cycles(tmp_path: Path) -> None:
    cycle = CycleMeasurement(1, "lv", 2, 9, 80.0, 360.0, 30.0, 18.0, 0.4, 120.0, 48.0, 0.6)
    bare = CycleMeasurement(1, "lv", 2, 9, None, None, 30.0, 18.0, 0.4, None, None, None)
    write_cycles_csv(tmp_path / "c.csv", [cycle, bare], in_mm=True)
    lines = (tmp_path / "c.csv").read_text(encoding="utf-8").splitlines()
    assert lines == [
        "object_id,object,ed_frame,es_frame,ed_time_ms,es_time_ms,ed_area_mm2,es_area_mm2,"
        "fractional_area_change_percent,ed_volume_ml,es_volume_ml,ejection_fraction_percent",
        "1,lv,2,9,80,360,30,18,40,120,48,60",
        "1,lv,2,9,,,30,18,40,,,",
    ]
    write_cycles_csv(tmp_path / "c.csv", [], in_mm=False)
    assert "ed_area_px,es_area_px" in (tmp_path / "c.csv").read_text(encoding="utf-8")


def test_names_are_no_formulas_for_a_spreadsheet(tmp_path: Path) -> None:
    row = Measurement(0, None, 1, '=HYPERLINK("http://x")', 1.0, "px", object_score=-3.5)
    write_measurements_csv(tmp_path / "m.csv", [row])
    with (tmp_path / "m.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.reader(file))[1]
    assert cells[3] == '\'=HYPERLINK("http://x")'
    assert cells[6] == "-3.5"


def test_drawing_by_hand() -> None:
    mask = np.zeros((5, 5), int)
    mask[1:4, 1:4] = 1
    picture = draw_masks(np.full((5, 5), 100, np.uint8), mask)
    edge = mask.astype(bool)
    edge[2, 2] = False
    assert (picture[edge] == colour_of(1)).all()
    assert (picture[mask == 0] == 100).all()
    assert picture[2, 2].tolist() == [round(0.75 * 100 + 0.25 * channel) for channel in colour_of(1)]


@pytest.mark.parametrize(
    ("changes", "fps", "times"),
    [
        ({"frame_times_s": TIMES}, None, TIMES),
        ({"frame_times_s": TIMES}, 10, np.arange(5) / 10),
        ({}, None, np.arange(5) / 20),
        ({"frame_times_s": np.zeros(5)}, None, np.arange(5) / 20),
        ({"frame_times_s": [0, 0.1, 0.1, 0.1, 0.2]}, None, [0, 0.1, 0.1, 0.1, 0.2]),
    ],
)
def test_overlay_video(changes: dict, fps: float | None, times: np.ndarray, tmp_path: Path) -> None:
    loop = cine(**changes)
    write_overlay_video(tmp_path / "overlay.mp4", loop, labels(), {1: "lumen"}, fps)
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 62, 46)  # even sizes
        frames = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
    np.testing.assert_allclose([time for time, _ in frames], times, atol=1e-4)
    inside = draw_masks(loop.frame(4), labels()[4])[25:35, 42:53].astype(float)
    difference = np.abs(frames[4][1][25:35, 42:53] - inside)
    assert difference.mean() < 30  # lossy, but the right frame


def test_contact_sheet(tmp_path: Path) -> None:
    loop = Cine(np.full((30, 400, 640, 3), 90, np.uint8), frame_times_s=np.arange(30) / 25)
    masks = np.zeros((30, 400, 640), np.uint8)
    masks[:, 200:300, 200:400] = 1
    write_contact_sheet(tmp_path / "sheet.png", loop, masks, n=12)
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape[1] % 320 == 0
    assert sheet.shape[0] % 200 == 0
    assert (sheet.shape[0] // 200) * (sheet.shape[1] // 320) >= 12
    assert (sheet[125, 100:200] != 90).any(axis=1).all()  # the first tile's mask
    assert (sheet[100, 100] == colour_of(1)).all()  # and its contour
    assert sheet[2:16, 2:12].max() == 255  # and its number


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 40, 1500), (3, 1500, 40), (2, 9, 7)])
def test_pictures_of_odd_shapes(shape: tuple[int, ...], tmp_path: Path) -> None:
    loop, masks = Cine(np.zeros(shape, np.uint8)), np.ones(shape, np.uint8)
    write_contact_sheet(tmp_path / "sheet.png", loop, masks)
    write_overlay_video(tmp_path / "overlay.mp4", loop, masks)
    assert len(read_cine(tmp_path / "overlay.mp4")) == shape[0]


def test_masks_of_another_loop_are_refused(tmp_path: Path) -> None:
    for write in (write_overlay_video, write_contact_sheet):
        with pytest.raises(WriteError, match="do not fit"):
            write(tmp_path / "out", cine(), labels()[:, :40])
    with pytest.raises(WriteError, match="not a speed"):
        write_overlay_video(tmp_path / "out.mp4", cine(), labels(), fps=0)
    assert list(tmp_path.iterdir()) == []


def test_no_source_or_patient_name_in_any_output(tmp_path: Path) -> None:
    loop = cine(source="/clinic/CANARY^PATIENT.dcm", frame_times_s=TIMES)
    write_masks_tiff(tmp_path / "masks.tif", labels(), loop.spacing_mm, loop.frame_times_s)
    write_overlay_video(tmp_path / "overlay.mp4", loop, labels())
    write_contact_sheet(tmp_path / "sheet.png", loop, labels())
    assert len(list(tmp_path.iterdir())) == 3
    for path in tmp_path.iterdir():
        assert b"CANARY" not in path.read_bytes()


def test_colours_differ_and_repeat() -> None:
    assert len({colour_of(i) for i in range(8)}) == 8
    assert colour_of(0) == (0, 0, 0)
    assert colour_of(8) == colour_of(1)
