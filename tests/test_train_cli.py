"""`uniultra train`: a run from a file, its exit codes, what it says, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from napari_uniultra.cli import main
from napari_uniultra.core.settings import read_settings
from napari_uniultra.core.stop_file import STOP
from napari_uniultra.model.load import load_model
from napari_uniultra.training.checkpoints import CHECKPOINT, MODEL, load_training_checkpoint
from napari_uniultra.training.config import FineTuneConfig
from napari_uniultra.training.events import EVENTS, read_events
from napari_uniultra.training.peft_methods import METHODS
from napari_uniultra.training.places import absolute


def write_case(folder: Path, name: str, centre: int) -> tuple[str, str]:
    y, x = np.mgrid[0:64, 0:64]
    mask = (y - 32) ** 2 + (x - centre) ** 2 <= 100
    for kind, pixels in (("images", 60 + 120 * mask), ("masks", 255 * mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{name}.png")
    return f"images/{name}.png", f"masks/{name}.png"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run of three steps of a light network on three images."""
    lines = ["frames,masks,subject,part"]
    for number, part in enumerate(("train", "train", "val")):
        lines.append(",".join((*write_case(tmp_path / "data", str(number), 24 + 8 * number), f"s{number}", part)))
    (tmp_path / "data" / "manifest.csv").write_text("\n".join(lines) + "\n")
    model = {"base": None, "architecture": "uniultra-mini", "image_size": 64, "light_memory": True}
    values = {
        "output": str(tmp_path / "run"),
        "model": model,
        "method": {"name": "decoder_only"},
        "data": {"manifests": [str(tmp_path / "data" / "manifest.csv")], "batch": 2, "workers": 0},
        "run": {"steps": 3, "device": "cpu", "log_every": 1, "threads": torch.get_num_threads()},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def train(config: Path, *arguments: str) -> int:
    return main(["train", str(config), *arguments])


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_ends_as_a_model_and_is_not_run_twice(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(config, "--set", "run.steps=2", "--set", "run.validate_every=2") == 0
    shown = capsys.readouterr()
    assert f"Done after step 2; results are in {run}" in shown.out
    assert "2/2" in shown.err  # the progress bar
    assert "validation: dice" in shown.err
    assert load_model(run / MODEL, "cpu").config.image_size == 64
    assert train(config, "--resume") == 0  # one step more, as the file has it
    assert load_training_checkpoint(run / CHECKPOINT)["step"] == 3
    assert train(config) == 0
    ends = [event for event in read_events(run) if event["event"] == "end"]
    assert [(end["reason"], end["step"]) for end in ends] == [("done", 2), ("done", 3), ("done", 3)]
    assert train(config, "--restart", "--set", "run.steps=1") == 0
    assert load_training_checkpoint(run / CHECKPOINT)["step"] == 1
    assert [event["event"] for event in read_events(run)].count("start") == 1


def test_a_stop_file_stops_it(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STOP).touch()
    assert train(config) == 0
    assert "Stopped by the file STOP after step 1" in capsys.readouterr().out


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, "--dry-run") == 0
    shown = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert lines["model"].startswith("uniultra-mini, input 64 px")
    assert lines["method"] == "decoder_only"
    assert re.match(r"[\d,]+ parameters, [\d.]+ % of all", lines["trained"])
    assert lines["train"] == "2 subjects, 2 cases, 2 annotated frames"
    assert lines["val"] == "1 subject, 1 case, 1 annotated frame"
    assert "3 steps of" in lines["time"]
    assert "GB free" in lines["memory"]
    assert "Little to learn from (2 annotated frames of 2 subjects)" in shown
    assert not (tmp_path / "run").exists()


def test_a_dry_run_warns_of_empty_masks_and_is_data_for_programs(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0", "1"):
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "data" / "masks" / f"{name}.png")
    trained = tmp_path / "data" / "masks" / "2.png"
    lines = (tmp_path / "data" / "manifest.csv").read_text().replace("s2,val", "s2,train")
    (tmp_path / "data" / "manifest.csv").write_text(lines)
    assert train(config, "--dry-run", "--json", "--set", "run.validate_every=2") == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(part["part"], part["frames"]) for part in plan["parts"]] == [("train", 3)]
    assert plan["steps"] == 3
    assert 0 < plan["trained"] < plan["parameters"]
    assert plan["seconds"] > 0
    assert plan["memory_mb"] > 100
    assert not any("empty" in words for words in plan["warnings"])
    assert any("No case is in the val part" in words for words in plan["warnings"])
    trained.write_bytes((tmp_path / "data" / "masks" / "0.png").read_bytes())
    assert train(config, "--dry-run", "--json") != 0  # there is nothing that a step could learn from


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "run.stepz=3"], 2, "Did you mean 'steps'"),
        (["--set", "run.steps"], 2, "NAME=VALUE"),
        (["--set", "run.steps=many"], 2, "run.steps is 'many'"),
        (["--set", "method.name=ch_adaptor"], 2, "Did you mean 'ch_adapter'"),
        (["--set", "data.manifests=[nowhere.csv]"], 3, "nowhere.csv"),
        (["--set", "model.base=nowhere"], 4, "no model or file"),
        (["--resume"], 4, "no run to resume"),
        (["--set", "run.device=tpu"], 6, "no device 'tpu'"),
        (["--set", "optimiser.learning_rate=1e30", "--set", "run.bad_steps=1"], 8, "not a number"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(
    config: Path, arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, *arguments) == code
    assert words in last_error(capsys)


def test_an_output_that_cannot_be_written_is_seen_at_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "--set", f"output={config}/run") == 7
    assert "cannot be written" in last_error(capsys)


