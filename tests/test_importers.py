"""Importers, each on a small folder in the layout in which its data set is published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image, ImageDraw

from napari_uniultra.errors import ConfigError, ReadError
from napari_uniultra.training.data.importers import IMPORTERS, import_data, open_manifest
from napari_uniultra.training.data.importers.found import Found
from napari_uniultra.training.data.manifest import Case, Manifest, load_case, read_manifest, write_manifest

DATA = Path(__file__).parents[2] / "shared" / "data"
SHAPE = (40, 60)


def image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng([seed, *path.name.encode()]).integers(0, 255, SHAPE, np.uint8)).save(path)


def mask(path: Path, *values: int) -> None:
    """One square of 10 x 10 pixels for each value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros(SHAPE, np.uint8)
    for number, value in enumerate(values):
        labels[5:15, 5 + 14 * number : 15 + 14 * number] = value
    Image.fromarray(labels).save(path)


def by_name(found: Found) -> dict[str, Case]:
    return {case.name: case for case in Manifest(found.cases).cases}


def areas(case: Case) -> dict[str, int]:
    """Pixels of each structure on the first annotated frame."""
    first = load_case(case)[0]
    return {name: int(pixels.sum()) for name, pixels in zip(first.objects, first.masks, strict=True)}


@pytest.mark.parametrize("name", IMPORTERS)
def test_every_importer_says_what_where_and_under_which_licence(name: str) -> None:
    importer = IMPORTERS[name]
    assert importer.TITLE
    assert importer.WHERE
    assert importer.LICENCE
    assert importer.__doc__


@pytest.mark.parametrize("name", IMPORTERS)
def test_a_folder_of_something_else_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ReadError, match=str(tmp_path)):
        import_data(name, tmp_path, tmp_path / "out")


def test_an_unknown_importer_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'camus'"):
        import_data("camsu", tmp_path)


def test_busi_takes_every_lesion_and_leaves_normal_images_out(tmp_path: Path) -> None:
    for name in ("benign/benign (1)", "benign/benign (10)", "malignant/malignant (1)", "normal/normal (1)"):
        image(tmp_path / f"{name}.png")
        mask(tmp_path / f"{name}_mask.png", 255)
    mask(tmp_path / "benign/benign (1)_mask_1.png", 0, 255)
    cases = by_name(import_data("busi", tmp_path))
    assert sorted(cases) == ["busi/benign (1)", "busi/benign (10)", "busi/malignant (1)"]
    assert list(areas(cases["busi/benign (1)"]).values()) == [100, 100]
    assert len(cases["busi/benign (10)"].masks) == 1


def test_ddti_draws_polygons_by_case_and_leaves_broken_files_out(tmp_path: Path) -> None:
    square = [{"x": 10, "y": 10}, {"x": 19, "y": 10}, {"x": 19, "y": 29}, {"x": 10, "y": 29}]
    other = [{"x": p["x"] + 20, "y": p["y"]} for p in square]
    regions = [{"points": p, "annotation": {}, "regionType": "freehand"} for p in (square, other)]
    xml = (
        "<case><number>7</number><age>40</age><mark><image>1</image><svg>{}</svg></mark>"
        "<mark><image>2</image><svg>{}</svg></mark></case>"
    )
    (tmp_path / "7.xml").write_text(xml.format(json.dumps(regions), json.dumps(regions[:1])))
    (tmp_path / "8.xml").write_text(xml.format(json.dumps(regions)[:50], "[]"))
    (tmp_path / "9.xml").write_text(xml.format("[]", "[]").replace("<image>1", "<image>../1"))
    for name in ("7_1", "7_2", "8_1", "9_1"):
        image(tmp_path / f"{name}.jpg")
    found = import_data("ddti", tmp_path, tmp_path / "out")
    cases = by_name(found)
    assert sorted(cases) == ["ddti/7_1", "ddti/7_2"]
    assert areas(cases["ddti/7_1"]) == {"1": 200, "2": 200}
    assert {case.subject for case in found.cases} == {"7"}
    assert {name for name, _ in found.left_out} >= {"8.xml", "9.xml"}
    assert all(path.is_relative_to(tmp_path / "out") for case in found.cases for path in case.masks)


def test_ddti_joins_several_marks_of_one_image(tmp_path: Path) -> None:
    marks = ""
    for left in (5, 30):
        square = [{"x": left + x, "y": 5 + y} for x, y in ((0, 0), (9, 0), (9, 9), (0, 9))]
        marks += f"<mark><image>1</image><svg>{json.dumps([{'points': square}])}</svg></mark>"
    (tmp_path / "7.xml").write_text(f"<case>{marks}</case>")
    image(tmp_path / "7_1.jpg")
    (case,) = by_name(import_data("ddti", tmp_path, tmp_path / "out")).values()
    assert areas(case) == {"1": 100, "2": 100}


