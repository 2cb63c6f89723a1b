"""Data sets made of corrected loops: which frames, whose they are, how they are divided, and what they do not tell."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from toy_training import toy_manifest

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.runner.data import DataChoice, data_of_loops, make_data
from napari_uniultra.runner.loops import CorrectedLoop, Found, find_in_batch, find_in_files, find_open
from napari_uniultra.segment.results import PackedMask, Result
from napari_uniultra.segment.session_about import LoopName, SessionAbout
from napari_uniultra.segment.session_file import save_state
from napari_uniultra.segment.state import SessionState
from napari_uniultra.training.data.manifest import load_case, read_manifest

FRAMES, SIDE = 12, 48


def mask_at(frame: int) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return (y - 20) ** 2 + (x - 10 - frame) ** 2 <= 36


def make_loop(folder: Path, number: int, accepted: int = 10, around: bool = False) -> tuple[Path, Path]:
    """A loop's file and its session: all frames are known, of which some are accepted; also of an object around."""
    folder.mkdir(parents=True, exist_ok=True)
    path, session = folder / f"DOE_JANE_{number}.tif", folder / f"{number}.npz"
    stack = np.random.default_rng(number).integers(1, 255, (FRAMES, SIDE, SIDE)).astype(np.uint8)
    tifffile.imwrite(path, stack, photometric="minisblack")
    results = {
        (7, frame): Result(PackedMask.pack(mask_at(frame)), 0.9, 1.0, np.zeros(256, np.float32))
        for frame in range(FRAMES)
    }
    if around:
        gland = Result(PackedMask.pack(np.ones((SIDE, SIDE), bool)), 0.9, 1.0, np.zeros(256, np.float32))
        results |= {(9, frame): gland for frame in range(FRAMES)}
    locked = {key: result for key, result in results.items() if key[1] < accepted}
    state = SessionState(names={7: "lumen; left=1", 9: "gland"}, tracked=results, locked=locked)
    save_state(session, state, SessionAbout(LoopName.of(read_cine(path))))
    return path, session


def found_loops(folder: Path, count: int) -> list[CorrectedLoop]:
    paths = [path for number in range(count) for path in make_loop(folder, number)]
    found = find_in_files(paths[::-1], folder / "autosave")
    assert not found.problems
    return found.loops


def test_sessions_and_loops_find_each_other_by_content(tmp_path: Path) -> None:
    first, second, third = (make_loop(tmp_path, number, accepted=number + 2) for number in range(3))
    autosaves = tmp_path / "autosave"
    autosaves.mkdir()
    third[1].rename(autosaves / f"{read_cine(third[0]).key}.npz")
    lone = make_loop(tmp_path / "other", 5)[1]
    found = find_in_files([second[1], first[0], lone, second[0], first[1], third[0]], autosaves)
    assert [(loop.accepted, loop.known) for loop in found.loops] == [(2, FRAMES), (3, FRAMES), (4, FRAMES)]
    assert found.problems == [(lone.name, "its loop is missing: add the loop's file too")]
    opened = find_open([("a", read_cine(third[0])), ("b", read_cine(first[0]))], autosaves)
    assert [loop.shown for loop in opened.loops] == ["a"]


def test_accepted_masks_come_back_from_the_manifest(tmp_path: Path) -> None:
    loops = found_loops(tmp_path / "in", 3)
    made = data_of_loops(loops, tmp_path / "data")
    manifest = read_manifest(made.manifest)
    assert sorted(case.part for case in manifest.cases) == ["train", "train", "val"]
    assert len({case.subject for case in manifest.cases}) == 3
    for case in manifest.cases:
        loop = next(loop for loop in loops if loop.cine.key.startswith(case.name.removeprefix("loop-")))
        found = load_case(case)
        assert [annotated.objects for annotated in found] == [("lumen, left 1",)] * 10
        for annotated in found:
            np.testing.assert_array_equal(annotated.masks[0], mask_at(annotated.frame))
            np.testing.assert_array_equal(annotated.image, loop.cine.frame(annotated.frame))
    everything = data_of_loops(loops, tmp_path / "data", accepted_only=False)
    assert {len(load_case(case)) for case in read_manifest(everything.manifest).cases} == {FRAMES}


def test_nothing_tells_who_it_is(tmp_path: Path) -> None:
    loops = [replace(loop, subject="Jane Doe") for loop in found_loops(tmp_path / "in", 2)]
    loops += [replace(loops[0], cine=Cine(255 - loop_frames(loops[0])), subject="")]
    made = data_of_loops(loops[:2], tmp_path / "data")
    assert {case.subject.removesuffix("-later") for case in read_manifest(made.manifest).cases} == {"subject-1"}
    for path in (tmp_path / "data").rglob("*"):
        assert "doe" not in path.name.lower()
        assert path.is_dir() or b"doe" not in path.read_bytes().lower()


def loop_frames(loop: CorrectedLoop) -> np.ndarray:
    return np.stack([loop.cine.frame(frame) for frame in range(len(loop.cine))])


