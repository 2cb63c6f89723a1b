"""Batch jobs in one process: what they find, start from, write, keep, and do again."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastparquet
import numpy as np
import pytest
import tifffile
import torch
import yaml
import zarr
from PIL import Image
from scipy import ndimage
from segmentations import without_empty_frames

from napari_uniultra.batch.agreement import compare
from napari_uniultra.batch.corrections import hand_out, take_in
from napari_uniultra.batch.loops import checked_name, find_loops
from napari_uniultra.batch.naming import without_paths
from napari_uniultra.batch.results import RECORD, SESSION, correction_file, loop_folder, read_record
from napari_uniultra.batch.run import make_plan, run_job
from napari_uniultra.batch.settings import InputSettings, JobSettings, read_job, write_job
from napari_uniultra.batch.tables import read_failures
from napari_uniultra.batch.task import input_sha256, input_state
from napari_uniultra.batch.worker import label_loop
from napari_uniultra.cli import main
from napari_uniultra.core.lock import LOCK, locked
from napari_uniultra.core.masks import Masks
from napari_uniultra.core.process import this_process
from napari_uniultra.core.settings import ConfigError, read_settings, to_dict
from napari_uniultra.core.types import Prompt
from napari_uniultra.errors import ReadError, WriteError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.readers.masks import read_masks
from napari_uniultra.io.writers import FORMAT_NAMES, write_masks
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import architecture
from napari_uniultra.model.load import load_model
from napari_uniultra.segment.session import CineSession
from napari_uniultra.training.data.manifest import load_case, read_manifest

FRAMES, HEIGHT, WIDTH = 3, 40, 56
BOX = [14.0, 8.0, 42.0, 32.0]


def write_loop(path: Path, seed: int = 0, frames: int = FRAMES) -> Path:
    """A TIFF loop of speckle with a dark disc, 0.5 x 0.25 mm a pixel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    stack = rng.gamma(2.0, 25.0, (frames, HEIGHT, WIDTH))
    stack[:, (y - 20) ** 2 + (x - 28) ** 2 < 100] *= 0.2
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path,
        stack.clip(0, 255).astype(np.uint8),
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "TYX", "unit": "mm"},
    )
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of random weights that always believes in its object."""
    torch.manual_seed(3)
    config = architecture("uniultra-mini", image_size=64)
    network = build_network(config)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(path, network, config, {"description": "random weights"})
    return path


@pytest.fixture
def job_of(tmp_path: Path, model: Path) -> Callable[..., JobSettings]:
    """Makes a job over ``in/`` with one box for all loops, done in this process; keywords replace whole groups."""
    prompts = tmp_path / "prompts.json"
    frames = {"0": {"box": BOX}}
    prompts.write_text(json.dumps({"objects": [{"id": 1, "name": "lumen", "frames": frames}]}))

    def make(**groups: Any) -> JobSettings:
        values: dict[str, Any] = {
            "inputs": {"loops": [str(tmp_path / "in")]},
            "start": {"prompts": str(prompts)},
            "model": {"name": str(model), "device": "cpu"},
            "outputs": {"folder": str(tmp_path / "out")},
            "workers": {"count": 0},
        }
        return read_settings(JobSettings, {**values, **groups})

    return make


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def written(folder: Path) -> dict[str, int]:
    """Every file below a folder and when it was written."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }


# Results ----------------------------------------------------------------------------------------------------------


def test_masks_are_those_of_a_session_and_tables_join_them(tmp_path: Path, model: Path, job_of: Callable) -> None:
    for number, name in enumerate(("a", "b/c")):
        write_loop(tmp_path / f"in/{name}.tif", number)
    job = job_of(outputs={"folder": str(tmp_path / "out"), "formats": ["png", "nifti"]}, objects={1: "vessel"})
    events: list[Any] = []
    summary = run_job(job, events.append)
    assert (summary.done, summary.unchanged, summary.failures) == (2, 0, ())
    for name in ("a", "b/c"):
        session = CineSession(read_cine(tmp_path / f"in/{name}.tif"), load_model(model, device="cpu"))
        session.add_box(1, 0, BOX)
        list(session.propagate("both"))
        assert session.masks.any()
        own = tmp_path / "out/loops" / name
        np.testing.assert_array_equal(tifffile.imread(own / "masks.tif"), session.masks)
        assert (own / "masks_png/frame_000002.png").is_file()
        assert (own / "masks.nii.gz").is_file()
        area = float(table(own / "measurements.csv")[0]["area_mm2"])
        assert area == pytest.approx((session.masks[0] > 0).sum() * 0.125, abs=1e-4)
    rows = table(tmp_path / "out/measurements.csv")
    assert [(row["loop"], row["frame"], row["object"]) for row in rows] == [
        (name, str(frame), "vessel") for name in ("a", "b/c") for frame in range(FRAMES)
    ]
    kinds = [event["event"] for event in events]
    assert kinds == ["start", "loop", "loop", "end"]
    assert events[2]["progress"] | {"frames_per_s": 0} == {
        "loops": 2, "done": 2, "unchanged": 0, "failed": 0, "frames_per_s": 0, "seconds_left": 0.0,
    }  # fmt: skip
    assert "a: done" in (tmp_path / "out/batch.log").read_text()


