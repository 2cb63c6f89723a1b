"""The `uniultra` command: its files, its messages and its exit codes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from napari_uniultra.cli import exit_codes, main
from napari_uniultra.cli.exit_codes import exit_code
from napari_uniultra.cli.job import OUTPUTS, RUN
from napari_uniultra.errors import (
    CheckpointError,
    PromptError,
    ReadError,
    ResourceError,
    UniUltraError,
    WriteError,
)
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.writers import write_overlay_video, write_prompts
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import architecture

FRAMES, HEIGHT, WIDTH = 6, 40, 56


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny untrained model, enough to see that everything is connected."""
    config = architecture("uniultra-mini", image_size=64)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    torch.manual_seed(0)
    save_checkpoint(path, build_network(config), config, {"licence": "Apache-2.0"})
    return str(path)


def write_loop(path: Path, frames: int = FRAMES) -> Path:
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (frames, HEIGHT, WIDTH), dtype=np.uint8))
    return path


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    return write_loop(tmp_path / "CANARY^PATIENT loop.tif")


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def segment(loop: Path, model: str, out: Path, *more: object) -> int:
    return run("segment", loop, "--out", out, "--model", model, "--device", "cpu", *more)


# --- segment


def test_segment_writes_everything(loop: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "new"
    assert segment(loop, model, out, "--box", "10,8,30,25", "--box", "35,10,50,30", "--frame", 2) == 0
    assert {path.name for path in out.iterdir()} == {*OUTPUTS, RUN}
    masks = tifffile.imread(out / "masks.tif")
    assert masks.shape == (FRAMES, HEIGHT, WIDTH)
    with open(out / "measurements.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["frame"]), int(row["object_id"])) for row in rows] == [
        (t, i) for t in range(FRAMES) for i in (1, 2)
    ]
    for row in rows:  # of overlapping objects the higher number is on top: object 2 is whole in the label image
        if row["object_id"] == "2":
            assert float(row["area_px"]) == np.count_nonzero(masks[int(row["frame"])] == 2)
    assert len(read_cine(out / "overlay.mp4")) == FRAMES
    prompts = json.loads((out / "prompts.json").read_text())
    assert prompts["objects"][1]["frames"] == {"2": {"box": [35.0, 10.0, 50.0, 30.0]}}
    record = json.loads((out / RUN).read_text())
    assert record["complete"] is True
    assert record["frames_with_results"] == FRAMES
    printed = capsys.readouterr()
    assert str(out / "masks.tif") in printed.out
    assert f"{FRAMES}/{FRAMES}" in printed.err


def test_nothing_of_the_file_name_is_in_the_results(loop: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(loop, model, out, "--box", "10,8,30,25")
    for path in out.iterdir():
        assert "CANARY" not in path.name
        assert b"CANARY" not in path.read_bytes()


def test_the_written_prompts_give_the_same_masks(loop: Path, model: str, tmp_path: Path) -> None:
    segment(loop, model, tmp_path / "a", "--box", "10,8,30,25", "--frame", 3)
    assert segment(loop, model, tmp_path / "b", "--prompts", tmp_path / "a" / "prompts.json") == 0
    first, second = (tifffile.imread(tmp_path / name / "masks.tif") for name in "ab")
    np.testing.assert_array_equal(first, second)
    records = [json.loads((tmp_path / name / RUN).read_text()) for name in "ab"]
    assert records[0]["fingerprint"] == records[1]["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "frames"),
    [
        (("--direction", "forward"), [3, 4, 5]),
        (("--direction", "backward"), [0, 1, 2, 3]),
        (("--start", 2, "--stop", 4), [2, 3, 4]),
    ],
)
def test_a_part_of_the_loop(arguments: tuple, frames: list[int], loop: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert segment(loop, model, out, "--box", "10,8,30,25", "--frame", 3, *arguments) == 0
    with open(out / "measurements.csv", newline="", encoding="utf-8") as file:
        assert [int(row["frame"]) for row in csv.DictReader(file)] == frames


def test_frames_that_are_not_on_the_way_are_said(
    loop: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for begin, words in ((("--start", 4), "frame 4"), (("--frame", 3), "the prompts")):
        backwards = ("--direction", "forward", *begin, "--stop", 2)
        assert segment(loop, model, tmp_path / "out", "--box", "10,8,30,25", *backwards) == 5
        assert f"forward from {words} there is no way to frame 2" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_other_files_in_the_folder_stay(loop: Path, model: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        assert segment(loop, model, tmp_path, "--box", "10,8,30,25") == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} >= {"notes.txt", *OUTPUTS, loop.name}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_results_are_replaced_only_as_their_run_left_them(
    loop: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment(loop, model, out, "--box", "10,8,30,25") == 0
    written = (out / "masks.tif").stat().st_mtime_ns
    capsys.readouterr()
    assert segment(loop, model, out, "--box", "10,8,30,25") == 0
    assert "there already" in capsys.readouterr().err
    assert (out / "masks.tif").stat().st_mtime_ns == written
    assert segment(loop, model, out, "--box", "10,8,30,25", "--force") == 0
    assert segment(loop, model, out, "--box", "20,8,40,25") == 0  # other results of ours, which can be made again
    (out / "measurements.csv").write_text("corrected by hand")
    for box in ("20,8,40,25", "10,8,30,25"):
        assert segment(loop, model, out, "--box", box) == 7
        assert "measurements.csv exists already" in capsys.readouterr().err
    assert (out / "measurements.csv").read_text() == "corrected by hand"
    assert segment(loop, model, out, "--box", "20,8,40,25", "--force") == 0
    assert (out / "measurements.csv").read_text().startswith("frame,")


@pytest.mark.parametrize("name", ["measurements.csv", "run.json", "masks.json"])
def test_files_of_others_are_not_replaced(name: str, loop: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    assert segment(loop, model, out, "--box", "10,8,30,25", "--format", "coco") == 7
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "{}"


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit for the size of files")
def test_what_a_full_disk_left_is_taken_as_our_own(
    loop: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import resource

    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (1000, 4 << 10):  # bytes: nothing is taken, or all but the contact sheet
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            assert segment(loop, model, out, "--box", "10,8,30,25") == 7
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        said = capsys.readouterr().err
        assert "cannot be written" in said
        assert ("Tracking" in said) == (limit > 1000)
    assert {path.name for path in out.iterdir()} == {"masks.tif", "measurements.csv", "prompts.json", RUN}
    assert json.loads((out / RUN).read_text())["complete"] is False
    assert segment(loop, model, out, "--box", "10,8,30,25") == 0
    assert json.loads((out / RUN).read_text())["complete"] is True


def test_a_folder_of_masks_is_replaced_only_as_its_run_left_it(
    loop: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (("--box", box, "--format", "png") for box in ("10,8,30,25", "20,8,40,25"))
    for asked in (first, second):
        assert segment(loop, model, tmp_path / "out", *asked) == 0
        assert "there already" not in capsys.readouterr().err
    stack = tifffile.imread(tmp_path / "out/masks.tif")
    own = sorted((tmp_path / "out/masks_png").glob("*.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(own[0])), stack[0])
    own[0].write_bytes(b"corrected by hand")
    for asked in ((*first, "--force"), first, second):
        assert segment(loop, model, tmp_path / "out", *asked) == 7
        assert "masks_png exists already" in capsys.readouterr().err
    assert own[0].read_bytes() == b"corrected by hand"


def test_a_folder_of_masks_that_no_record_lists_counts_as_there(
    loop: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, first, second = tmp_path / "out", *(("--box", box, "--format", "png") for box in ("10,8,30,25", "20,8,40,25"))
    assert segment(loop, model, out, *first) == 0
    record = json.loads((out / RUN).read_text())
    del record["files"]["masks_png"]  # as an earlier version wrote it
    (out / RUN).write_text(json.dumps(record))
    capsys.readouterr()
    assert segment(loop, model, out, *first) == 0
    assert "there already" in capsys.readouterr().err
    for asked in (second, (*second, "--force")):
        assert segment(loop, model, out, *asked) == 7
        said = capsys.readouterr().err
        assert "masks_png exists already" in said
        assert "remove it" in said.lower()
        assert "--force" not in said


def test_what_a_system_leaves_in_a_folder_of_masks_is_no_change(
    loop: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, first, second = tmp_path / "out", *(("--box", box, "--format", "png") for box in ("10,8,30,25", "20,8,40,25"))
    assert segment(loop, model, out, *first) == 0
    for name in (".DS_Store", "Thumbs.db"):
        (out / "masks_png" / name).write_bytes(b"x")
    capsys.readouterr()
    assert segment(loop, model, out, *first) == 0
    assert "there already" in capsys.readouterr().err
    assert segment(loop, model, out, *second) == 0
    stack = tifffile.imread(out / "masks.tif")
    own = sorted((out / "masks_png").glob("*.png"))
    assert len(own) == len(stack)
    np.testing.assert_array_equal(np.asarray(Image.open(own[0])), stack[0])
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_masks_that_are_corrected_while_others_are_made_stay(
    loop: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert segment(loop, model, out, "--box", "10,8,30,25", "--format", "png") == 0
    own = min((out / "masks_png").iterdir())

    def write_and_correct(*arguments: object) -> None:
        write_overlay_video(*arguments)
        own.write_bytes(b"corrected by hand")

    monkeypatch.setattr("napari_uniultra.io.writers.write_overlay_video", write_and_correct)
    assert segment(loop, model, out, "--box", "20,8,40,25", "--format", "png") == 7
    assert "masks_png exists already" in capsys.readouterr().err
    assert own.read_bytes() == b"corrected by hand"


def test_a_file_that_was_written_last_before_a_stop_is_our_own(
    loop: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_stop(*arguments: object) -> None:
        write_prompts(*arguments)
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("napari_uniultra.io.writers.write_prompts", write_and_stop)
        assert segment(loop, model, out, "--box", "10,8,30,25") == 130
    assert (out / "prompts.json").is_file()
    assert segment(loop, model, out, "--box", "10,8,30,25") == 0


def test_segment_writes_over_nothing_that_it_reads(model: str, tmp_path: Path) -> None:
    before = write_loop(tmp_path / "masks.tif").read_bytes()
    assert segment(tmp_path / "masks.tif", model, tmp_path, "--box", "10,8,30,25", "--force") == 7
    assert (tmp_path / "masks.tif").read_bytes() == before
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, frame in enumerate(tifffile.imread(tmp_path / "masks.tif")):
        tifffile.imwrite(frames / f"{number}.tif", frame)
    for out in (frames, frames / "results"):
        assert segment(frames, model, out, "--box", "10,8,30,25", "--force") == 7
    assert len(list(frames.iterdir())) == FRAMES
    assert segment(frames, model, tmp_path / "results", "--box", "10,8,30,25", "--stop", 1) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends Ctrl-C as a signal")
def test_ctrl_c_keeps_what_is_finished(model: str, tmp_path: Path) -> None:
    loop, out = write_loop(tmp_path / "long.tif", frames=600), tmp_path / "out"
    command = [sys.executable, "-c", "import sys; from napari_uniultra.cli import main; sys.exit(main())"]
    command += ["segment", str(loop), "--out", str(out), "--model", model, "--device", "cpu", "--box", "10,8,30,25"]
    environment = {**os.environ, "TQDM_MININTERVAL": "0", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment) as process:
        seen = b""
        while b" 3/600" not in seen:
            piece = process.stderr.read1(4096)
            assert piece, seen.decode()
            seen += piece
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().decode()
    assert process.returncode == 130, rest
    assert "writing what is finished" in rest
    assert "Traceback" not in rest
    record = json.loads((out / RUN).read_text())
    assert record["complete"] is False
    assert 3 <= record["frames_with_results"] < 600
    with open(out / "measurements.csv", newline="", encoding="utf-8") as file:
        done = [int(row["frame"]) for row in csv.DictReader(file)]
    assert done == list(range(record["frames_with_results"]))
    assert tifffile.imread(out / "masks.tif").shape == (600, HEIGHT, WIDTH)


@pytest.mark.parametrize("code_page", ["cp1252", "cp932"])
def test_output_that_is_piped_is_utf8_whatever_the_code_page(code_page: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "masks.tif", np.ones((2, HEIGHT, WIDTH), np.uint8))
    table = tmp_path / "心臓 ä" / "t.csv"
    command = [sys.executable, "-m", "napari_uniultra.cli", "measure", tmp_path / "masks.tif", "--out"]
    environment = {**os.environ, "PYTHONIOENCODING": code_page}
    done = subprocess.run([*command, table], capture_output=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout.decode().strip()) == (0, str(table)), done.stderr.decode()
    assert table.is_file()
    done = subprocess.run([*command, table.with_suffix(".ä")], capture_output=True, env=environment, timeout=60)
    assert done.returncode == 2
    assert "心臓 ä/t.ä does not end in .csv" in done.stderr.decode().replace("\\", "/")


# --- errors


def test_every_kind_of_error_has_its_code() -> None:
    kinds = {ReadError: 3, CheckpointError: 4, PromptError: 5, ResourceError: 6, MemoryError: 6, WriteError: 7}
    assert {kind: exit_code(kind("what")) for kind in kinds} == kinds
    assert exit_code(UniUltraError("what")) == exit_code(ValueError("what")) == 1


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (("a.tif cannot be read", "it is cut off", "Copy it"), "a.tif cannot be read: it is cut off. Copy it."),
        (("There is no 'lops'", "", "Did you mean 'loops'?"), "There is no 'lops'. Did you mean 'loops'?"),
        (("Nothing is there.", "the folder is empty."), "Nothing is there: the folder is empty."),
    ],
)
def test_errors_read_as_sentences(parts: tuple[str, ...], words: str) -> None:
    assert str(UniUltraError(*parts)) == words


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["segment", "{tmp}/none.dcm", "--box", "1,1,9,9", "--out", "{tmp}/o"], 3, "none.dcm"),
        (["segment", "{loop}", "--box", "1,1,9,9", "--out", "{tmp}/o", "--model", "none"], 4, "no model or file"),
        (["segment", "{loop}", "--box", "90,90,99,99", "--out", "{tmp}/o"], 5, "covers no pixel"),
        (["segment", "{loop}", "--box", "5,5,5,9", "--out", "{tmp}/o"], 5, "covers no pixel"),
        (["segment", "{loop}", "--box", "1,1,9,9", "--frame", "6", "--out", "{tmp}/o"], 5, "Frame 6 does not exist"),
        (["segment", "{loop}", "--box", "1,1,9,9", "--out", "{tmp}/o", "--format", "tif"], 7, "Use one of tiff, nrrd"),
        (["anonymise", "{tmp}", "--out", "{tmp}/o"], 3, "Name the files in it"),
        (["data", "check", "{tmp}"], 3, "No such file or directory. Name a manifest, or a folder with a splits.json"),
        (["data", "check", "{model}"], 3, "not in UTF-8. Name a table"),
        (["data", "import", "folders", "{tmp}", "--out", "{tmp}/m.csv"], 3, "has no folder images"),
        (["segment", "{loop}", "--prompts", "{tmp}/none.json", "--out", "{tmp}/o"], 5, "none.json"),
        (["segment", "{loop}", "--box", "1,1,9,9", "--out", "{model}"], 7, "is a file, not a folder"),
        (["weights", "info", "uniultra-l"], 4, "published none"),
        (["weights", "remove", "none"], 4, "was added"),
        (["weights", "download", "none"], 4, "cannot be downloaded"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    code: int,
    words: str,
    loop: Path,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*(argument.format(tmp=tmp_path, loop=loop, model=model) for argument in arguments)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert printed.err.startswith("uniultra: ")
    assert printed.err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_device(loop: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert segment(loop, model, tmp_path / "o", "--box", "1,1,9,9", "--device", "cuda") == 6
    assert "no device 'cuda'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["segment"],
        ["segment", "a.dcm", "--out", "o"],
        ["segment", "a.dcm", "--out", "o", "--box", "1,2,3"],
        ["segment", "a.dcm", "--out", "o", "--box", "a,b,c,d"],
        ["segment", "a.dcm", "--out", "o", "--box", "1,1,9,9", "--prompts", "p.json"],
        ["weights"],
    ],
    ids=" ".join,
)
def test_a_command_that_is_not_understood(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segment", "a.dcm", "--out", "o", "--box", "1,2,3"], "'1,2,3' is not a box: give four numbers"),
        (["segment", "a.dcm", "--out", "o", "--box", "a,b,c,d"], "is not a box"),
        (["segment", "a.dcm", "--out", "o", "--prompts", "p.json", "--frame", "3"], "--frame is the frame of --box"),
        (["measure", "a.tif", "--out", "t.csv", "--spacing", "0.2"], "is not the size of a pixel: give two numbers"),
    ],
)
def test_what_is_not_understood_is_said_in_words(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert words in capsys.readouterr().err


def test_help_and_documentation_tell_the_exit_codes(capsys: pytest.CaptureFixture[str], repo_root: Path) -> None:
    documented = (repo_root / "docs/shell.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    codes = {value for value in vars(exit_codes).values() if type(value) is int}
    codes |= {exit_codes.exit_code(kind("what")) for kind in (*UniUltraError.__subclasses__(), MemoryError)}
    assert codes == {*range(10), 130}
    assert all(f"\n  {code} " in text and f"\n| {code} |" in documented for code in codes)


# --- weights


def test_weights(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("weights", "add", model, "--name", "mine") == 0
    assert run("weights", "list") == 0
    text = capsys.readouterr().out
    assert "mine" in text
    assert "sam2.1-large" in text
    assert run("weights", "list", "--json") == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["mine"]["origin"] == "added"
    assert run("weights", "info", "mine") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["config"]["image_size"] == 64
    assert facts["card"] == {"licence": "Apache-2.0"}
    assert facts["sha256"] == listed["mine"]["sha256"]
    assert run("weights", "remove", "mine") == 0
    assert run("weights", "info", "mine") == 4


# --- doctor


def test_doctor(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("weights", "add", model, "--name", "mine")
    capsys.readouterr()
    code = run("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert {
        "napari-uniultra",
        "Python",
        "torch",
        "sam2",
        "napari",
        "Device cpu",
        "Memory",
        "Disk",
        "Video",
        "Qt",
    } <= set(findings)
    found = findings["torch"]["detail"]  # whether a build says after a plus what it is for differs between the two
    assert found.partition("+")[0] == torch.__version__.partition("+")[0]
    assert findings["Model mine"]["state"] == "ok"
    assert code == any(finding["state"] == "problem" for finding in findings.values())


def test_doctor_finds_a_damaged_model(model: str, isolated_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("weights", "add", model, "--name", "mine")
    path = isolated_home / "models" / "mine" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    assert run("doctor") == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "Model mine" in line)
    assert line.startswith("PROBLEM")
    assert "SHA-256" in line


# --- demo


def test_demo_computes_once(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    arguments = ("demo", "--out", out, "--model", model, "--device", "cpu")
    assert run(*arguments) == 0
    assert {path.name for path in out.iterdir()} >= {*OUTPUTS, RUN}
    written = (out / "masks.tif").stat().st_mtime_ns
    capsys.readouterr()
    assert run(*arguments) == 0
    assert "there already" in capsys.readouterr().err
    assert (out / "masks.tif").stat().st_mtime_ns == written
    (out / "overlay.mp4").unlink()
    assert run(*arguments) == 0
    assert (out / "overlay.mp4").exists()
    assert (out / "masks.tif").stat().st_mtime_ns > written
