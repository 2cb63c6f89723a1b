"""Colours of objects, in what is saved; and the structures to choose from, with theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_uniultra.core.masks import Masks
from napari_uniultra.core.palette import colour_of, colour_of_hex, free_colour
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ConfigError
from napari_uniultra.io.writers import write_masks
from napari_uniultra.io.writers.overlay import draw_masks, write_contact_sheet
from napari_uniultra.plugin import presets
from napari_uniultra.plugin.layers import METADATA_KEY, features_of_names
from napari_uniultra.plugin.presets import editable_presets, load_presets, presets_file, read_presets
from napari_uniultra.plugin.writer import write_labels

PINK = (250, 10, 200)


@pytest.fixture
def masks() -> Masks:
    labels = np.zeros((2, 40, 50), np.uint8)
    labels[:, 5:20, 5:20], labels[:, 25:35, 10:40] = 1, 2
    return Masks.of_cine(Cine(np.full(labels.shape, 90, np.uint8)), labels, {1: "lumen", 2: "wall"}, {2: PINK})


def test_a_chosen_colour_stands_above_the_palettes(masks: Masks) -> None:
    assert masks.colour(1) == colour_of(1)
    assert masks.colour(2) == PINK


def test_slicer_files_have_it(masks: Masks, tmp_path: Path) -> None:
    write_masks(tmp_path / "masks.seg.nrrd", masks)
    header = (tmp_path / "masks.seg.nrrd").read_bytes().split(b"\n\n")[0].decode()
    (line,) = (line for line in header.splitlines() if line.startswith("Segment1_Color:="))
    assert [float(value) for value in line.split("=")[1].split()] == pytest.approx([c / 255 for c in PINK], abs=1e-5)


def test_png_files_have_it(masks: Masks, tmp_path: Path) -> None:
    (folder, *_) = write_masks(tmp_path / "masks.png", masks)
    with Image.open(sorted(Path(folder).glob("*.png"))[0]) as picture:
        assert tuple(picture.getpalette()[6:9]) == PINK
        assert tuple(picture.getpalette()[3:6]) == colour_of(1)


def test_pictures_have_it(masks: Masks, tmp_path: Path) -> None:
    picture = draw_masks(masks.cine.frame(0), masks.labels[0], masks.colours)
    assert picture[25, 20].tolist() == list(PINK)  # a pixel of the contour
    assert picture[5, 10].tolist() == list(colour_of(1))
    write_contact_sheet(tmp_path / "sheet.png", masks.cine, masks.labels, whole_picture=True, colours=masks.colours)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (np.asarray(sheet) == PINK).all(axis=-1).any()


def test_naparis_writer_passes_them_on(masks: Masks, tmp_path: Path) -> None:
    meta = {"features": features_of_names({1: "lumen", 2: "wall"}), "metadata": {METADATA_KEY: {"colours": {1: PINK}}}}
    write_labels(str(tmp_path / "masks.seg.nrrd"), masks.labels, meta)
    header = (tmp_path / "masks.seg.nrrd").read_bytes().split(b"\n\n")[0].decode()
    assert "Segment0_Color:=0.980392 0.0392157 0.784314" in header


def test_words_for_colours() -> None:
    assert colour_of_hex("#e69f00") == colour_of_hex(" #E69F00 ") == (230, 159, 0)
    assert [colour_of_hex(words) for words in ("e69f00", "#e69f0", "#e69f0g", "red", None, 7)] == [None] * 6


def test_a_new_object_has_a_colour_that_nothing_else_has() -> None:
    assert free_colour(2, []) == colour_of(2)
    assert free_colour(2, [colour_of(2)]) == colour_of(1)
    everything = [colour_of(object_id) for object_id in range(1, 8)]
    assert free_colour(9, everything) == colour_of(9)


# Presets --------------------------------------------------------------------------------------------------------------


def test_presets_of_the_package() -> None:
    found, error = load_presets()
    assert error is None
    names = [preset.name for preset in found]
    assert {"Thyroid nodule", "Breast lesion", "Left ventricle", "Carotid lumen", "Fetal head", "Muscle"} <= set(names)
    assert len(set(names)) == len(names)
    assert all(preset.organ and preset.colour is not None for preset in found)


def test_ones_own_presets_take_their_place(isolated_home: Path) -> None:
    path = editable_presets()
    assert path == presets_file() == isolated_home / "objects.yaml"
    assert read_presets(path) == load_presets()[0]
    path.write_text("Knie:\n  - {name: Meniskus, colour: '#0000FF'}\n  - name: Knorpel\n", encoding="utf-8")
    assert editable_presets().read_text(encoding="utf-8").startswith("Knie"), "what was edited stays"
    expected = [presets.Preset("Knie", "Meniskus", (0, 0, 255)), presets.Preset("Knie", "Knorpel")]
    assert load_presets() == (expected, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Knee: [{name: A", "cannot be read"),
        ("- a list", "no organs"),
        ("", "no organs"),
        ("Knee: meniscus", "Knee holds no list"),
        ("Knee:\n  - meniscus", "under Knee, 'meniscus' is no structure"),
        ("Knee:\n  - {colour: '#ffffff'}", "is no structure"),
        ("Knee:\n  - {name: A, color: '#ffffff'}", "is no structure"),
        ("Knee:\n  - {name: A, colour: blue}", "'blue' is no colour"),
        ("Knee:\n  - {name: A, colour: [1, 2, 3]}", "is no colour"),
    ],
)
def test_damaged_presets_are_told_and_those_of_the_package_used(isolated_home: Path, text: str, words: str) -> None:
    isolated_home.mkdir()
    presets_file().write_text(text, encoding="utf-8")
    found, error = load_presets()
    assert "Thyroid nodule" in [preset.name for preset in found]
    assert isinstance(error, ConfigError)
    assert words in str(error)
    assert "objects.yaml" in str(error)
    assert "\n" not in str(error)