def test_ddti_refuses_entities_that_expand(tmp_path: Path) -> None:
    (tmp_path / "1.xml").write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><case><mark><image>1</image></mark></case>')
    with pytest.raises(ReadError, match="declares entities"):
        import_data("ddti", tmp_path, tmp_path / "out")


def test_tn3k_keeps_its_test_set_and_its_fold(tmp_path: Path) -> None:
    for part, count in (("trainval", 4), ("test", 2)):
        for number in range(count):
            image(tmp_path / f"{part}-image/{number:04d}.jpg", seed=count)
            mask(tmp_path / f"{part}-mask/{number:04d}.jpg", 255)
    cases = by_name(import_data("tn3k", tmp_path))
    assert [case.part for case in cases.values()] == [""] * 4 + ["test"] * 2
    assert areas(cases["tn3k/test/0001"])["object"] == pytest.approx(100, abs=8)  # JPEG blurs the border
    (tmp_path / "tn3k-trainval-fold0.json").write_text(json.dumps({"train": [0, 1, 3], "val": [2]}))
    cases = by_name(import_data("tn3k", tmp_path))
    assert [case.part for case in cases.values()] == ["train", "train", "val", "train", "test", "test"]


def test_udiat_pairs_files_of_the_same_name(tmp_path: Path) -> None:
    for number in (1, 2):
        image(tmp_path / f"original/{number:06d}.png")
        mask(tmp_path / f"GT/{number:06d}.png", 255)
    image(tmp_path / "original/000003.png")
    found = import_data("udiat", tmp_path)
    assert [areas(case) for case in found.cases] == [{"object": 100}, {"object": 100}]
    assert found.left_out[0][0] == "000003.png"


def test_fugc_names_the_lips_and_ignores_what_has_no_labels(tmp_path: Path) -> None:
    for place in ("train/labeled_data", "val"):
        image(tmp_path / f"{place}/images/0001.png", seed=len(place))
        mask(tmp_path / f"{place}/labels/0001.png", 1, 2)
    image(tmp_path / "train/unlabeled_data/images/0002.png")
    image(tmp_path / "test/images/0003.png")
    cases = by_name(import_data("fugc", tmp_path))
    assert {name: case.part for name, case in cases.items()} == {"fugc/train/0001": "train", "fugc/val/0001": "val"}
    assert areas(cases["fugc/val/0001"]) == {"anterior lip": 100, "posterior lip": 100}


def test_jnu_ifm_makes_a_loop_of_each_video_in_the_order_of_its_frames(tmp_path: Path) -> None:
    for video in ("20190830T115515", "20190909T155747"):
        for number in (9, 10, 11):
            image(tmp_path / f"{video}/image/{video}_{number}.png", seed=number)
            mask(tmp_path / f"{video}/mask/{video}_{number}_mask.png", *((7, 8) if number != 10 else (8,)))
    cases = by_name(import_data("jnu_ifm", tmp_path))
    assert list(cases) == ["jnu_ifm/20190830T115515", "jnu_ifm/20190909T155747"]
    seen = load_case(cases["jnu_ifm/20190830T115515"])
    assert [frame.objects for frame in seen] == [
        ("pubic symphysis", "fetal head"),
        ("fetal head",),
        ("pubic symphysis", "fetal head"),
    ]


def test_jnu_ifm_s_stills_in_metaimage(tmp_path: Path) -> None:
    for kind in ("image_mha", "label_mha"):
        (tmp_path / kind).mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (3, *SHAPE), dtype=np.uint8)
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:15, 5:15], labels[20:30, 5:25] = 1, 2
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(tmp_path / "image_mha/00001.mha"))
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / "label_mha/00001.mha"))
    (case,) = import_data("jnu_ifm", tmp_path).cases
    assert areas(case) == {"pubic symphysis": 100, "fetal head": 200}