def test_parquet_holds_the_same_numbers_with_types(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    write_loop(tmp_path / "in/b.tif", 1)
    run_job(job_of())
    frame = fastparquet.ParquetFile(str(tmp_path / "out/measurements.parquet")).to_pandas()
    rows = table(tmp_path / "out/measurements.csv")
    assert list(frame["loop"]) == [row["loop"] for row in rows]
    assert list(frame["frame"]) == [int(row["frame"]) for row in rows]
    np.testing.assert_array_equal(frame["area_mm2"], [float(row["area_mm2"]) for row in rows])
    assert frame["time_s"].isna().all()


def test_the_manifest_is_a_data_set_for_the_trainers(tmp_path: Path, job_of: Callable) -> None:
    loop = write_loop(tmp_path / "in/a.tif")
    (tmp_path / "loops.csv").write_text(f"loop,name,subject\n{loop},x/one,s7\n")
    run_job(job_of(inputs={"table": str(tmp_path / "loops.csv")}, objects={1: "lumen; old"}))
    (case,) = read_manifest(tmp_path / "out/identifying/manifest.csv").cases
    assert (case.name, case.subject, case.spacing_mm, case.frames) == ("x/one", "s7", (0.5, 0.25), loop)
    annotated = list(load_case(case))
    masks = tifffile.imread(tmp_path / "out/loops/x/one/masks.tif")
    assert len(annotated) == FRAMES
    for found, mask in zip(annotated, masks, strict=True):
        np.testing.assert_array_equal(found.masks[0] if len(found.masks) else np.zeros_like(mask), mask > 0)
    assert annotated[0].objects == ("lumen, old",)


def test_what_people_enter_in_the_manifest_stays(tmp_path: Path, job_of: Callable) -> None:
    for number, name in enumerate("abc"):
        write_loop(tmp_path / f"in/{name}.tif", number)
    job, manifest = job_of(), tmp_path / "out/identifying/manifest.csv"
    run_job(job)
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([f"{lines[0]},notes", *(f'{line},"=seen; twice"' for line in lines[1:])]) + "\n")
    run_job(job)
    rows = table(manifest)
    assert [row["notes"] for row in rows] == ["=seen; twice"] * 3
    manifest.write_text("\n".join(lines) + "\n")
    assert main(["data", "split", str(manifest), "--shares", "1", "1", "1"]) == 0
    parts = {case.name: case.part for case in read_manifest(manifest).cases}
    assert sorted(parts.values()) == ["test", "train", "val"]
    manifest.write_text(re.sub(r"loops/(\w)/masks.tif,,,", r"loops/\1/masks.tif,s\1,clinic,", manifest.read_text()))
    write_loop(tmp_path / "in/d.tif", 3)
    run_job(job)
    cases = read_manifest(manifest).cases
    assert {case.name: case.part for case in cases} == parts | {"d": ""}
    assert [(case.subject, case.source) for case in cases] == [(f"s{name}", "clinic") for name in "abc"] + [("", "")]
    (tmp_path / "loops.csv").write_text("loop;subject\nin/b.tif;s8\n")  # what the table gives counts
    run_job(job_of(inputs={"table": str(tmp_path / "loops.csv")}))
    assert [(case.subject, case.part) for case in read_manifest(manifest).cases] == [("s8", parts["b"])]


def test_files_of_others_in_the_folder_of_results_stay(
    tmp_path: Path, job_of: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    write_loop(tmp_path / "in/a.tif")
    (tmp_path / "out").mkdir()
    own = [tmp_path / "out" / name for name in ("measurements.csv", "report.html")]
    for path in own:
        path.write_text("mine")
    write_job(tmp_path / "job.yaml", job_of())
    assert main(["batch", str(tmp_path / "job.yaml")]) == 7
    assert "measurements.csv exists already" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in own}
    assert {path.read_text() for path in own} == {"mine"}
    for options in (["--force"], []):  # from then on the folder is known
        assert main(["batch", str(tmp_path / "job.yaml"), *options]) == 0
    assert not any(path.read_text() == "mine" for path in own)


@pytest.mark.parametrize("folder", ["in", "in/../in", "."])
def test_results_have_a_folder_of_their_own(folder: str, tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    with pytest.raises(ConfigError, match=r"in is that folder or lies in it"):
        run_job(job_of(outputs={"folder": str(tmp_path / folder)}))
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"a.tif"}


