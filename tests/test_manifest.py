"""Manifests and splits: reading, writing, clear refusals, and parts that never overlap."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image
from toy_training import toy_manifest, toy_settings

from napari_uniultra.cli import main
from napari_uniultra.errors import ConfigError, ReadError
from napari_uniultra.training.data.check import check_manifest
from napari_uniultra.training.data.importers import open_manifest, open_manifests
from napari_uniultra.training.data.labels import structures
from napari_uniultra.training.data.manifest import (
    Case,
    Manifest,
    OpenCase,
    load_case,
    read_manifest,
    write_manifest,
)
from napari_uniultra.training.data.splits import split_by_subject
from napari_uniultra.training.evaluation.others import OtherTool
from napari_uniultra.training.evaluation.run import evaluate
from napari_uniultra.training.evaluation.settings import EvaluationSettings

DATA = Path(__file__).parents[2] / "shared" / "data"


def picture(path: Path, seed: int, shape: tuple[int, ...] = (24, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)).save(path)
    return path


def square(path: Path, value: int = 255, shape: tuple[int, int] = (24, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(shape, np.uint8)
    mask[4:14, 6:18] = value
    Image.fromarray(mask).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        picture(tmp_path / f"images/{number}.png", number)
        square(tmp_path / f"masks/{number}.png")
    for number in range(3):
        picture(tmp_path / f"loop/{number}.png", 10 + number)
        square(tmp_path / f"loop_masks/{number}_mask.png")
    return tmp_path


def written(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# Reading and writing


def test_a_manifest_with_images_and_a_loop(folder: Path) -> None:
    path = written(
        folder,
        "image,mask,subject,source,spacing_mm,part\n"
        "images/0.png,masks/0.png,anna,clinic,0.1 0.2,train\n"
        "loop,loop_masks,bert,clinic,0.3,val\n",
    )
    still, loop = read_manifest(path).cases
    assert (still.subject, still.spacing_mm, still.part) == ("anna", (0.1, 0.2), "train")
    (seen,) = load_case(still)
    assert seen.masks.shape == (1, 24, 32)
    assert seen.masks.sum() == 10 * 12
    frames = load_case(loop)
    assert [frame.frame for frame in frames] == [0, 1, 2]
    assert np.array_equal(frames[2].image, np.asarray(Image.open(folder / "loop/2.png")))
    assert OpenCase(loop).cine.spacing_mm == (0.3, 0.3)


@pytest.mark.parametrize(
    ("text", "spacing"),
    [
        ('frames;masks;spacing_mm;labels\nimages/0.png;"masks/0.png;masks/1.png";0,25;"1=a;2=b"\n;;;\n', (0.25, 0.25)),
        ('Frames; Masks; spacing_mm; labels\nimages/0.png;"masks/0.png; masks/1.png";0,1 0,2;"1=a;2=b"\n', (0.1, 0.2)),
        ('frames,masks,spacing_mm,labels\nimages/0.png,masks/0.png;masks/1.png,"0.1,0.2",1=a;2=b\n,,,\n', (0.1, 0.2)),
        ("\n,,,,,\nframes,masks,,spacing_mm,labels,\nimages/0.png,masks/0.png;masks/1.png,,0.2,1=a;2=b,\n", (0.2, 0.2)),
        (
            'sep=;\nframes;masks;spacing_mm;labels\nimages/0.png;"masks/0.png;masks/1.png";0,25;"1=a;2=b"\n',
            (0.25, 0.25),
        ),
        ('frames,masks,spacing_mm,labels\nimages/0.png,masks/0.png;masks/1.png,"1,1",1=a;2=b\n', (1.0, 1.0)),
        ('frames,masks,spacing_mm,labels\nimages/0.png,masks/0.png;masks/1.png,"2, 3",1=a;2=b\n', (2.0, 3.0)),
        ('frames,masks,spacing_mm,labels\nimages/0.png,masks/0.png;masks/1.png,"0,2 0,3",1=a;2=b\n', (0.2, 0.3)),
        ('frames;masks;spacing_mm;labels\nimages/0.png;"masks/0.png;masks/1.png";1,1;"1=a;2=b"\n', (1.1, 1.1)),
        ("frames\tmasks\tspacing_mm\tlabels\t\nimages/0.png\tmasks/0.png; masks/1.png\t0,3\t1=a;2=b\t\n", (0.3, 0.3)),
    ],
)
def test_a_manifest_as_a_spreadsheet_saves_it(folder: Path, text: str, spacing: tuple[float, float]) -> None:
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8-sig", newline="\r\n")
    (case,) = read_manifest(path).cases
    assert (case.spacing_mm, case.labels) == (spacing, {1: "a", 2: "b"})
    assert case.masks == (folder / "masks/0.png", folder / "masks/1.png")
    write_manifest(Manifest((case,)), path)
    assert read_manifest(path).cases == (case,)


@pytest.mark.parametrize("name", ["copy.csv", "copy.json"])
def test_a_manifest_comes_back_as_it_was_written(folder: Path, name: str) -> None:
    cases = (
        Case("a, 1", folder / "images/0.png", (folder / "masks/0.png", folder / "masks/1.png"), "s", "x", (0.1, 0.2)),
        Case("b", folder / "loop", (folder / "loop_masks",), part="val", labels={7: "head", 8: "neck"}),
        Case("c", folder / "images/2.png", (folder / "masks/2.png",), separate=True),
    )
    write_manifest(Manifest(cases), folder / name)
    assert read_manifest(folder / name).cases == cases
    assert str(folder) not in (folder / name).read_text()  # so that the folder can be moved


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("images/9.png,masks/0.png,,", "case 2.*images/9.png does not exist"),
        ("../secret.png,masks/0.png,,", "leads out of the manifest's folder"),
        ("images/0.png,,,", "names no masks"),
        ("images/0.png,;,,", "names no masks"),
        ("images/0.png,masks/0.png,training,", "its part is 'training'"),
        ("images/0.png,masks/0.png,,-1", "its spacing is '-1'"),
        ("images/0.png,masks/0.png,,a b", "its spacing is 'a b'"),
        ("images/0.png,masks/0.png,,,,x", "more values than there are columns"),
        ("images/\0.png,masks/0.png,,", "not a path|cannot be read"),
        ("C:/images/0.png,masks/0.png,,", "path of another system"),
    ],
)
def test_a_faulty_line_is_named(folder: Path, row: str, message: str) -> None:
    (folder.parent / "secret.png").write_bytes(b"")
    with pytest.raises(ReadError, match=message):
        read_manifest(written(folder, f"frames,masks,part,spacing_mm\n{row}\n"))


def test_what_separates_values_is_named(folder: Path) -> None:
    with pytest.raises(ReadError, match=r"line 2 has more values.*Put values with ';'"):
        read_manifest(written(folder, "frames;masks\nimages/0.png;masks/0.png;masks/1.png\n"))


@pytest.mark.parametrize("first", ["", "sep=,\n"])
def test_lines_are_named_by_their_numbers_in_the_file(first: str, folder: Path) -> None:
    text = f"{first}frames,masks,\n\nimages/0.png,masks/0.png,\n,,\nimages/1.png,,\n"
    with pytest.raises(ReadError, match=f"case {5 + bool(first)}, cannot be used.*names no masks"):
        read_manifest(written(folder, text))
    with pytest.raises(ReadError, match=f"line {3 + bool(first)} has more values"):  # no column has a name for it
        read_manifest(written(folder, text.replace("0.png,\n", "0.png,x\n")))


def test_errors_name_the_manifest_by_its_path(folder: Path) -> None:
    for text in ("frames,masks\nimages/9.png,masks/0.png\n", "frames,masks\na,b,c\n"):
        path = written(folder, text)
        with pytest.raises(ReadError) as caught:
            read_manifest(path)
        assert str(path) in str(caught.value)
        path.unlink()
    with pytest.raises(ReadError) as caught:
        read_manifest(path)
    assert f"{path} cannot be read" in str(caught.value)


def test_an_unknown_column_names_the_nearest(folder: Path) -> None:
    with pytest.raises(ReadError, match=r"'subjekt'.*Did you mean 'subject'"):
        read_manifest(written(folder, "image,mask,subjekt\nimages/0.png,masks/0.png,a\n"))


def test_a_link_out_of_the_folder_is_refused_but_an_absolute_path_is_not(folder: Path, tmp_path_factory) -> None:
    outside = picture(tmp_path_factory.mktemp("else") / "x.png", 99)
    (folder / "link.png").symlink_to(outside)
    with pytest.raises(ReadError, match="leads out"):
        read_manifest(written(folder, "image,mask\nlink.png,masks/0.png\n"))
    (case,) = read_manifest(written(folder, f"image,mask\n{outside},masks/0.png\n")).cases
    assert case.frames == outside


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"cases": 3}', "{", '{"cases": []}'])
def test_a_broken_json_manifest_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(ReadError, match=r"m\.json"):
        read_manifest(written(folder, text, "m.json"))


@pytest.mark.parametrize("mask", [5, True, {"a": 1}, [5], [[]]])
def test_json_that_names_no_path_as_mask_is_refused(folder: Path, mask: object) -> None:
    text = json.dumps([{"image": "images/0.png", "mask": mask}])
    with pytest.raises(ReadError, match=r"case 1, cannot be used.*(its masks are|is not a path)"):
        read_manifest(written(folder, text, "m.json"))


# Masks


def test_label_images_black_and_white_ones_and_noise_of_jpeg() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[2:12, 2:12], labels[20:30, 2:12] = 1, 3
    masks, objects = structures(labels)
    assert objects == ("1", "3")
    assert [int(mask.sum()) for mask in masks] == [100, 100]
    masks, objects = structures(labels, {3: "nerve", 4: "vessel"})
    assert objects == ("nerve",)
    jpeg = np.random.default_rng(0).integers(0, 12, (40, 60)).astype(np.uint8)
    jpeg[5:15, 5:15] = 247
    masks, objects = structures(jpeg)
    assert objects == ("object",)
    assert masks.sum() == 100


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255), (200, 200, 0), (255, 255, 255)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_mask_in_any_colour_is_a_mask(folder: Path, colour: tuple[int, ...], suffix: str) -> None:
    painted = np.zeros((24, 32, 3), np.uint8)
    painted[4:14, 6:18] = colour
    Image.fromarray(painted).save(folder / f"red.{suffix}")
    (seen,) = load_case(Case("x", folder / "images/0.png", (folder / f"red.{suffix}",)))
    assert seen.objects == ("object",)
    assert seen.masks.sum() == 120


def test_numbers_that_are_not_whole_are_no_labels(folder: Path) -> None:
    labels, case = np.zeros((24, 32)), Case("x", folder / "images/0.png", (folder / "mask.npy",))
    labels[3:9, 3:9], labels[12:20, 12:20] = 1, 2
    np.save(folder / "mask.npy", labels)
    assert load_case(case)[0].objects == ("1", "2")
    for wrong in (0.5, np.nan, np.inf):
        labels[0, 0] = wrong
        np.save(folder / "mask.npy", labels)
        with pytest.raises(ReadError, match=r"mask\.npy holds no labels.*not whole"):
            load_case(case)


def test_connected_parts_become_structures_and_specks_are_dropped() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[2:12, 2:12], labels[2:12, 30:40], labels[20:30, 2:12], labels[35, 35] = 1, 1, 2, 1
    masks, objects = structures(labels, separate=True)
    assert sorted(mask.sum() for mask in masks) == [100, 100, 100]
    assert objects == ("1", "1", "2")


def test_several_mask_files_are_several_structures(folder: Path) -> None:
    (seen,) = load_case(Case("x", folder / "images/0.png", (folder / "masks/0.png", folder / "masks/1.png")))
    assert len(seen.masks) == 2
    assert len(set(seen.objects)) == 2


def test_an_empty_mask_is_named(folder: Path) -> None:
    square(folder / "masks/0.png", value=0)
    with pytest.raises(ReadError, match=r"mask of eve is empty.*0\.png"):
        load_case(Case("eve", folder / "images/0.png", (folder / "masks/0.png",)))


def test_a_mask_of_another_size_is_named_with_both_sizes(folder: Path) -> None:
    square(folder / "masks/0.png", shape=(20, 32))
    with pytest.raises(ReadError, match=r"mask of eve does not fit.*32 x 20.*32 x 24"):
        load_case(Case("eve", folder / "images/0.png", (folder / "masks/0.png",)))


@pytest.mark.parametrize("file", ["images/0.png", "masks/0.png"])
def test_a_damaged_file_is_named(folder: Path, file: str) -> None:
    (folder / file).write_bytes((folder / file).read_bytes()[:40])
    with pytest.raises(ReadError, match=r"0\.png cannot be read"):
        load_case(Case("eve", folder / "images/0.png", (folder / "masks/0.png",)))


@pytest.mark.parametrize(
    ("frames", "names", "message"),
    [
        (
            "loop",
            ("1.png", "1_mask.png"),
            r"mask of 1\.png is not clear: 1\.png and 1_mask\.png have its name. Keep one",
        ),
        ("video.tif", ("1.png", "001_mask.png"), r"mask of frame 1 is not clear: 001_mask\.png and 1\.png"),
    ],
)
def test_two_masks_of_one_name_are_named(folder: Path, frames: str, names: tuple[str, str], message: str) -> None:
    tifffile.imwrite(folder / "video.tif", np.zeros((3, 24, 32), np.uint8), photometric="minisblack")
    for name in names:
        square(folder / "twice" / name)
    with pytest.raises(ReadError, match=message):
        load_case(Case("eve", folder / frames, (folder / "twice",)))


def test_a_loop_may_lose_its_structure_but_not_on_all_frames(folder: Path) -> None:
    square(folder / "loop_masks/1_mask.png", value=0)
    case = Case("loop", folder / "loop", (folder / "loop_masks",))
    assert [len(frame.masks) for frame in load_case(case)] == [1, 0, 1]
    for number in (0, 2):
        square(folder / f"loop_masks/{number}_mask.png", value=0)
    with pytest.raises(ReadError, match="All masks of loop are empty"):
        load_case(case)


def test_frames_of_a_file_have_masks_by_number_or_in_a_file(folder: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 24, 32), dtype=np.uint8)
    tifffile.imwrite(folder / "loop.tif", frames)
    for number in (1, 4):
        square(folder / f"some/{number:05d}.png")
    seen = load_case(Case("x", folder / "loop.tif", (folder / "some",)))
    assert [frame.frame for frame in seen] == [1, 4]
    assert np.array_equal(seen[1].image, frames[4])
    labels = np.zeros((5, 24, 32), np.int16)
    labels[:, 3:9, 3:9], labels[2:, 12:20, 12:20] = 1, 2
    tifffile.imwrite(folder / "labels.tif", labels)
    seen = load_case(Case("x", folder / "loop.tif", (folder / "labels.tif",), labels={1: "a", 2: "b"}))
    assert [frame.objects for frame in seen] == [("a",), ("a",), ("a", "b"), ("a", "b"), ("a", "b")]
    tifffile.imwrite(folder / "labels.tif", labels[:3])
    with pytest.raises(ReadError, match="3 masks and 5 frames"):
        load_case(Case("x", folder / "loop.tif", (folder / "labels.tif",)))


def test_several_files_with_a_mask_a_frame_are_several_structures(folder: Path) -> None:
    labels = np.zeros((2, 5, 24, 32), np.uint8)
    labels[0, :, 3:9, 3:9], labels[1, 2:, 12:20, 12:20] = 255, 255
    tifffile.imwrite(folder / "loop.tif", np.zeros((5, 24, 32), np.uint8))
    files = folder / "a.tif", folder / "b.tif"
    for path, own in zip(files, labels, strict=True):
        tifffile.imwrite(path, own)
    seen = load_case(Case("x", folder / "loop.tif", files))
    assert [frame.objects for frame in seen] == [("1 object",)] * 2 + [("1 object", "2 object")] * 3
    assert np.array_equal(seen[4].masks, labels[:, 4] > 0)
    tifffile.imwrite(files[1], labels[1, :3])
    with pytest.raises(ReadError, match="3 and 5 masks and 5 frames"):
        load_case(Case("x", folder / "loop.tif", files))


def test_parts_of_a_loop_cannot_be_structures_of_their_own(folder: Path) -> None:
    tifffile.imwrite(folder / "loop.tif", np.zeros((5, 24, 32), np.uint8))
    tifffile.imwrite(folder / "masks.tif", np.ones((5, 24, 32), np.uint8))
    for frames, masks in (("loop.tif", "masks.tif"), ("loop.tif", "loop_masks"), ("loop", "loop_masks")):
        with pytest.raises(ReadError, match="connected parts of x cannot be told apart"):
            load_case(Case("x", folder / frames, (folder / masks,), separate=True))


def test_a_file_of_many_frames_in_a_folder_of_masks_is_refused(folder: Path) -> None:
    (folder / "loop_masks/1_mask.png").unlink()
    tifffile.imwrite(folder / "loop_masks/1_mask.tif", np.ones((3, 24, 32), np.uint8))
    with pytest.raises(ReadError, match=r"1_mask\.tif holds 3 frames"):
        load_case(Case("loop", folder / "loop", (folder / "loop_masks",)))


def test_a_case_can_be_read_at_the_network_s_size(folder: Path) -> None:
    (seen,) = load_case(Case("x", folder / "images/0.png", (folder / "masks/0.png",)), side=48)
    assert seen.image.shape == (48, 48)
    assert seen.masks.shape == (1, 48, 48)
    assert seen.masks.mean() == pytest.approx(120 / (24 * 32), rel=0.05)


# Parts


def still(folder: Path, number: int, **facts) -> Case:
    return Case(f"case {number}", folder / f"images/{number}.png", (folder / f"masks/{number}.png",), **facts)


def test_a_subject_in_two_parts_is_refused(folder: Path) -> None:
    cases = still(folder, 0, subject="p1", part="train"), still(folder, 1, subject="p1", part="val")
    with pytest.raises(ReadError, match=r"case 0 is in part train and case 1 in part val.*subject p1"):
        Manifest(cases)
    Manifest((cases[0], replace(cases[1], source="another clinic")))  # a p1 of theirs is somebody else


def test_one_picture_under_two_names_in_two_parts_is_refused(folder: Path) -> None:
    (folder / "images/1.png").write_bytes((folder / "images/0.png").read_bytes())
    cases = still(folder, 0, part="train"), still(folder, 1, part="test")
    with pytest.raises(ReadError, match=r"case 1 in part test.*0\.png|case 1 is in part test.*\.png"):
        Manifest(cases)
    Manifest((cases[0], replace(cases[1], part="train")))


def test_a_frame_of_a_loop_as_a_still_in_another_part_is_refused(folder: Path) -> None:
    (folder / "loop/1.png").write_bytes((folder / "images/0.png").read_bytes())
    loop = Case("loop", folder / "loop", (folder / "loop_masks",), part="val")
    with pytest.raises(ReadError, match="hold the picture"):
        Manifest((still(folder, 0, part="train"), loop))


def test_a_file_that_went_away_is_named(folder: Path) -> None:
    cases = still(folder, 0, part="train"), still(folder, 1, part="test")
    cases[1].frames.unlink()
    with pytest.raises(ReadError, match=r"1\.png of case 1 cannot be read"):
        Manifest(cases)


def test_files_that_only_begin_alike_do_not_count_as_the_same(folder: Path) -> None:
    for number, end in enumerate((b"a", b"b")):
        (folder / f"images/{number}.png").write_bytes(bytes(70_000) + end)
    Manifest((still(folder, 0, part="train"), still(folder, 1, part="test")))


def test_manifests_must_not_overlap_with_each_other(folder: Path) -> None:
    for part in ("train", "val"):
        written(folder, f"image,mask,part\nimages/0.png,masks/0.png,{part}\n", f"{part}.csv")
    with pytest.raises(ReadError, match="in part"):
        open_manifests([folder / "train.csv", folder / "val.csv"])


def test_a_name_that_two_manifests_give_goes_on_after_the_second_one_s_number(folder: Path) -> None:
    (folder / "more").mkdir()
    for number in range(2):
        picture(folder / f"more/images/{number}.png", 50 + number)
        square(folder / f"more/masks/{number}.png")
    for place, lines in ((folder, (0, 1)), (folder / "more", (1,))):
        text = "".join(f"images/{number}.png,masks/{number}.png,val\n" for number in lines)
        written(place, f"image,mask,part\n{text}", "m.csv")
    merged = open_manifests([folder / "m.csv", folder / "more/m.csv"])
    assert [case.name for case in merged.cases] == ["images/0.png", "images/1.png", "2/images/1.png"]
    for case in merged.cases:
        square(folder / "tool" / case.name)
    scores = evaluate(merged.cases, EvaluationSettings(pictures=0), others=[OtherTool(folder / "tool")]).scores
    assert [own.dice for own in scores if own.method == "tool" and own.is_image] == [1, 1, 1]


def test_a_split_keeps_subjects_whole_and_depends_on_the_seed_alone(folder: Path) -> None:
    cases = tuple(
        replace(still(folder, 0), name=f"{source}{number}", subject=f"p{number // 3}", source=source)
        for source in "ab"
        for number in range(60)
    )
    (folder / "many").mkdir()
    for number in range(len(cases)):
        (folder / f"many/{number}.png").write_bytes(b"picture %d" % number)
    cases = tuple(replace(case, frames=folder / f"many/{number}.png") for number, case in enumerate(cases))
    first = split_by_subject(Manifest(cases), seed=3)
    again = split_by_subject(Manifest(cases[::-1]), seed=3)
    assert {c.name: c.part for c in first.cases} == {c.name: c.part for c in again.cases}
    other = split_by_subject(Manifest(cases), seed=4)
    assert {c.name: c.part for c in first.cases} != {c.name: c.part for c in other.cases}
    for source in "ab":  # 20 subjects each
        sizes = [len({c.subject for c in first.part(part) if c.source == source}) for part in ("train", "val", "test")]
        assert sizes == [16, 2, 2]


def test_a_split_keeps_what_is_fixed_and_joins_equal_pictures(folder: Path) -> None:
    (folder / "images/1.png").write_bytes((folder / "images/0.png").read_bytes())
    cases = [still(folder, number) for number in range(6)]
    cases[5] = replace(cases[5], part="test")
    for seed in range(12):
        made = {case.name: case.part for case in split_by_subject(Manifest(tuple(cases)), (3, 2, 1), seed).cases}
        assert made["case 5"] == "test"
        assert made["case 0"] == made["case 1"]
        assert "" not in made.values()


def test_shares_that_are_none_are_refused(folder: Path) -> None:
    for shares in ((0, 0, 0), (1, 2), (-1, 1, 1)):
        with pytest.raises(ConfigError, match="are not shares"):
            split_by_subject(Manifest((still(folder, 0),)), shares)


# The whole manifest, and the command


def test_a_check_names_what_is_wrong_and_sees_through_file_formats(folder: Path) -> None:
    square(folder / "masks/1.png", value=0)
    Image.open(folder / "images/2.png").save(folder / "images/3.png", compress_level=0)  # other bytes, same pixels
    cases = [still(folder, number, part="train") for number in range(4)]
    checked = list(check_manifest(Manifest((*cases[:3], replace(cases[3], part="val")))))
    assert [bool(item.problem) for item in checked] == [False, True, False, False]
    assert "empty" in checked[1].problem
    assert checked[3].same_as == checked[3].leaks == (cases[2],)


def test_a_check_finds_every_double_of_a_loop(folder: Path) -> None:
    """Its second frame is in another part, though its first one has a harmless double."""
    for number in (0, 1):
        Image.open(folder / f"loop/{number}.png").save(folder / f"images/{number}.bmp")
    Image.open(folder / "loop/1.png").save(folder / "loop/3.png", compress_level=0)  # it shows one picture twice
    square(folder / "loop_masks/3.png")
    first, other, undecided = (
        Case(name, folder / f"images/{number}.bmp", (folder / f"masks/{number}.png",), part=part)
        for name, number, part in (("first", 0, "train"), ("other", 1, "val"), ("undecided", 1, ""))
    )
    loop = Case("loop", folder / "loop", (folder / "loop_masks",), part="train")
    *_, again, seen = check_manifest(Manifest((undecided, first, other, loop)))
    assert (again.same_as, again.leaks) == ((undecided,), ())
    assert seen.same_as == (first, undecided, other)
    assert seen.leaks == (other,)


def test_a_subject_of_two_sources_in_two_parts_is_told_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = (("anna", "linear", "train"), ("anna", "curved", "val"), ("bert", "a", "train"), ("bert", "x", "train"))
    cases = (
        still(folder, number, subject=subject, source=source, part=part)
        for number, (subject, source, part) in enumerate(facts)
    )
    write_manifest(Manifest(tuple(cases)), folder / "all.csv")
    assert main(["data", "check", str(folder / "all.csv")]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("maybe one person"))
    assert "case 0 of linear is in part train and case 1 of curved in part val" in line
    assert "anna" in line


def test_a_dry_run_tells_of_such_a_subject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = toy_manifest(tmp_path)
    head, *lines = path.read_text().splitlines()
    sources = ("linear", "linear", "curved")
    lines = [line.replace("s2", "s1") + f",{source}" for line, source in zip(lines, sources, strict=True)]
    path.write_text("\n".join([f"{head},source", *lines]))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(toy_settings(tmp_path / "run", path)))
    assert main(["train", str(tmp_path / "run.yaml"), "--dry-run", "--json"]) == 0
    (warning,) = (words for words in json.loads(capsys.readouterr().out)["warnings"] if "one person" in words)
    assert "subject s1" in warning


def test_an_import_into_a_folder_is_refused_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--force"]):
        assert main(["data", "import", "folders", str(folder / "none"), "--out", str(folder), *options]) == 7
        assert f"{folder} is a folder" in capsys.readouterr().err


def test_the_command_imports_splits_and_checks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "all.csv"
    command = ["data", "import", "folders", str(folder), "--out", str(out)]
    assert main(command) == 0
    assert main(["data", "split", str(out), "--shares", "4", "1", "1"]) == 0
    assert {case.part for case in read_manifest(out).cases} == {"train", "val", "test"}
    split = out.read_bytes()
    assert main(command) == 7
    assert out.read_bytes() == split
    assert main([*command, "--force"]) == 0
    assert {case.part for case in read_manifest(out).cases} == {""}
    out.write_bytes(split)
    assert main(["data", "split", str(out), "--shares", "0", "0", "0"]) == 2
    assert main(["data", "import", "folder", str(folder), "--out", str(folder / "new.csv")]) == 2
    assert main(["data", "check", str(out)]) == 0
    assert "6 annotated frames, 6 structures" in capsys.readouterr().out
    (folder / "images/0.png").write_bytes(b"no image")
    assert main(["data", "check", str(out)]) == 3
    assert "0.png cannot be read" in capsys.readouterr().out


def test_an_overlap_is_refused_and_mended_by_a_new_split(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "image,mask,subject,part\nimages/0.png,masks/0.png,p,train\nimages/1.png,masks/1.png,p,val\n"
    path = written(folder, text + "images/2.png,masks/2.png,q,train\n")
    assert main(["data", "split", str(path)]) == 3
    assert "subject p" in capsys.readouterr().err
    assert main(["data", "split", str(path), "--redo", "--shares", "1", "1", "0"]) == 0
    parts = {case.frames.name: case.part for case in read_manifest(path).cases}
    assert parts["0.png"] == parts["1.png"] != parts["2.png"]


# The project's own data


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
def test_the_shared_data_as_a_manifest() -> None:
    manifest = open_manifest(DATA)
    listed = json.loads((DATA / "splits.json").read_text())
    assert [len(manifest.part(part)) for part in ("train", "val")] == [len(listed["train"]), len(listed["val"])]
    assert not any(case.source == "muscle" for case in manifest.part("train"))
    muscle = next(case for case in manifest.part("val") if case.source == "muscle" and "isokinetic210" in case.name)
    seen = load_case(muscle)
    assert [frame.frame for frame in seen] == [9, 17, 25, 33, 41, 49, 57, 65, 73, 81]
    assert seen[0].image.shape == (624, 1148)
    assert OpenCase(muscle).cine.spacing_mm == (0.08830022, 0.08830022)
    head = next(case for case in manifest.cases if case.name.endswith("hc18/images/000_HC.png"))
    assert head.spacing_mm == (0.069135804, 0.069135804)
    nerve = next(case for case in manifest.part("train") if case.source == "usgra")
    assert set(load_case(nerve)[0].objects) <= {"1", "2"}
