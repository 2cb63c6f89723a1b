"""prompts.json: what is written comes back, what is wrong is named, and no mask is read from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_uniultra.core.types import Prompt
from napari_uniultra.errors import PromptError
from napari_uniultra.io.writers import ObjectPrompts, read_prompts, write_prompts

SHAPE = (40, 60)


def disc() -> np.ndarray:
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return (y - 20) ** 2 + (x - 30) ** 2 < 100


def test_round_trip(tmp_path: Path) -> None:
    objects = [
        ObjectPrompts(1, "lumen", {0: Prompt(box=(1.5, 2, 30, 20.25)), 12: Prompt(mask=disc())}),
        ObjectPrompts(
            7, "Wändchen", {3: Prompt((0, 0, 60, 40), ((3.5, 4), (60, 40), (1, 1)), (1, 0, 1), rounds=(0, 3))}
        ),
    ]
    path = tmp_path / "prompts.json"
    write_prompts(path, objects)
    assert read_prompts(path, SHAPE) == objects
    assert "Wändchen" in path.read_text(encoding="utf-8")
    write_prompts(path, objects[:1])
    assert read_prompts(path, SHAPE) == objects[:1]


def test_an_older_file_keeps_its_own_mask(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.json", [ObjectPrompts(1, "a", {0: Prompt(mask=disc())})])
    old = (tmp_path / "prompts.json").read_bytes()
    write_prompts(tmp_path / "prompts.json", [ObjectPrompts(1, "a", {0: Prompt(mask=~disc())})])
    (tmp_path / "prompts.json").write_bytes(old)  # as after a crash between the mask and the file that names it
    np.testing.assert_array_equal(read_prompts(tmp_path / "prompts.json", SHAPE)[0].frames[0].mask, disc())


def write(folder: Path, content: object) -> Path:
    path = folder / "prompts.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def one(**drawn: object) -> dict:
    return {"objects": [{"id": 1, "name": "lumen", "frames": {"0": drawn}}]}


def test_the_format_of_the_readme(tmp_path: Path) -> None:
    path = write(tmp_path, one(box=[30, 20, 10, 5], points=[[12, 8, 1], [13, 9, 0]]))
    prompt = read_prompts(path, SHAPE)[0].frames[0]
    assert prompt == Prompt(box=(10, 5, 30, 20), points=((12, 8), (13, 9)), labels=(1, 0))  # drawn in any direction


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "I;16"])
def test_masks_of_all_kinds(mode: str, tmp_path: Path) -> None:
    picture = Image.fromarray(disc().astype(np.uint8) * 2)
    if mode == "I;16":
        picture = Image.fromarray(disc().astype(np.uint16) * 300)
    elif mode == "P":
        picture.putpalette(bytes(768))
    else:
        picture = picture.point(lambda v: v * 127).convert(mode)
    picture.save(tmp_path / "frame0.png")
    prompt = read_prompts(write(tmp_path, one(mask="frame0.png")), SHAPE)[0].frames[0]
    np.testing.assert_array_equal(prompt.mask, disc())


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ('{"objects": [], "objects": []}', "twice"),
        ('{"objects": [{"id": 1, "frames": {"0": {"box": [NaN, 0, 1, 1]}}}]}', "NaN"),
        ("[]", "prompts.json"),
        ({}, "objects"),
        ({"objects": {}}, "objects"),
        ({"objects": []}, "no prompt"),
        ({"objects": [1]}, "objects[0]"),
        ({"objects": [{"id": 1, "frames": {}}], "version": 2}, "version"),
        ({"objects": [{"id": "1", "frames": {}}]}, "objects[0].id"),
        ({"objects": [{"id": True, "frames": {}}]}, "objects[0].id"),
        ({"objects": [{"id": 0, "frames": {}}]}, "objects[0].id"),
        ({"objects": [{"id": 1, "name": 3, "frames": {}}]}, "objects[0].name"),
        ({"objects": [{"id": 1}]}, "objects[0].frames"),
        ({"objects": [{"id": 1, "frames": {}}, {"id": 1, "frames": {}}]}, "same id"),
        ({"objects": [{"id": 1, "frames": {"-1": {"box": [0, 0, 1, 1]}}}]}, 'frames["-1"]'),
        ({"objects": [{"id": 1, "frames": {"01": {"box": [0, 0, 1, 1]}}}]}, 'frames["01"]'),
        (one(), 'frames["0"]'),
        (one(bbox=[0, 0, 1, 1]), "bbox"),
        (one(box=[0, 0, 1]), ".box"),
        (one(box=[0, 0, 1, "1"]), ".box"),
        (one(box=[0, 0, 1, 10**400]), ".box"),
        (one(box=[100, 100, 120, 120]), 'frames["0"]: The box'),
        (one(box=[5, 5, 5, 20]), 'frames["0"]: The box'),
        (one(points=[[1, 2]]), ".points[0]"),
        (one(points=[[1, 2, 1], [1, 2, 2]]), ".points[1] cannot be used: its third number is 2"),
        (one(points=[[100, 2, 1]]), 'frames["0"]: The point'),
        (one(points=[[1, 2, 1]], rounds=[3]), 'frames["0"]: Rounds'),
        (one(mask=3), ".mask"),
        (one(mask="none.png"), "none.png does not exist"),
        (one(mask="prompts.json"), "not an image"),
    ],
)  # fmt: skip
def test_mistakes_are_named(content: object, place: str, tmp_path: Path) -> None:
    with pytest.raises(PromptError) as caught:
        read_prompts(write(tmp_path, content), SHAPE)
    assert place in str(caught.value)


def test_box_points_and_mask_on_one_frame_are_read_together(tmp_path: Path) -> None:
    Image.fromarray(disc().astype(np.uint8)).save(tmp_path / "good.png")
    drawn = {"mask": "good.png", "box": [0, 0, 9, 9], "points": [[3, 4, 1]]}
    (entry,) = read_prompts(write(tmp_path, one(**drawn)), SHAPE)
    (prompt,) = entry.frames.values()
    assert (prompt.box, prompt.points, prompt.labels) == ((0, 0, 9, 9), ((3, 4),), (1,))
    assert np.array_equal(prompt.mask, disc())


def test_mask_of_wrong_size_or_empty(tmp_path: Path) -> None:
    Image.fromarray(disc()[:30].astype(np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(tmp_path / "empty.png")
    for drawn, words in [
        ({"mask": "small.png"}, "60 x 30"),
        ({"mask": "empty.png"}, "empty"),
    ]:
        with pytest.raises(PromptError, match=words):
            read_prompts(write(tmp_path, one(**drawn)), SHAPE)


@pytest.mark.parametrize(
    "name",
    ["../mask.png", "masks/../../mask.png", "C:\\mask.png", "..\\mask.png", "\\\\host\\mask.png", "", "a\0b",
     "link.png", "linked/mask.png"]
)  # fmt: skip
def test_masks_outside_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    Image.fromarray(disc().astype(np.uint8)).save(tmp_path / "mask.png")
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "mask.png")
    (folder / "linked").symlink_to(tmp_path)
    for given in {name, str(tmp_path / "mask.png")}:
        with pytest.raises(PromptError, match="refused"):
            read_prompts(write(folder, one(mask=given)), SHAPE)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"prompts\.json cannot be read"):
        read_prompts(tmp_path / "prompts.json", SHAPE)