def test_hc18_fills_the_ellipse_and_knows_subjects_and_pixel_sizes(tmp_path: Path) -> None:
    shape, box = (540, 800), (200, 100, 599, 399)
    for name in ("000_HC", "000_2HC", "001_HC"):
        path = tmp_path / f"training_set/{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng([*name.encode()]).integers(0, 255, shape, np.uint8)).save(path)
        outline = Image.new("L", shape[::-1])
        # The second head reaches out of the picture at the top, where the drawn line is cut off.
        ImageDraw.Draw(outline).ellipse(box if name != "001_HC" else (200, -150, 599, 149), outline=255)
        outline.save(path.with_name(f"{name}_Annotation.png"))
    rows = "filename,pixel size(mm),head circumference (mm)\n000_HC.png,0.07,44.3\n"
    (tmp_path / "training_set_pixel_size_and_HC.csv").write_text(rows)
    cases = by_name(import_data("hc18", tmp_path, tmp_path / "out"))
    assert {name: case.subject for name, case in cases.items()} == {
        "hc18/000_2HC": "000",
        "hc18/000_HC": "000",
        "hc18/001_HC": "001",
    }
    assert cases["hc18/000_HC"].spacing_mm == (0.07, 0.07)
    assert cases["hc18/001_HC"].spacing_mm is None
    whole = np.pi * 200 * 150
    assert areas(cases["hc18/000_HC"])["object"] == pytest.approx(whole, rel=0.01)
    assert areas(cases["hc18/001_HC"])["object"] == pytest.approx(whole / 2, rel=0.02)


@pytest.mark.parametrize(
    "box",
    [
        (150, 60, 450, 260),  # whole
        (150, -80, 450, 120),  # cut by the top
        (-90, -80, 210, 120),  # by a corner
        (-90, 60, 690, 260),  # by two opposite sides
        (150, -80, 450, 480),
        (-90, -80, 690, 260),  # by three
        (250, 380, 350, 460),  # a flat piece
    ],
)
@pytest.mark.parametrize("width", [1, 3])
def test_hc18_fills_heads_that_any_edges_of_the_picture_cut(box: tuple[int, ...], width: int, tmp_path: Path) -> None:
    folder, drawn = tmp_path / "training_set", {}
    folder.mkdir()
    for what in ("outline", "fill"):
        drawn[what] = Image.new("L", (600, 400))
        ImageDraw.Draw(drawn[what]).ellipse(box, **{what: 255}, width=width if what == "outline" else 0)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 600), np.uint8)).save(folder / "1_HC.png")
    drawn["outline"].save(folder / "1_HC_Annotation.png")
    (case,) = import_data("hc18", tmp_path, tmp_path / "out").cases
    found, whole = (np.asarray(image) > 0 for image in (Image.open(case.masks[0]), drawn["fill"]))
    assert np.count_nonzero(found != whole) <= 0.002 * np.count_nonzero(whole) + 4


def test_hc18_leaves_out_an_outline_that_encloses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "training_set"
    for name, angles in (("1_HC", (0, 360)), ("2_HC", (0, 300))):
        image(folder / f"{name}.png")
        outline = Image.new("L", SHAPE[::-1])
        ImageDraw.Draw(outline).arc((10, 5, 50, 35), *angles, fill=255)
        outline.save(folder / f"{name}_Annotation.png")
    found = import_data("hc18", tmp_path, tmp_path / "out")
    assert [case.name for case in found.cases] == ["hc18/1_HC"]
    assert found.left_out == (("2_HC.png", "its outline encloses nothing"),)