def test_a_changed_setting_is_refused_by_name(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "--set", "run.steps=1") == 0
    assert train(config, "--set", "prompts.jitter=0.1", "--set", "loss.mask=released") == 2
    message = last_error(capsys)
    assert "loss.mask was 'dice_bce', is 'released'" in message
    assert "prompts.jitter" in message
    assert "--restart" in message


def test_a_run_goes_on_only_with_its_cases_wherever_they_lie(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, "--set", "run.steps=1") == 0
    manifest = tmp_path / "data" / "manifest.csv"
    told = manifest.read_text()
    manifest.write_text(told.replace("s1,train", "s1,val").replace("s2,val", "s2,train"))
    assert train(config, "--resume") == 2
    assert "began with other cases" in last_error(capsys)
    manifest.write_text(told)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert train(config, "--resume", "--set", f"data.manifests=[{tmp_path / 'moved' / 'manifest.csv'}]") == 0
    assert load_training_checkpoint(tmp_path / "run" / CHECKPOINT)["step"] == 3


def test_cases_are_the_same_by_relative_and_absolute_paths(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "set"
    cases = [write_case(data / "still" / "disc", str(number), 24 + 8 * number)[0] for number in range(3)]
    images = [f"still/disc/{image}" for image in cases]
    write_case(data / "cine" / "disc_loop", "0", 24)
    (data / "cine" / "disc_loop" / "images").rename(data / "cine" / "disc_loop" / "frames")
    (data / "splits.json").write_text(json.dumps({"train": [*images[:2], "cine/disc_loop"], "val": images[2:]}))
    monkeypatch.chdir(data)
    assert train(config, "--set", "run.steps=1", "--set", "data.manifests=[.]") == 0
    assert train(config, "--resume", "--set", f"data.manifests=[{data}]") == 0
    assert load_training_checkpoint(tmp_path / "run" / CHECKPOINT)["step"] == 3


def test_a_models_name_stays_one_beside_a_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "uniultra-mini").mkdir()
    (tmp_path / "own").mkdir()

    def base(name: str) -> str:
        settings = {"output": "run", "model": {"base": name}}
        return absolute(read_settings(FineTuneConfig, settings), tmp_path).model.base

    assert [base("uniultra-mini"), base("own"), base("missing")] == ["uniultra-mini", str(tmp_path / "own"), "missing"]


def test_an_image_that_cannot_be_read_is_left_out(config: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "images" / "1.png").write_bytes(b"not a picture")
    assert train(config) == 0
    notices = [event["text"] for event in read_events(tmp_path / "run") if event["event"] == "notice"]
    assert any("left out" in text for text in notices)


def test_methods_are_listed_with_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--methods"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{shown}" for name in METHODS)
    assert "rank (4): Rank of the updates." in shown


def test_without_a_configuration_it_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train"])
    assert end.value.code == 2
    assert "CONFIG" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches processes in another way there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_cluster_end_all_processes_with_a_checkpoint_and_code_130(
    number: int, config: Path, tmp_path: Path
) -> None:
    code = "import sys; from napari_uniultra.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", str(config), "--set", "run.steps=100000", "--set", "data.workers=1"]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL, start_new_session=True
    )
    events = tmp_path / "run" / EVENTS
    while process.poll() is None and not (events.exists() and '"event": "step"' in events.read_text()):
        time.sleep(0.1)
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) == 130
    assert load_training_checkpoint(tmp_path / "run" / CHECKPOINT)["step"] >= 1


def test_bfloat16_on_a_cpu_stays_away_from_its_matrix_units(config: Path) -> None:
    """oneDNN names the instructions that it may use; where a processor has none of the kind, that is true anyway."""
    code = "import sys; from napari_uniultra.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", str(config), "--set", "run.precision=bf16"]
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    ended = subprocess.run(command, env={**environment, "ONEDNN_VERBOSE": "1"}, capture_output=True, text=True)
    assert ended.returncode == 0
    if "isa:" not in ended.stdout:
        pytest.skip("this PyTorch has no oneDNN")
    assert "amx" not in ended.stdout.lower()
