"""`uniultra measure`, `export` and `anonymise`, and further formats of `uniultra segment`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
import torch
from PIL import Image
from segmentations import without_empty_frames

from napari_uniultra.cli import main
from napari_uniultra.core.masks import Masks
from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.readers.masks import read_masks
from napari_uniultra.io.writers import write_masks
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import architecture
from napari_uniultra.sample_data import heart_path

FRAMES = 24


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def beating_masks() -> np.ndarray:
    """A disc whose radius goes from 20 pixels to 14 and back within 24 frames."""
    y, x = np.mgrid[:64, :64] + 0.5
    radius = 17 + 3 * np.cos(2 * np.pi * np.arange(FRAMES) / FRAMES)
    return (np.hypot(x - 32, y - 32) <= radius[:, None, None]).astype(np.uint8)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("suffix", [".tif", ".seg.nrrd", ".nii.gz", ".json", ".png"])
def test_measure(suffix: str, tmp_path: Path) -> None:
    masks = Masks(beating_masks(), {1: "ventricle"}, (0.5, 0.5), np.arange(FRAMES) * 0.04)
    (file,) = write_masks(tmp_path / f"m{suffix}", masks)
    assert run("measure", file, "--out", tmp_path / "t.csv", "--cycles", tmp_path / "c.csv") == 0
    table = rows_of(tmp_path / "t.csv")
    assert len(table) == FRAMES
    assert float(table[0]["longest_diameter_mm"]) == pytest.approx(20, rel=0.03)
    (cycle,) = rows_of(tmp_path / "c.csv")
    assert (int(cycle["ed_frame"]), int(cycle["es_frame"])) == (0, 12)
    assert float(cycle["fractional_area_change_percent"]) == pytest.approx(100 * (1 - 14**2 / 20**2), abs=2)
    assert float(cycle["ejection_fraction_percent"]) == pytest.approx(100 * (1 - 14**3 / 20**3), abs=2)
    if suffix != ".seg.nrrd":
        assert float(cycle["es_time_ms"]) == pytest.approx(480)


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz", ".png"])
def test_a_loop_in_place_of_its_masks_is_refused(
    suffix: str, repo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = tifffile.imread(repo_root / "sample_data/simulated.tif")[:2]
    file = tmp_path / f"loop{suffix}"
    if suffix == ".png":
        Image.fromarray(loop[0]).save(file)
    elif suffix == ".tif":
        tifffile.imwrite(file, loop, photometric="minisblack")
    else:
        sitk.WriteImage(sitk.GetImageFromArray(loop), file)
    for command in (["measure", file, "--out", tmp_path / "t.csv"], ["export", file, tmp_path / "out.seg.nrrd"]):
        assert run(*command) == 3
        assert "holds no masks: it is a picture" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_masks_of_many_objects_are_masks(tmp_path: Path) -> None:
    """1,200 of 4 x 4 pixels side by side, and 100 that another one covers in the middle."""
    blocks = np.kron(1 + np.arange(1200).reshape(30, 40), np.ones((4, 4), int)).astype(np.uint16)
    bars = np.repeat(np.arange(1, 101, dtype=np.uint16), 3)[:, None] * np.ones(200, np.uint16)
    bars[:, 90:110] = 101
    for number, labels in enumerate((blocks, bars)):
        tifffile.imwrite(tmp_path / f"{number}.tif", labels, photometric="minisblack")
        np.testing.assert_array_equal(read_masks(tmp_path / f"{number}.tif").labels[0], labels)


def test_measure_takes_what_the_loop_knows(tmp_path: Path) -> None:
    heart = read_cine(heart_path())
    labels = np.zeros((len(heart), *heart.shape_hw), np.uint8)
    labels[:, 50:100, 50:100] = 1
    write_masks(tmp_path / "m.tif", Masks(labels))
    assert run("measure", tmp_path / "m.tif", "--out", tmp_path / "px.csv") == 0
    assert rows_of(tmp_path / "px.csv")[0]["area_px"] == "2500"
    assert run("measure", tmp_path / "m.tif", "--loop", heart_path(), "--out", tmp_path / "mm.csv") == 0
    row = rows_of(tmp_path / "mm.csv")[1]
    assert float(row["area_mm2"]) == pytest.approx(2500 * np.prod(heart.spacing_mm), abs=1e-3)
    assert float(row["time_s"]) == pytest.approx(heart.frame_times_s[1])
    assert run("measure", tmp_path / "m.tif", "--spacing", "0.5,0.25", "--out", tmp_path / "mm.csv") == 0
    assert rows_of(tmp_path / "mm.csv")[0]["area_mm2"] == "312.5"
    write_masks(tmp_path / "m.tif", Masks(labels[:2]))
    assert run("measure", tmp_path / "m.tif", "--loop", heart_path(), "--out", tmp_path / "no.csv") == 3
    assert not (tmp_path / "no.csv").exists()


def test_the_masks_own_scale_and_times_outrank_the_loops(tmp_path: Path) -> None:
    heart = read_cine(heart_path())
    labels = np.zeros((len(heart), *heart.shape_hw), np.uint8)
    labels[:, 50:100, 50:100] = 1
    times = np.arange(len(heart)) * 0.5
    assert heart.spacing_mm not in (None, (0.5, 0.25))
    assert heart.frame_times_s[1] != 0.5
    write_masks(tmp_path / "m.json", Masks(labels, {1: "lv"}, (0.5, 0.25), times))
    assert run("measure", tmp_path / "m.json", "--loop", heart_path(), "--out", tmp_path / "t.csv") == 0
    row = rows_of(tmp_path / "t.csv")[1]
    assert (row["area_mm2"], row["time_s"]) == ("312.5", "0.5")  # 2500 pixels of 0.125 mm2
    assert run("export", tmp_path / "m.json", tmp_path / "again.json", "--loop", heart_path()) == 0
    back = read_masks(tmp_path / "again.json")
    assert (back.spacing_mm, back.names) == ((0.5, 0.25), {1: "lv"})
    np.testing.assert_allclose(back.frame_times_s, times)
    # What the masks do not know, each by itself, the loop gives.
    write_masks(tmp_path / "m.json", Masks(labels, {1: "lv"}, (0.5, 0.25)))
    assert run("measure", tmp_path / "m.json", "--loop", heart_path(), "--out", tmp_path / "t.csv") == 0
    row = rows_of(tmp_path / "t.csv")[1]
    assert (row["area_mm2"], float(row["time_s"])) == ("312.5", pytest.approx(heart.frame_times_s[1]))
    write_masks(tmp_path / "m.json", Masks(labels, {1: "lv"}, None, times))
    assert run("export", tmp_path / "m.json", tmp_path / "again.json", "--loop", heart_path()) == 0
    back = read_masks(tmp_path / "again.json")
    assert back.spacing_mm == pytest.approx(heart.spacing_mm)
    np.testing.assert_allclose(back.frame_times_s, times)


def test_a_loop_without_times_is_shown_at_those_of_its_masks(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "loop.tif", np.zeros((FRAMES, 64, 64), np.uint8), photometric="minisblack")
    write_masks(tmp_path / "m.json", Masks(beating_masks(), frame_times_s=np.arange(FRAMES) * 0.25))
    assert run("export", tmp_path / "m.json", tmp_path / "m.mp4", "--loop", tmp_path / "loop.tif") == 0
    np.testing.assert_allclose(read_cine(tmp_path / "m.mp4").frame_times_s, np.arange(FRAMES) * 0.25, atol=1e-4)


def test_beats_of_masks_on_a_part_of_a_loop(tmp_path: Path) -> None:
    labels = np.concatenate([beating_masks(), beating_masks()])
    labels[25:] = 0  # a plateau after the second end-diastole would be 23 frames long
    write_masks(tmp_path / "m.tif", Masks(labels))
    assert run("measure", tmp_path / "m.tif", "--out", tmp_path / "t.csv", "--cycles", tmp_path / "c.csv") == 0
    (cycle,) = rows_of(tmp_path / "c.csv")
    assert (cycle["ed_frame"], cycle["es_frame"]) == ("0", "12")


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heart = read_cine(heart_path())
    labels = np.zeros((len(heart), *heart.shape_hw), np.uint8)
    labels[:, 50:100, 50:100] = 1
    write_masks(tmp_path / "m.seg.nrrd", Masks(labels, {1: "lv"}))
    assert run("export", tmp_path / "m.seg.nrrd", tmp_path / "m.json") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "m.json")
    assert read_masks(tmp_path / "m.json").names == {1: "lv"}
    assert run("export", tmp_path / "m.json", tmp_path / "m.dcm") == 7  # of which loop?
    assert "--loop" in capsys.readouterr().err
    assert run("export", tmp_path / "m.json", tmp_path / "m.dcm", "--loop", heart_path()) == 0
    back = read_masks(tmp_path / "m.dcm")
    np.testing.assert_array_equal(back.labels, labels)
    assert run("export", tmp_path / "m.dcm", tmp_path / "folder", "--format", "png") == 0
    assert len(list((tmp_path / "folder").glob("*.png"))) == len(heart)
    assert run("export", tmp_path / "m.dcm", tmp_path / "m.xyz") == 7
    assert run("export", tmp_path / "none.tif", tmp_path / "m.json") == 3


@pytest.mark.parametrize("as_others_write_it", [False, True])
def test_a_dicom_segmentation_of_a_few_frames_belongs_to_the_whole_loop(
    as_others_write_it: bool, tmp_path: Path
) -> None:
    heart = read_cine(heart_path())
    labels = np.zeros((len(heart), *heart.shape_hw), np.uint8)
    labels[1:3, 50:100, 50:100] = 1
    (written,) = write_masks(tmp_path / "m.dcm", Masks.of_cine(heart, labels, {1: "lv"}))
    if as_others_write_it:
        without_empty_frames(written)
    assert run("measure", tmp_path / "m.dcm", "--loop", heart_path(), "--out", tmp_path / "t.csv") == 0
    assert [row["frame"] for row in rows_of(tmp_path / "t.csv") if float(row["area_mm2"])] == ["1", "2"]
    assert run("export", tmp_path / "m.dcm", tmp_path / "m.tif", "--loop", heart_path()) == 0
    np.testing.assert_array_equal(read_masks(tmp_path / "m.tif").labels, labels)


def test_anonymise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pydicom.dcmread(heart_path())
    source.PatientName, source.PatientID = "CANARY^PATIENT", "CANARY-7"
    source.save_as(tmp_path / "CANARY.dcm")
    out, key = tmp_path / "out", tmp_path / "key"
    for _ in range(2):  # with a key, the second run gives the same names
        assert run("anonymise", tmp_path / "CANARY.dcm", "--out", out, "--key", key) == 0
    printed = capsys.readouterr()
    assert "look at the pictures" in printed.err
    assert {path.suffix for path in out.iterdir()} == {".dcm", ".png"}
    assert len(list(out.iterdir())) == 2
    for path in out.iterdir():
        assert "CANARY" not in path.name
        assert b"CANARY" not in path.read_bytes()
    assert "CANARY" not in printed.out
    assert key.stat().st_mode & 0o077 == 0
    assert len(read_cine(next(out.glob("*.dcm")))) == int(source.NumberOfFrames)
    assert run("anonymise", tmp_path / "CANARY.dcm", "--out", key) == 7
    assert "is a file, not a folder" in capsys.readouterr().err
    key.write_text("no key")
    assert run("anonymise", tmp_path / "CANARY.dcm", "--out", out, "--key", key) == 3


def test_anonymise_goes_on_after_a_file_that_cannot_be_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "words.txt").write_text("no loop")
    out = tmp_path / "out"
    files = tmp_path / "bad.dcm", heart_path(), tmp_path / "words.txt", tmp_path / "gone.dcm"
    assert run("anonymise", *files, "--out", out, "--whole-picture") == 3
    printed = capsys.readouterr()
    (copy,) = out.glob("*.dcm")
    assert printed.out == f"{copy}\n"
    assert copy.with_suffix(".png").is_file()
    for words in ("bad.dcm", "words.txt", "gone.dcm", "look at the pictures", "3 of 4 files were not copied"):
        assert words in printed.err
    assert run("anonymise", tmp_path / "bad.dcm", "--out", out) == 3
    assert "look at the pictures" not in capsys.readouterr().err


def test_an_instance_stored_twice_is_two_copies(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("anonymise", heart_path(), heart_path(), "--out", out, "--whole-picture") == 0
    assert len(list(out.glob("*.dcm"))) == len(list(out.glob("*.png"))) == 2


def test_no_command_writes_over_what_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heart = read_cine(heart_path())
    loop, masks, link, table = (tmp_path / name for name in ("loop.dcm", "m.tif", "t.csv", "masks.csv"))
    loop.write_bytes(heart_path().read_bytes())
    write_masks(masks, Masks(np.ones((len(heart), *heart.shape_hw), np.uint8)))
    link.symlink_to(masks)
    (shown,) = write_masks(tmp_path / "overlay.mp4", Masks.of_cine(heart, read_masks(masks).labels))
    (folder,) = write_masks(tmp_path / "pictures.png", read_masks(masks))
    before = {path: path.read_bytes() for path in (loop, masks, shown)}
    for command in (
        ("export", masks, loop, "--loop", loop),
        ("export", masks, shown, "--loop", shown),
        ("export", masks, masks),
        ("export", folder, folder / "again.tif"),
        ("measure", masks, "--out", link),
        ("measure", masks, "--out", table, "--cycles", link),
        ("measure", masks, "--out", table, "--cycles", folder / ".." / table.name),
    ):
        assert run(*command) == 7, command
        assert "was not written" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    assert link.is_symlink()
    assert not table.exists()
    for command in (("--out", masks), ("--out", table, "--cycles", masks)):
        with pytest.raises(SystemExit, match="2"):
            run("measure", masks, *command)
        assert "CSV file" in capsys.readouterr().err


def test_segment_in_further_formats(tmp_path: Path) -> None:
    config = architecture("uniultra-mini", image_size=64)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "tiny.safetensors", build_network(config), config, {"licence": "Apache-2.0"})
    out = tmp_path / "out"
    command = ["segment", heart_path(), "--out", out, "--model", tmp_path / "tiny.safetensors", "--device", "cpu"]
    command += ["--box", "80,60,200,180", "--stop", 2]
    formats = ("nrrd", "nifti", "dicom", "coco", "yolo", "png", "gif")
    assert run(*command, *(word for name in formats for word in ("--format", name))) == 0
    expected = read_masks(out / "masks.tif").labels
    for name in ("masks.seg.nrrd", "masks.nii.gz", "masks.dcm", "masks.json", "masks_png"):
        labels = read_masks(out / name).labels
        np.testing.assert_array_equal(labels, expected[: len(labels)])
    assert (out / "overlay.gif").is_file()
    assert (out / "masks_yolo" / "data.yaml").is_file()
    assert run(*command, "--format", "png") == 0  # the folder is as its run left it
    (out / "masks_png" / "mine.txt").touch()
    assert run(*command, "--format", "png", "--force") == 7
    assert run(*command, "--format", "nonsense") == 7


def test_segment_looks_closely_or_not(tmp_path: Path, repo_root: Path) -> None:
    loop, truth = repo_root / "sample_data" / "simulated.tif", repo_root / "sample_data" / "simulated_masks.tif"
    small = tifffile.imread(truth)[0] == 2
    box = ",".join(map(str, box_of_mask(small)))
    found = {}
    for words in ((), ("--zoom",), ("--no-zoom",)):
        out = tmp_path / "".join(("out", *words))
        assert run("segment", loop, "--box", box, "--stop", 2, "--direction", "forward", "--out", out, *words) == 0
        found[words] = tifffile.imread(next(out.glob("*.tif")))[:3]
    assert np.array_equal(found[()], found["--zoom",])  # the bundled model was trained so
    assert not np.array_equal(found[()], found["--no-zoom",])