def test_an_annotation_that_must_be_converted_needs_a_place_for_it(tmp_path: Path) -> None:
    image(tmp_path / "training_set/000_HC.png")
    mask(tmp_path / "training_set/000_HC_Annotation.png", 255)
    with pytest.raises(ReadError, match="has to be converted"):
        import_data("hc18", tmp_path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mhd"])
def test_camus_takes_whole_loops_and_else_both_ends_of_the_beat(tmp_path: Path, suffix: str) -> None:
    labels = np.zeros((3, *SHAPE), np.uint8)
    labels[:, 5:15, 5:15], labels[:, 20:30, 5:15], labels[:, 5:15, 20:40] = 1, 2, 3
    pixels = np.random.default_rng(0).integers(0, 255, labels.shape, dtype=np.uint8)

    def write(name: str, array: np.ndarray) -> None:
        patient = tmp_path / "database" / name.partition("_")[0]
        patient.mkdir(parents=True, exist_ok=True)
        made = sitk.GetImageFromArray(array)
        made.SetSpacing((0.3, 0.15, 1.0)[: array.ndim])
        sitk.WriteImage(made, str(patient / f"{name}{suffix}"))

    for number, name in enumerate(("patient0001_2CH", "patient0002_2CH", "patient0002_4CH")):
        for kind, frame in (("ED", 0), ("ES", 2)):
            write(f"{name}_{kind}", pixels[frame] // (number + 1))
            write(f"{name}_{kind}_gt", labels[frame])
    write("patient0001_2CH_half_sequence", pixels)
    write("patient0001_2CH_half_sequence_gt", labels)
    (tmp_path / "database_split").mkdir()
    (tmp_path / "database_split/subgroup_testing.txt").write_text("patient0002\n")
    (tmp_path / "database_split/subgroup_training.txt").write_text("patient0001\n")
    found = import_data("camus", tmp_path)
    cases = by_name(found)
    assert sorted(cases) == [
        "camus/patient0001_2CH_half_sequence",
        *(f"camus/patient0002_{view}_{kind}" for view in ("2CH", "4CH") for kind in ("ED", "ES")),
    ]
    loop = cases["camus/patient0001_2CH_half_sequence"]
    assert len(load_case(loop)) == 3
    assert np.array_equal(load_case(loop)[2].image, pixels[2])
    assert areas(loop) == {"left ventricle": 100, "myocardium": 100, "left atrium": 200}
    assert (loop.part, cases["camus/patient0002_4CH_ES"].part) == ("train", "test")
    assert ("patient0001 4CH", "it has no annotation") in found.left_out


def test_usgra_splits_labels_into_connected_structures(tmp_path: Path) -> None:
    for place in ("dataset", "dataset/test"):
        image(tmp_path / f"{place}/images/0001.png", seed=len(place))
        mask(tmp_path / f"{place}/masks/0001.png", 1, 1, 2)
    cases = by_name(import_data("usgra", tmp_path))
    assert {name: case.part for name, case in cases.items()} == {"usgra/0001": "", "usgra/test/0001": "test"}
    assert load_case(cases["usgra/0001"])[0].objects == ("nerve", "nerve", "vessel")


def test_plain_folders_take_images_loops_and_folders_of_frames(tmp_path: Path) -> None:
    image(tmp_path / "images/one.png")
    mask(tmp_path / "masks/one_mask.png", 255)
    for number in range(3):
        image(tmp_path / f"images/loop/{number}.jpg", seed=number)
        mask(tmp_path / f"masks/loop/{number}.png", 255)
    image(tmp_path / "images/alone.png")
    (tmp_path / "images/one.txt").write_text("a note")
    found = import_data("folders", tmp_path)
    assert [(case.name, len(load_case(case))) for case in found.cases] == [("loop", 3), ("one", 1)]
    assert [name for name, _ in found.left_out] == ["alone.png", "one.txt"]


def test_dots_in_names_are_part_of_them(tmp_path: Path) -> None:
    names = ("1.2.840.1", "1.2.840.2", "p.a")
    for seed, name in enumerate(names):
        image(tmp_path / f"images/{name}.png", seed)
        mask(tmp_path / f"masks/{name}_GT.png", 255)
    mask(tmp_path / "masks/p.c.png", 255)
    image(tmp_path / "images/p.b.png", seed=9)
    for number in range(2):
        image(tmp_path / f"images/loop.1/f.{number}.png", seed=number)
        mask(tmp_path / f"masks/loop.1/f.{number}.png", *([255] if number else []))
    found = import_data("folders", tmp_path)
    assert {name: case.masks[0].name for name, case in by_name(found).items()} == {
        "loop.1": "loop.1",
        **{name: f"{name}_GT.png" for name in names},
    }
    assert [name for name, _ in found.left_out] == ["p.b.png"]
    assert [len(frame.masks) for frame in load_case(by_name(found)["loop.1"])] == [0, 1]


@pytest.mark.parametrize("mark", ["_mask", "-labels", " seg", "_annotation", "_GT"])
def test_one_rule_says_which_mask_is_whose(mark: str, tmp_path: Path) -> None:
    for seed in (0, 1):
        image(tmp_path / f"loop/images/a/{seed}.png", seed)
        mask(tmp_path / f"loop/masks/a/{seed}{mark}.png", 255)
        image(tmp_path / f"set/original/{seed}.png", seed)
        mask(tmp_path / f"set/GT/{seed}{mark}.png", 255)
    (loop,) = import_data("folders", tmp_path / "loop").cases
    assert [frame.frame for frame in load_case(loop)] == [0, 1]
    assert len(import_data("udiat", tmp_path / "set").cases) == 2


def test_what_a_split_names_must_be_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / f"still/s/images/{name}.png")
        mask(tmp_path / f"still/s/masks/{name}.png", 255)
    mask(tmp_path / "cine/x_1/masks/0.png", 255)
    split = tmp_path / "splits.json"
    split.write_text(json.dumps({"train": ["cine/x_1"], "val": ["still/s/images/b.png"]}))
    with pytest.raises(ReadError, match=r"The loop cine/x_1 is not there"):
        open_manifest(tmp_path)
    split.write_text(json.dumps({"train": ["still/s/images/a.png"], "val": ["still/s/images/b.png"]}))
    assert len(open_manifest(tmp_path).cases) == 2
    (tmp_path / "still/s/images/a.png").unlink()
    with pytest.raises(ReadError, match=r"The image still/s/images/a\.png is not there"):
        open_manifest(tmp_path)


@pytest.mark.parametrize("size", ["unknown", "-1", "nan", "0"])
def test_a_pixel_size_that_is_none_is_named(size: str, tmp_path: Path) -> None:
    image(tmp_path / "still/s/images/a.png")
    mask(tmp_path / "still/s/masks/a.png", 255)
    (tmp_path / "splits.json").write_text(json.dumps({"val": ["still/s/images/a.png"]}))
    (tmp_path / "still/s/px.csv").write_text(f"file,mm_per_px\na.png,{size}\n")
    with pytest.raises(ReadError, match=rf"still/s/px\.csv cannot be used.*mm_per_px of a\.png is '{size}'"):
        open_manifest(tmp_path)
    image(tmp_path / "hc/training_set/1_HC.png")
    mask(tmp_path / "hc/training_set/1_HC_Annotation.png", 255)
    (tmp_path / "hc" / "training_set_pixel_size_and_HC.csv").write_text(f"filename,pixel size(mm)\n1_HC.png,{size}\n")
    with pytest.raises(ReadError, match=rf"pixel size\(mm\) of 1_HC\.png is '{size}'"):
        import_data("hc18", tmp_path / "hc", tmp_path / "out")


def test_other_tables_beside_a_still_set_are_none_of_pixel_sizes(tmp_path: Path) -> None:
    image(tmp_path / "still/s/images/a.png")
    mask(tmp_path / "still/s/masks/a.png", 255)
    (tmp_path / "splits.json").write_text(json.dumps({"val": ["still/s/images/a.png"]}))
    group = tmp_path / "still/s"
    (group / "a.csv").write_text("who,what\nme,first, second\n")
    (group / "._px.csv").write_bytes(b"\0\5\x16\7\xff")
    (group / "folder.csv").mkdir()
    (group / "latin.csv").write_bytes("naïve\ncafé\n".encode("latin-1"))
    (group / "px.csv").write_text("sep=;\nFile;mm_per_px\na.png;0,2\n")
    (case,) = open_manifest(tmp_path).cases
    assert case.spacing_mm == (0.2, 0.2)
    (group / "px.csv").write_bytes("file,mm_per_px\ncafé.png,0.2\n".encode("latin-1"))
    with pytest.raises(ReadError, match=r"still/s/px\.csv cannot be read: its letters are not in UTF-8"):
        open_manifest(tmp_path)


def test_an_imported_manifest_can_be_written_and_read(tmp_path: Path) -> None:
    for number in range(3):
        image(tmp_path / f"data/images/{number}.png", seed=number)
        mask(tmp_path / f"data/masks/{number}.png", 1, 2)
    found = import_data("folders", tmp_path / "data")
    write_manifest(Manifest(found.cases), tmp_path / "elsewhere" / "all.csv")
    assert read_manifest(tmp_path / "elsewhere" / "all.csv").cases == found.cases


def test_an_image_with_two_masks_of_its_name_is_left_out(tmp_path: Path) -> None:
    for name in ("p", "q"):
        image(tmp_path / f"images/{name}.png")
        mask(tmp_path / f"masks/{name}_mask.png", 255)
    mask(tmp_path / "masks/p.png", 255)
    found = import_data("folders", tmp_path)
    assert [case.name for case in found.cases] == ["q"]
    assert found.left_out == (("p.png", "p.png and p_mask.png have its name. Keep one, rename the others"),)


def test_a_mask_with_just_the_name_of_an_image_is_that_one_s(tmp_path: Path) -> None:
    for name in ("scan", "scan_label", "other", "other_mask"):
        image(tmp_path / f"images/{name}.png")
    for name in ("scan", "scan_label", "other_mask"):
        mask(tmp_path / f"masks/{name}.png", 255)
    found = import_data("folders", tmp_path)
    assert [(case.frames.name, case.masks[0].name) for case in found.cases] == [
        (f"{name}.png", f"{name}.png") for name in ("other_mask", "scan", "scan_label")
    ]
    assert found.left_out == (("other.png", "there is no mask of this name"),)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
def test_real_images_and_masks_in_plain_folders() -> None:
    for name in ("hc18", "usgra"):
        found = import_data("folders", DATA / "still" / name)
        assert not found.left_out
        assert all(len(load_case(case, side=64)[0].masks) for case in found.cases[::30])