def test_a_single_subject_is_validated_on_its_last_frames_and_says_so(tmp_path: Path) -> None:
    made = data_of_loops(found_loops(tmp_path / "in", 1), tmp_path / "data")
    assert "Validation is on the same loop" in made.warnings[-1]
    manifest = read_manifest(made.manifest)
    frames = {case.part: sorted(path.stem for path in case.frames.iterdir()) for case in manifest.cases}
    assert frames == {"train": [f"{n:06}" for n in range(8)], "val": ["000008", "000009"]}


def test_a_short_loop_of_the_only_subject_is_used_too(tmp_path: Path) -> None:
    paths = [path for n, accepted in enumerate((10, 3)) for path in make_loop(tmp_path, n, accepted)]
    loops = [replace(loop, subject="same") for loop in find_in_files(paths, tmp_path / "autosave").loops]
    made = data_of_loops(loops, tmp_path / "data")
    frames = {(case.part, len(list(case.frames.iterdir()))) for case in read_manifest(made.manifest).cases}
    assert frames == {("train", 8), ("val", 2), ("train", 3)}


def test_an_object_within_another_is_learnt_and_what_it_hides_is_told(tmp_path: Path) -> None:
    found = find_in_files(make_loop(tmp_path, 0, around=True), tmp_path / "autosave")
    made = data_of_loops(found.loops, tmp_path / "data")
    case = read_manifest(made.manifest).part("train")[0]
    for annotated in load_case(case):
        masks = dict(zip(annotated.objects, annotated.masks, strict=True))
        np.testing.assert_array_equal(masks["lumen, left 1"], mask_at(annotated.frame))
        np.testing.assert_array_equal(masks["gland"], ~mask_at(annotated.frame))
    share = np.mean([mask_at(frame).mean() for frame in range(10)])
    assert f"{share:.0%} of “gland” in {case.name} is learnt as what lies on it" in made.warnings[0]
    assert not any("lumen" in words for words in made.warnings)


def test_frames_between_are_written_for_clips(tmp_path: Path) -> None:
    path, session = make_loop(tmp_path, 0, accepted=0)
    cine = read_cine(path)
    result = Result(PackedMask.pack(mask_at(3)), 0.9, 1.0, np.zeros(256, np.float32))
    state = SessionState(names={1: "a"}, locked={(1, 2): result, (1, 8): result})
    save_state(session, state, SessionAbout(LoopName.of(cine)))
    found = Found()
    found.add("a", cine, session)
    made = data_of_loops(found.loops, tmp_path / "data", between=True)
    (case,) = read_manifest(made.manifest).cases
    assert len(list(case.frames.iterdir())) == 7
    assert [annotated.frame for annotated in load_case(case)] == [0, 6]  # of the folder, which begins at the first
    assert "nothing is validated" in made.warnings[-1]


def test_batch_results_give_their_corrected_sessions(tmp_path: Path) -> None:
    (tmp_path / "identifying").mkdir()
    rows = []
    for number, name in enumerate(("a", "b")):
        path, session = make_loop(tmp_path / "in", number, accepted=4 + number)
        (tmp_path / "loops" / name).mkdir(parents=True)
        session.rename(tmp_path / "loops" / name / "session.npz")
        rows.append([str(path), "masks.tif", f"s{number}", name])
    with (tmp_path / "identifying/manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["frames", "masks", "subject", "name"], *rows])
    _, corrected = make_loop(tmp_path / "in", 0, accepted=9)
    (tmp_path / "corrections").mkdir()
    corrected.rename(tmp_path / "corrections" / "a.npz")
    assert [(loop.accepted, loop.subject) for loop in find_in_batch(tmp_path).loops] == [(9, "s0"), (5, "s1")]
    with pytest.raises(ReadError, match="identifying"):
        find_in_batch(tmp_path / "in")


def test_manifests_with_parts_stay_and_others_are_divided(tmp_path: Path) -> None:
    manifest = toy_manifest(tmp_path / "data")
    assert make_data(DataChoice(manifests=(str(manifest),)), tmp_path / "run").manifest == manifest
    manifest.write_text(manifest.read_text().replace(",train", ",").replace(",val", ","))
    made = make_data(DataChoice(manifests=(str(manifest),)), tmp_path / "run")
    assert made.manifest == tmp_path / "run" / "manifest.csv"
    assert sorted(case.part for case in read_manifest(made.manifest).cases) == ["train", "train", "val"]
    made = make_data(DataChoice(importer="folders", folder=str(tmp_path / "data")), tmp_path / "set")
    assert len(read_manifest(made.manifest).cases) == 3
    for choice, what in (
        (DataChoice(), "nothing to learn from"),
        (DataChoice(manifests=("",)), "No manifest is named"),
        (DataChoice(importer="busi"), "No folder is named"),
    ):
        with pytest.raises(ReadError, match=what):
            make_data(choice, tmp_path / "none")