def test_the_report_stands_alone_and_quotes_names(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    (tmp_path / "in/bad.tif").write_bytes(b"II*\0nothing")
    run_job(job_of(objects={1: "<script>alert(1)</script>"}))
    html = (tmp_path / "out/report.html").read_text()
    assert "<script" not in html
    assert "&lt;script" in html
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "data:image/jpeg;base64," in html
    assert "<svg" in html
    assert f"uniultra batch {tmp_path}/out/identifying/job.yaml --open a" in html
    assert "bad" in html[html.index("Failed") :]


# Resuming ---------------------------------------------------------------------------------------------------------


def test_a_second_run_does_only_what_changed(tmp_path: Path, job_of: Callable) -> None:
    for number in range(3):
        write_loop(tmp_path / f"in/{number}.tif", number)
    job = job_of()
    run_job(job)
    before = written(tmp_path / "out/loops")
    write_loop(tmp_path / "in/1.tif", 9)
    os.utime(tmp_path / "in/2.tif", (1, 1))  # touched, but the same
    summary = run_job(job)
    assert (summary.done, summary.unchanged) == (1, 2)
    after = written(tmp_path / "out/loops")
    assert {name for name in after if after[name] != before[name]} == {name for name in after if name.startswith("1/")}
    changed = (
        job_of(post={"fill_holes": True}),
        job_of(post={"fill_holes": True}, model={"name": job.model.name, "device": "cpu", "image_size": 96}),
        job_of(start={"otherwise": "no_prompt"}),
    )
    for other in changed:
        assert run_job(other).done == 3
        assert run_job(other).unchanged == 3


def test_another_mask_that_the_prompts_name_is_another_start(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 18:38] = 255
    job = job_of()
    frames = {"0": {"mask": "masks/frame0.png"}}
    (tmp_path / "prompts.json").write_text(json.dumps({"objects": [{"id": 1, "frames": frames}]}))
    (tmp_path / "masks").mkdir()
    for place in (mask, np.roll(mask, 5, axis=1)):
        Image.fromarray(place).save(tmp_path / "masks/frame0.png")
        assert run_job(job).done == 1
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/loops/a/masks.tif")[0], place > 0)
        assert run_job(job).unchanged == 1
    (tmp_path / "masks/frame0.png").unlink()
    (failure,) = run_job(job).failures
    assert "frame0.png does not exist" in failure.reason


def test_a_zarr_loop_is_found_and_every_chunk_of_it_counts(tmp_path: Path, job_of: Callable) -> None:
    pixels = tifffile.imread(write_loop(tmp_path / "a.tif"))
    group = zarr.open_group(str(tmp_path / "in/b/a.zarr"), mode="w")
    array = group.create_array("0", shape=pixels.shape, chunks=(1, HEIGHT, WIDTH), dtype="uint8")
    array[:] = pixels
    assert run_job(job_of()).done == 1
    assert tifffile.imread(tmp_path / "out/loops/b/a/masks.tif").shape == pixels.shape
    assert run_job(job_of()).unchanged == 1
    array[2] = pixels[2][::-1]
    assert run_job(job_of()).done == 1


@pytest.mark.parametrize("kind", ["zarr", "folder", "mhd", "nhdr"])
def test_all_that_an_input_is_made_of_counts(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"loop.{kind}"
    parts = {
        "zarr": ["zarr.json", "0/c/0/0/0", "0/c/1/0/0"],
        "folder": ["0.png", "1.png", "../loop.folder.json"],
        "mhd": ["../loop.mhd", "../pix.dat", "../loop.json"],
        "nhdr": ["../loop.nhdr", "../data/pix.dat", "../meta.json"],
    }[kind]
    heads = {
        "loop.mhd": "DimSize = 2 2\nElementDataFile = pix.dat\n",
        "loop.nhdr": "NRRD0004\ndata file: data/pix.dat\n",
    }
    if kind in ("zarr", "folder"):
        path.mkdir()
    for number, part in enumerate(parts):
        file = Path(os.path.normpath(path / part))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(heads.get(file.name, str(number)))
    before, state = input_sha256(path), input_state(path)
    assert (input_sha256(path), input_state(path)) == (before, state)
    assert len(state) == len(parts)
    for part in parts[1:]:
        file = Path(os.path.normpath(path / part))
        file.write_text(content := file.read_text() + "changed")
        assert input_sha256(path) != before
        assert input_state(path) != state
        file.write_text(content.removesuffix("changed"))
        assert input_sha256(path) == before
    if kind == "zarr":
        (path / "0/c/1").rename(path / "0/c/2")
        assert input_sha256(path) != before


def test_words_about_a_zarr_loop_keep_their_numbers(tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w").create_array("0", shape=(2, 8, 9), dtype="uint8")
    assert without_paths("Frame 0 of a.zarr", "loop-1", [tmp_path / "a.zarr"]) == "Frame 0 of loop-1"


def test_loops_that_share_a_header_are_two(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mhd").write_text("DimSize = 2 2\nElementDataFile = a.raw\n")
        (tmp_path / name / "a.raw").write_bytes(bytes([number] * 4))
    loops, refused = find_loops(InputSettings((str(tmp_path / "*/a.mhd"),)), tmp_path / "out", "codes")
    assert (len({loop.name for loop in loops}), refused) == (2, [])


@pytest.mark.parametrize("damage", ["cut", "gone", "no record"])
def test_results_that_are_not_whole_are_made_again(damage: str, tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    run_job(job_of())
    masks = tmp_path / "out/loops/a/masks.tif"
    content = masks.read_bytes()
    if damage == "cut":
        masks.write_bytes(content[:-10])
    elif damage == "gone":
        masks.unlink()
    else:
        (masks.parent / RECORD).write_text("{")
    half = masks.with_name(".0123456789ab.partial.tif")
    half.write_bytes(b"half")
    assert run_job(job_of()).done == 1
    assert masks.read_bytes() == content
    assert not half.exists()


# Starts -----------------------------------------------------------------------------------------------------------


def test_every_kind_of_start(tmp_path: Path, model: Path, job_of: Callable) -> None:
    """JSON, CSV, a mask of one frame, masks of a loop, and a session, by name in one folder."""
    names = ("json", "csv", "mask", "masks", "session")
    for number, name in enumerate(names):
        write_loop(tmp_path / f"in/{name}.tif", number)
    place = tmp_path / "starts"
    place.mkdir()
    (tmp_path / "prompts.json").rename(place / "json.json")
    (place / "csv.csv").write_text("frame,object,x0,y0,x1,y1,x,y,label\n1,2,14,8,42,32,,,\n1,2,,,,,28,20,\n")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 18:38] = 3
    tifffile.imwrite(place / "mask.tif", mask)
    tifffile.imwrite(place / "masks.tif", np.stack([mask * 0, mask, mask * 0]), photometric="minisblack")
    session = CineSession(read_cine(tmp_path / "in/session.tif"), load_model(model, device="cpu"))
    session.add_box(5, 2, BOX)
    session.save(place / "session.npz")
    job = job_of(start={"prompts": str(place), "frame": -1})
    assert run_job(job).failures == ()
    found = {name: read_record(tmp_path / "out", name) for name in names}
    assert {name: list(record["objects"]) for name, record in found.items()} == {
        "json": ["1"], "csv": ["2"], "mask": ["3"], "masks": ["3"], "session": ["5"],
    }  # fmt: skip
    stacks = {name: tifffile.imread(tmp_path / f"out/loops/{name}/masks.tif") for name in names}
    np.testing.assert_array_equal(stacks["mask"][-1], mask)  # what was given stands as it is
    np.testing.assert_array_equal(stacks["masks"][1], mask)
    expected = CineSession(read_cine(tmp_path / "in/csv.tif"), load_model(model, device="cpu"))
    expected.set_prompt(2, 1, Prompt(tuple(BOX), ((28.0, 20.0),), (1,)))
    list(expected.propagate("both"))
    np.testing.assert_array_equal(stacks["csv"], expected.masks)


def test_automatic_starts(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    run_job(job_of(start={"otherwise": "no_prompt", "frame": 1}))
    assert read_record(tmp_path / "out", "a")["start"] == "no_prompt"
    template = write_loop(tmp_path / "template.tif", 5, frames=1)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 18:38] = 4
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    start = {"otherwise": "template", "template": str(template), "template_mask": str(tmp_path / "mask.tif")}
    summary = run_job(job_of(start=start))
    assert summary.failures == ()
    assert list(read_record(tmp_path / "out", "a")["objects"]) == ["4"]
    assert tifffile.imread(tmp_path / "out/loops/a/masks.tif").any()


def test_tidying_leaves_what_a_person_gave(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 18:38] = 1
    mask[14:18, 22:26] = 0  # a hole
    mask[0, 0] = 1  # and a crumb
    tifffile.imwrite(tmp_path / "a.tif", mask)
    post = {"largest_piece": True, "fill_holes": True}
    run_job(job_of(start={"prompts": str(tmp_path)}, post=post, inputs={"loops": [str(tmp_path / "in/a.tif")]}))
    masks = tifffile.imread(tmp_path / "out/loops/a/masks.tif")
    np.testing.assert_array_equal(masks[0], mask)
    for found in masks[1:]:
        assert ndimage.label(found)[1] <= 1
        np.testing.assert_array_equal(ndimage.binary_fill_holes(found), found > 0)


# Bad input --------------------------------------------------------------------------------------------------------


def test_bad_loops_are_listed_and_the_others_done(
    tmp_path: Path, job_of: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    write_loop(tmp_path / "in/good.tif")
    write_loop(tmp_path / "in/late.tif", 1)
    (tmp_path / "in/cut.tif").write_bytes((tmp_path / "in/good.tif").read_bytes()[:300])
    (tmp_path / "in/void.dcm").write_bytes(b"")
    frames = {name: {"9" if name == "late" else "0": {"box": BOX}} for name in ("good", "late", "cut", "void")}
    place = tmp_path / "starts"
    place.mkdir()
    for name, own in frames.items():
        (place / f"{name}.json").write_text(json.dumps({"objects": [{"id": 1, "frames": own}]}))
    write_loop(tmp_path / "in/alone.tif", 2)  # has no prompts
    job = job_of(start={"prompts": str(place)}, inputs={"loops": [str(tmp_path / "in"), str(tmp_path / "missing.dcm")]})
    write_job(tmp_path / "job.yaml", job)
    assert main(["batch", str(tmp_path / "job.yaml"), "--json"]) == 9
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    reasons = {line["name"]: line["reason"] for line in lines if line["event"] == "loop" and line["status"] == "failed"}
    (coded,) = (name for name in reasons if name.startswith("loop-"))
    assert set(reasons) == {"late", "cut", coded, "alone", "input 2"}
    assert "Frame 9 does not exist" in reasons["late"]
    assert reasons[coded] == f"{coded} is empty. Copy or export it again."
    assert "no prompt" in reasons["alone"]
    assert lines[-1] | {"written": 0} == {"event": "end", "done": 1, "unchanged": 0, "failed": 5, "written": 0}
    assert {row["loop"] for row in table(tmp_path / "out/failures.csv")} == set(reasons)
    assert (tmp_path / "out/loops/good/masks.tif").is_file()
    assert sorted(path.name for path in (tmp_path / "out/loops").iterdir() if any(path.iterdir())) == ["good"]


def test_one_name_for_two(tmp_path: Path) -> None:
    for path in ("one/a.tif", "one/a.tiff", "two/x.tif", "three/x.tif"):
        write_loop(tmp_path / path)
    inputs = InputSettings(tuple(str(tmp_path / name) for name in ("one", "two", "three")))
    loops, refused = find_loops(inputs, tmp_path / "out")
    assert [loop.name for loop in loops] == ["a.tif", "a.tiff"]
    assert [entry.name for entry in refused] == ["x.tif", "x.tif"]
    table_file = tmp_path / "loops.csv"
    table_file.write_text("loop,name\none/a.tif,A\ntwo/x.tif,a\nthree/x.tif,c\n")
    loops, refused = find_loops(InputSettings(table=str(table_file)), tmp_path / "out")
    assert [loop.name for loop in loops] == ["c"]
    assert len(refused) == 2


@pytest.mark.parametrize(
    "text",
    [
        "loop,frame,,\na.tif,1,,\n,,,\nb.tif,x,,\n",
        "loop,frame\na.tif,1.0\n,\nb.tif,x\n",
        "loop;frame\na.tif;1\n;\nb.tif;x\n",
        "sep=;\nloop;frame\na.tif;1\nb.tif;x\n",
        "loop\tframe\na.tif\t1\n\t\nb.tif\tx\n",
    ],
)
def test_a_table_of_loops_as_spreadsheets_save_it(text: str, tmp_path: Path) -> None:
    for name in "ab":
        write_loop(tmp_path / f"{name}.tif")
    (tmp_path / "loops.csv").write_text(text)
    (loop,), (refused,) = find_loops(InputSettings(table=str(tmp_path / "loops.csv")), tmp_path / "out")
    assert (loop.name, loop.frame) == ("a", 1)
    assert refused.reason.startswith("Line 4 of loops.csv: Its column 'frame' has 'x'")


_LEADS_OUT = ("../x", "/etc/x", "a/../../x", "C:\\x", "C:x", "..\\x", "\\\\host\\x")


@pytest.mark.parametrize("name", [*_LEADS_OUT, "", "a//b", ".hidden", "a\nb", "x" * 300])
def test_names_from_a_table_never_leave_the_results(name: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        checked_name(name)
    loop = write_loop(tmp_path / "in/a.tif")
    with (tmp_path / "loops.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["loop", "name"], [loop, name]])
    loops, refused = find_loops(InputSettings(table=str(tmp_path / "loops.csv")), tmp_path / "out")
    assert [loop.name for loop in loops] == ([] if name else ["a"])
    assert len(refused) == bool(name)


def test_a_link_in_the_results_is_not_followed_out(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out/loops").mkdir(parents=True)
    (tmp_path / "out/loops/a").symlink_to(outside)
    (failure,) = run_job(job_of()).failures
    assert "outside the folder" in failure.reason
    assert not any(outside.iterdir())


def test_results_within_the_inputs_are_no_inputs(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    job = job_of(outputs={"folder": str(tmp_path / "in/out")})
    for _ in range(2):
        assert len(make_plan(job).tasks) == 1
        run_job(job)


def test_a_folder_of_images_is_one_loop_or_stills(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(3):
        (tmp_path / "in/p1").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 9, np.uint8)).save(tmp_path / f"in/p1/{number}.png")
    inputs = InputSettings((str(tmp_path / "in"),))
    assert [loop.name for loop in find_loops(inputs, tmp_path / "out")[0]] == ["p1"]
    stills = find_loops(replace(inputs, images="stills"), tmp_path / "out")[0]
    assert [loop.name for loop in stills] == ["p1/0", "p1/1", "p1/2"]
    pattern = InputSettings((str(tmp_path / "in/**/[12].png"),))
    assert [loop.name for loop in find_loops(pattern, tmp_path / "out")[0]] == ["p1/1", "p1/2"]


def test_zarr_folders_are_loops_and_the_list_of_a_disc_is_none(tmp_path: Path) -> None:
    place = tmp_path / "in"
    for name in ("a.ome.zarr", "deep/b.zarr", "deep/plain"):
        zarr.open_group(str(place / name), mode="w").create_array("0", shape=(2, 8, 9), dtype="uint8")
    (place / "deep/notes.txt").write_text("no loop")
    for name in ("DICOMDIR", "deep/dicomdir", "deep/IM_0001"):
        (place / name).write_bytes(b"\0" * 128 + b"DICM")
    expected = {
        str(place): ["a.ome", "deep/IM_0001", "deep/b", "deep/plain"],
        str(place / "a.ome.zarr"): ["a.ome"],
        str(place / "deep/*.zarr"): ["b"],
        str(place / "*"): ["a.ome", "deep/IM_0001", "deep/b", "deep/plain"],
    }
    for text, names in expected.items():
        loops, refused = find_loops(InputSettings((text,)), tmp_path / "out", "files")
        assert ([loop.name for loop in loops], refused) == (names, [])
    loops, refused = find_loops(InputSettings((str(place), str(place / "deep"))), tmp_path / "out", "files")
    assert (len(loops), refused) == (4, [])  # what was found before is found nonetheless


def test_an_input_without_a_loop_is_refused(
    tmp_path: Path, job_of: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Canarysson").mkdir()
    (tmp_path / "Canarysson/notes.txt").write_text("no loop")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    texts = [str(tmp_path / name) for name in ("Canarysson", "DICOMDIR", "none.tif")]
    write_job(tmp_path / "job.yaml", job_of(inputs={"loops": texts}))
    assert main(["batch", str(tmp_path / "job.yaml")]) == 9
    rows = table(tmp_path / "out/failures.csv")
    words = ["No loop is in it", "Name its folder", "Nothing is there"]
    assert [row["loop"] for row in rows] == ["input 1", "input 2", texts[2]]
    assert all(word in row["why"] for word, row in zip(words, rows, strict=True))
    assert "Canarysson" not in capsys.readouterr().err  # a folder may be named after a patient
    refused = find_loops(InputSettings(tuple(texts)), tmp_path / "out", "files")[1]
    assert [entry.name for entry in refused] == texts


def test_a_disk_that_takes_nothing_ends_the_job(
    tmp_path: Path, job_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first loop that cannot be written ends the run: the others would fare no better."""
    import errno

    for number in range(3):
        write_loop(tmp_path / f"in/{number}.tif", number)
    job = job_of()
    run_job(replace(job, inputs=InputSettings((str(tmp_path / "in/0.tif"),))))
    real, full = os.replace, []

    def replace_file(source: Any, target: Any) -> None:
        if full or Path(target).name == "masks.tif":
            full.append(target)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace_file)
    write_job(tmp_path / "job.yaml", job)
    full.clear()
    assert main(["batch", str(tmp_path / "job.yaml"), "--json"]) == 7
    assert not list((tmp_path / "out").rglob("*.partial*"))
    monkeypatch.undo()
    assert read_record(tmp_path / "out", "0") is not None
    summary = run_job(job)
    assert (summary.done, summary.unchanged) == (2, 1)


def test_too_little_memory_is_tried_once_on_a_smaller_size(
    tmp_path: Path, job_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_loop(tmp_path / "in/a.tif")
    job = job_of(model={"name": job_of().model.name, "device": "cpu", "image_size": 128})
    (task,) = make_plan(job).tasks
    sizes: list[int] = []
    real = CineSession.set_prompt
    limit = 100

    def set_prompt(self: CineSession, *arguments: Any) -> Any:
        sizes.append(self.model.image_size)
        if self.model.image_size > limit:
            raise MemoryError
        return real(self, *arguments)

    monkeypatch.setattr(CineSession, "set_prompt", set_prompt)
    assert label_loop(task).status == "done"
    assert sizes == [128, 64]
    assert read_record(tmp_path / "out", "a")["model"]["image_size"] == 64
    assert run_job(job).unchanged == 1  # the best that could be done; it is not done again
    limit = 0
    (tmp_path / "out/loops/a" / RECORD).unlink()
    outcome = label_loop(task)
    assert (outcome.status, outcome.kind, sizes[2:]) == ("failed", "ResourceError", [128, 64])


def test_what_an_earlier_run_found_of_a_loop_that_fails_stays(tmp_path: Path, job_of: Callable) -> None:
    for number, name in enumerate("ab"):
        write_loop(tmp_path / f"in/{name}.tif", number)
    run_job(job_of())
    manifest = tmp_path / "out/identifying/manifest.csv"
    assert main(["data", "split", str(manifest), "--shares", "1", "1", "0"]) == 0
    parts = {case.name: case.part for case in read_manifest(manifest).cases}
    assert sorted(parts.values()) == ["train", "val"]
    (tmp_path / "in/b.tif").write_bytes(b"II*\0nothing")
    (failure,) = run_job(job_of()).failures
    assert failure.name == "b"
    assert failure.reason.endswith("The results shown are of an earlier run.")
    assert {row["loop"] for row in table(tmp_path / "out/measurements.csv")} == {"a", "b"}
    for bad, shown in (("", {"a"}), ("a", set())):  # with other settings, only what was found with them is shown
        if bad:
            (tmp_path / f"in/{bad}.tif").write_bytes(b"II*\0nothing either")
        failures = run_job(job_of(objects={1: f"lumen {bad}"})).failures
        assert not any("earlier" in failure.reason for failure in failures)
        path = tmp_path / "out/measurements.csv"
        assert ({row["loop"] for row in table(path)} if path.exists() else set()) == shown
        assert {case.name: case.part for case in read_manifest(manifest).cases} == parts


def test_a_lost_loop_leaves_a_data_set_of_the_others(tmp_path: Path, job_of: Callable) -> None:
    for number, name in enumerate("ab"):
        write_loop(tmp_path / f"in/{name}.tif", number)
    (tmp_path / "loops.csv").write_text("loop\nin/a.tif\nin/b.tif\n")
    job, manifest = job_of(inputs={"table": str(tmp_path / "loops.csv")}), tmp_path / "out/identifying/manifest.csv"
    run_job(job)
    assert main(["data", "split", str(manifest), "--shares", "1", "1", "0"]) == 0
    parts = {case.name: case.part for case in read_manifest(manifest).cases}
    for gone, left in (("b", {"a"}), ("a", set())):
        (tmp_path / f"in/{gone}.tif").rename(tmp_path / f"{gone}.tif")
        run_job(job)
        assert {case.name for case in (read_manifest(manifest).cases if left else ())} == left
    assert not manifest.exists()  # which no loop is left for
    for name in "ab":
        (tmp_path / f"{name}.tif").rename(tmp_path / f"in/{name}.tif")
    run_job(job)
    assert {case.name: case.part for case in read_manifest(manifest).cases} == parts
    assert {path.name for path in manifest.parent.iterdir()} == {"job.yaml", "names.csv", "manifest.csv"}


def test_results_of_what_a_file_held_before_are_not_shown(tmp_path: Path, job_of: Callable) -> None:
    for number, name in enumerate("ab"):
        write_loop(tmp_path / f"in/{name}.tif", number)
    prompts = tmp_path / "prompts.json"
    prompts.write_text(prompts.read_text().replace('"0"', f'"{FRAMES - 1}"'))
    run_job(job_of())
    manifest = tmp_path / "out/identifying/manifest.csv"
    assert main(["data", "split", str(manifest), "--shares", "1", "1", "0"]) == 0
    parts = {case.name: case.part for case in read_manifest(manifest).cases}
    write_loop(tmp_path / "in/b.tif", 2, frames=FRAMES - 1)  # which has no frame for the prompt
    for objects in ({}, {1: "lumen"}):
        (failure,) = run_job(job_of(objects=objects)).failures
        assert failure.name == "b"
        assert "earlier" not in failure.reason
        assert {row["loop"] for row in table(tmp_path / "out/measurements.csv")} == {"a"}
        assert {case.name: case.part for case in read_manifest(manifest).cases} == {"a": parts["a"]}
    write_loop(tmp_path / "in/b.tif", 1)
    run_job(job_of())
    assert {case.name: case.part for case in read_manifest(manifest).cases} == parts


def test_no_manifest_stays_of_results_that_are_gone(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    run_job(job_of())
    manifest = tmp_path / "out/identifying/manifest.csv"
    assert manifest.is_file()
    shutil.rmtree(tmp_path / "out/loops")
    prompts = (tmp_path / "prompts.json").read_text()
    (tmp_path / "prompts.json").write_text(prompts.replace(str(BOX[0]), "9000", 1).replace(str(BOX[2]), "9100", 1))
    assert len(run_job(job_of()).failures) == 1
    assert not manifest.exists()


def test_a_failure_takes_no_results_away(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    job = job_of(outputs={"folder": str(tmp_path / "out"), "formats": ["png"]})
    run_job(job)
    before = written(tmp_path / "out/loops")
    prompts = (tmp_path / "prompts.json").read_text()
    (tmp_path / "prompts.json").write_text(prompts.replace(str(BOX[0]), "9000", 1).replace(str(BOX[2]), "9100", 1))
    assert [failure.kind for failure in run_job(job).failures] == ["PromptError"]
    assert written(tmp_path / "out/loops") == before
    (tmp_path / "prompts.json").write_text(prompts)
    assert run_job(job).unchanged == 1


def test_the_model_is_loaded_once(tmp_path: Path, job_of: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_uniultra.batch import worker
    from napari_uniultra.model import load

    for number in range(3):
        write_loop(tmp_path / f"in/{number}.tif", number)
    loads = []
    real = load.model_at
    monkeypatch.setattr(worker, "_loaded", {})
    monkeypatch.setattr(load, "model_at", lambda *arguments: loads.append(arguments) or real(*arguments))
    assert run_job(job_of()).done == 3
    assert len(loads) == 1


def every_content(path: Path) -> bytes:
    """A file's bytes, with what is compressed in it unpacked."""
    content = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content += b"".join(archive.read(name) for name in archive.namelist())
    if content.startswith(b"\x1f\x8b"):
        content += gzip.decompress(content)
    if path.suffix == ".parquet":
        content += fastparquet.ParquetFile(str(path)).to_pandas().to_csv().encode()
    return content


def tells(folder: Path, canary: str) -> set[str]:
    """The files below a folder whose name or content has the canary, in any case of letters."""
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        content = every_content(path) if path.is_file() else b""
        if canary.lower() in name.lower() or canary.lower().encode() in content.lower():
            found.add(name)
    return found


def write_dicom(path: Path, seed: int, canary: str) -> Path:
    """A DICOM still with a canary in its tags."""
    import pydicom
    from pydicom.data import get_testdata_file

    data = pydicom.dcmread(get_testdata_file("examples_ybr_color.dcm"))
    data.set_pixel_data(data.pixel_array[:2, ::4, ::4], "RGB", 8)
    data.PatientName, data.PatientID = f"{canary}^NAME", f"{canary}-ID"
    data.SeriesDescription = canary
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.{seed}"
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path)
    return path


def test_no_patient_data_in_results(
    tmp_path: Path, job_of: Callable, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A canary in the tags, the files' names and the folders' names; in good loops and in all kinds of bad ones.

    Pixels beside the scan area are the contact sheet's own test.
    """
    canary = "Canarysson"
    place = tmp_path / "in" / f"{canary}_Jane"
    write_dicom(place / f"{canary}_good.dcm", 1, canary)
    shutil.copy(place / f"{canary}_good.dcm", place / f"{canary}_copy.dcm")
    cut = write_dicom(place / f"{canary}_cut", 2, canary)  # without a suffix
    cut.write_bytes(cut.read_bytes()[:2000])
    write_dicom(place / f"{canary}_late.dcm", 3, canary)
    write_dicom(tmp_path / "in/twice.dcm", 4, canary)
    for other in ("a", "b"):
        write_dicom(tmp_path / f"{other}/{canary}_same.dcm", 5, canary)
    write_dicom(tmp_path / f"listed/{canary}_table.dcm", 6, canary)
    write_dicom(tmp_path / f"listed/{canary}_named.dcm", 7, canary)
    lines = [f"{canary}_{name}" for name in ("table.dcm,,", "named.dcm,p1,", "none.dcm,,", f"x.dcm,,{canary}.json")]
    (tmp_path / "listed/loops.csv").write_text("\n".join(["loop,name,prompts", *lines]))
    starts = tmp_path / "starts" / f"{canary}_Jane"
    starts.mkdir(parents=True)
    (starts / f"{canary}_late.json").write_text('{"objects": [{"id": 1, "frames": {"99": {"box": [1, 1, 9, 9]}}}]}')
    job = job_of(
        inputs={
            "loops": [str(tmp_path / name) for name in ("in", "a", "b", f"{canary}.dcm")],
            "table": str(tmp_path / "listed/loops.csv"),
        },
        start={"prompts": str(tmp_path / "starts"), "otherwise": "no_prompt"},
        outputs={"folder": str(tmp_path / "out"), "formats": list(FORMAT_NAMES)},
    )
    write_job(tmp_path / "job.yaml", job)
    assert main(["batch", str(tmp_path / "job.yaml"), "--json"]) == 9
    out = tmp_path / "out"
    failures = table(out / "failures.csv")
    done = {path.parent.name for path in (out / "loops").rglob(RECORD)}
    assert len(done) == 4, failures
    assert "p1" in done
    assert tells(out, canary) == {"identifying/job.yaml", "identifying/names.csv", "identifying/manifest.csv"}
    said = capsys.readouterr()
    assert canary.lower() not in (said.out + said.err + caplog.text).lower()
    wanted = ("Frame 99", "copy of loop-", "Two inputs", "Nothing is there", "does not exist", "column 'prompts'")
    for words in wanted:
        assert any(words in row["why"] for row in failures), (words, failures)

    files = {row["loop"]: Path(row["file"]).name for row in table(out / "identifying/names.csv")}
    assert [files[row["loop"]] for row in failures if "Frame 99" in row["why"]] == [f"{canary}_late.dcm"]
    names = {f"{canary}_{name}.dcm" for name in ("copy", "table", "named")}
    assert {files[name] for name in done} == {*names, "twice.dcm"}


def test_code_names_outlive_a_move_and_the_key_may_be_left_out(tmp_path: Path, job_of: Callable) -> None:
    write_dicom(tmp_path / "in/one/a.dcm", 1, "X")
    start = {"otherwise": "no_prompt"}
    assert run_job(job_of(start=start, outputs={"folder": str(tmp_path / "out"), "identifying": False})).done == 1
    assert not (tmp_path / "out/identifying").exists()
    assert "uniultra batch JOB.yaml --open loop-" in (tmp_path / "out/report.html").read_text()
    (tmp_path / "in/one").rename(tmp_path / "in/two")
    assert run_job(job_of(start=start)).unchanged == 1
    write_loop(tmp_path / "in/b.tif")
    for names, coded in (("files", 0), ("auto", 1), ("codes", 2)):
        plan = make_plan(job_of(start=start, outputs={"folder": str(tmp_path / "out"), "names": names}))
        assert sum(task.name.startswith("loop-") for task in plan.tasks) == coded
        assert {"two/a", "b"} == {name for task in plan.tasks for name in task.loop.names if "loop-" not in name}


# Two at once ------------------------------------------------------------------------------------------------------

_HOLD = """
import sys, time
from pathlib import Path
from napari_uniultra.core.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_locked_out_until_the_first_is_dead(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    out = tmp_path / "out"
    other = subprocess.Popen([sys.executable, "-c", _HOLD, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(WriteError, match=f"in use. process {other.pid} on .* remove") as caught:
            run_job(job_of())
        assert str(out / LOCK) in str(caught.value)
        with pytest.raises(WriteError, match="in use"):
            take_in(job_of(), "a", tmp_path / "any.npz")
        assert [path.name for path in out.iterdir()] == [LOCK]
    finally:
        other.kill()
        other.communicate()
    assert (out / LOCK).is_file()  # SIGKILL left it
    assert run_job(job_of()).done == 1
    assert not (out / LOCK).exists()


def test_locks_that_cannot_be_judged_stay(tmp_path: Path) -> None:
    lock = tmp_path / LOCK
    mine = this_process()
    for owner in (mine, {**mine, "boot": "elsewhere", "host": "elsewhere", "pid": 2**22 + 1}):
        lock.write_text(json.dumps(owner))
        with pytest.raises(WriteError, match="in use"), locked(tmp_path):
            pass
        assert json.loads(lock.read_text()) == owner
    lock.write_text("")  # somebody is about to write it
    with pytest.raises(WriteError, match="another process"), locked(tmp_path):
        pass
    os.utime(lock, (1, 1))
    with locked(tmp_path):
        pass
    lock.write_text(json.dumps({**mine, "started": "earlier"}))  # its number belongs to another one now
    with locked(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


# Corrections and agreement ----------------------------------------------------------------------------------------


def test_a_correction_goes_back_into_the_same_results(tmp_path: Path, model: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    write_loop(tmp_path / "in/b.tif", 1)
    job = job_of()
    run_job(job)
    task = make_plan(job).tasks[0]
    assert hand_out(task, tmp_path / "work") == tmp_path / "in/a.tif"
    (work,) = (tmp_path / "work").iterdir()
    session = CineSession.restore(work, read_cine(tmp_path / "in/a.tif"), load_model(model, device="cpu"))
    painted = np.zeros((HEIGHT, WIDTH), bool)
    painted[5:15, 5:25] = True
    session.add_mask(1, 2, painted)
    session.lock(2)
    session.save(work)
    write_job(tmp_path / "job.yaml", job)
    assert main(["batch", str(tmp_path / "job.yaml"), "--take-in", "a", str(work)]) == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/loops/a/masks.tif"), session.masks)
    row = next(row for row in table(tmp_path / "out/measurements.csv") if (row["loop"], row["frame"]) == ("a", "2"))
    assert float(row["area_mm2"]) == 200 * 0.125
    assert read_record(tmp_path / "out", "a")["corrected"] is True
    assert run_job(job).unchanged == 2
    changed = job_of(post={"fill_holes": True})  # settings change: what a person did is not computed over
    assert run_job(changed).done == 2
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/loops/a/masks.tif")[2] > 0, painted)


def test_what_a_later_run_overtook_is_kept_each_time(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    run_job(job_of())
    (task,) = make_plan(job_of()).tasks
    hand_out(task, tmp_path / "work")
    (work,) = (tmp_path / "work").iterdir()
    for content in (b"first", b"second"):
        work.write_bytes(content)
        os.utime(work, (1, 1))  # older than the results
        hand_out(task, tmp_path / "work")
    kept = [work.with_suffix(suffix).read_bytes() for suffix in (".earlier.npz", ".earlier-2.npz")]
    assert kept == [b"first", b"second"]
    assert work.read_bytes() == (loop_folder(tmp_path / "out", "a") / SESSION).read_bytes()


def test_what_cannot_be_opened_is_told_before_the_viewer_starts(
    tmp_path: Path, job_of: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    write_loop(tmp_path / "in/a.tif")
    (tmp_path / "in/bad.tif").write_bytes(b"II*\0nothing")
    job = tmp_path / "job.yaml"
    write_job(job, job_of())

    def opened(name: str) -> tuple[int, str]:
        code = main(["batch", str(job), "--open", name])
        return code, capsys.readouterr().err

    code, words = opened("a")
    assert (code, words) == (3, "uniultra: a has no results. Run the job first.\n")
    assert main(["batch", str(job)]) == 9
    assert "1 loop done, 0 unchanged, 1 failed" in capsys.readouterr().err
    code, words = opened("none")
    assert code == 3
    assert "no loop called 'none'" in words
    code, words = opened("bad")
    assert code == 3
    assert "bad has no results: bad.tif cannot be read" in words
    (tmp_path / "prompts.json").unlink()
    assert opened("a")[0] == 5


def test_a_correction_of_another_loop_is_refused(tmp_path: Path, job_of: Callable) -> None:
    write_loop(tmp_path / "in/a.tif")
    write_loop(tmp_path / "in/b.tif", 1)
    run_job(job_of())
    before = written(tmp_path / "out/loops")
    with pytest.raises(ReadError, match="another loop"):
        take_in(job_of(), "a", loop_folder(tmp_path / "out", "b") / SESSION)
    assert written(tmp_path / "out/loops") == before
    assert not correction_file(tmp_path / "out", "a").exists()
    with pytest.raises(ReadError, match="no loop called"):
        take_in(job_of(), "c", loop_folder(tmp_path / "out", "b") / SESSION)


def test_agreement_with_references(tmp_path: Path, job_of: Callable) -> None:
    """Against itself shifted by a pixel on one frame; numbers by hand."""
    write_loop(tmp_path / "in/a.tif")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 18:38] = 1
    starts, references = tmp_path / "starts", tmp_path / "references"
    starts.mkdir()
    references.mkdir()
    tifffile.imwrite(starts / "a.tif", np.stack([mask] * 3), photometric="minisblack")
    shifted = np.stack([mask * 0, np.roll(mask, 1, axis=0), mask])
    tifffile.imwrite(references / "a.tif", shifted, photometric="minisblack")
    inputs = {"loops": [str(tmp_path / "in")], "references": str(references)}
    run_job(job_of(inputs=inputs, start={"prompts": str(starts)}))
    rows = table(tmp_path / "out/agreement.csv")
    assert [row["frame"] for row in rows] == ["1", "2"]
    assert [float(row["dice"]) for row in rows] == [2 * 19 * 20 / 800, 1.0]
    assert [float(row["hd95"]) for row in rows] == [0.5, 0.0]  # one pixel of 0.5 mm
    assert {row["area"] for row in rows} == {"50.0000"}
    html = (tmp_path / "out/report.html").read_text()
    assert "limits of agreement" in html
    assert "+0.0" in html


def test_objects_and_their_references_go_by_name(tmp_path: Path) -> None:
    """One home for who belongs to whom: the wall is not scored against the lumen because their numbers are the same."""
    labels = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    labels[0, :10], labels[0, 20:] = 1, 2
    own = Masks(labels, {1: "lumen", 2: "wall"})
    write_masks(tmp_path / "truth.json", Masks(np.take([0, 2, 1], labels), {1: "vessel", 2: "Lumen"}))
    assert [(entry.object_id, entry.name, entry.dice) for entry in compare(own, tmp_path / "truth.json")] == [
        (1, "lumen", 1.0)
    ]
    write_masks(tmp_path / "unnamed.json", Masks(labels))
    assert [entry.dice for entry in compare(own, tmp_path / "unnamed.json")] == [1.0, 1.0]
    write_masks(tmp_path / "others.json", Masks(labels, {1: "bone", 2: "nerve"}))
    with pytest.raises(ReadError, match=r"it has bone, nerve, the loop has lumen, wall\. Give what is the same"):
        compare(own, tmp_path / "others.json")


def test_no_table_of_a_batch_runs_a_name_as_a_formula(tmp_path: Path, job_of: Callable) -> None:
    """Names come from files and from other people; a spreadsheet runs what begins like a formula, "=1+..." too."""
    for name in ("=1+loop", "@bad"):
        write_loop(tmp_path / f"in/{name}.tif")
    (tmp_path / "in/@bad.tif").write_bytes(b"II*\0nothing")
    references = tmp_path / "references"
    references.mkdir()
    tifffile.imwrite(references / "=1+loop.tif", np.ones((3, HEIGHT, WIDTH), np.uint8), photometric="minisblack")
    inputs = {"loops": [str(tmp_path / "in")], "references": str(references)}
    job = job_of(inputs=inputs, objects={1: "=cmd|x"})
    assert [failure.name for failure in run_job(job).failures] == ["@bad"]
    assert {row["loop"] for row in table(tmp_path / "out/measurements.csv")} == {"'=1+loop"}
    for row in table(tmp_path / "out/agreement.csv"):
        assert (row["loop"], row["object"]) == ("'=1+loop", "'=cmd|x")
    assert [row["loop"] for row in table(tmp_path / "out/failures.csv")] == ["'@bad"]
    assert [row["loop"] for row in table(tmp_path / "out/identifying/names.csv")] == ["'=1+loop", "'@bad"]
    assert "&#x27;=cmd" not in (tmp_path / "out/report.html").read_text(), "the quote is the table's alone"
    assert [failure.name for failure in read_failures(tmp_path / "out")] == ["@bad"]
    assert [row["name"] for row in table(tmp_path / "out/identifying/manifest.csv")] == ["=1+loop"]


def test_a_dicom_segmentation_says_itself_which_frame_it_is_of(tmp_path: Path, job_of: Callable) -> None:
    """Also where those that follow are empty and not in the file: as a start, and as a reference."""
    loop = read_cine(write_dicom(tmp_path / "in/a.dcm", 1, "X"))
    labels = np.zeros((2, *loop.shape_hw), np.uint8)
    labels[0, 10:30, 20:50] = 1
    starts = tmp_path / "starts"
    write_masks(starts / "a.dcm", Masks.of_cine(loop, labels))
    assert len(read_masks(without_empty_frames(starts / "a.dcm"))) == 1
    job = job_of(
        inputs={"loops": [str(tmp_path / "in")], "references": str(starts)},
        start={"prompts": str(starts), "frame": -1},
        outputs={"folder": str(tmp_path / "out"), "names": "files"},
    )
    assert run_job(job).failures == ()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/loops/a/masks.tif")[0], labels[0])
    (row,) = table(tmp_path / "out/agreement.csv")
    assert (row["frame"], float(row["dice"])) == ("0", 1.0)
    template = {"otherwise": "template", "template": str(tmp_path / "in/a.dcm"), "template_frame": 0}
    write_loop(tmp_path / "other/b.tif")
    other = job_of(
        inputs={"loops": [str(tmp_path / "other")]},
        start={**template, "template_mask": str(starts / "a.dcm")},
        outputs={"folder": str(tmp_path / "others")},
    )
    assert run_job(other).failures == ()


# The job file -----------------------------------------------------------------------------------------------------


def test_a_job_survives_its_file_and_the_template_lists_everything(tmp_path: Path, job_of: Callable) -> None:
    job = job_of(objects={1: "lumen"}, post={"smooth_px": 1.5}, workers={"slurm": {"jobs": 2}})
    write_job(tmp_path / "job.yaml", job)
    assert read_job(tmp_path / "job.yaml") == job
    assert main(["batch", str(tmp_path / "new.yaml"), "--template"]) == 0
    assert yaml.safe_load((tmp_path / "new.yaml").read_text()) == to_dict(JobSettings())
    assert main(["batch", str(tmp_path / "new.yaml"), "--template"]) == 7
    assert main(["batch", str(tmp_path / "new.yaml")]) == 2  # names no loops


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "job.yaml cannot be read: No such file or directory. Name"),
        ("inputs: [1\nmodel: {", r"it is not YAML at line 2, column 6: "),
        ("name: B\xe4r", "not in UTF-8"),
        ("name: \x01", "it is not YAML"),
    ],
)
def test_a_job_file_that_cannot_be_read_is_said_in_words(content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "job.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=words) as caught:
        read_job(tmp_path / "job.yaml")
    assert "Errno" not in str(caught.value)
    assert "<" not in str(caught.value)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"inputs": {"lops": []}}, "loops"),
        ({"outputs": {"folder": "x", "formats": ["tif"]}}, "tiff"),
        ({"objects": {"lumen": 1}}, "objects"),
        ({"workers": {"count": "two"}}, "it should be a whole number"),
        ({"workers": {"threads": 1.5}}, "it should be a whole number"),
        ({"workers": {"slurm": {"cores": 0}}}, "Choose at least 1"),
        ({"model": {"image_size": 100}, "outputs": {"folder": "x"}, "inputs": {"loops": ["x"]}}, "32"),
        ({"start": {"otherwise": "template"}, "outputs": {"folder": "x"}, "inputs": {"loops": ["x"]}}, "template"),
    ],
)
def test_a_wrong_job_is_refused_in_words(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=words):
        read_job(tmp_path / "job.yaml")
