"""`uniultra bench`: its tables have what they promise, and its figures are those of what they name."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_uniultra.benchmarks import contenders, gpu, process
from napari_uniultra.benchmarks.interaction import first_mask, prompt_times, run_interaction
from napari_uniultra.benchmarks.long_loop import FEWEST, run_long
from napari_uniultra.benchmarks.loops import SyntheticLoop, boxes
from napari_uniultra.benchmarks.models import benchmark_model
from napari_uniultra.benchmarks.report import judged
from napari_uniultra.benchmarks.training import Plan, run_training
from napari_uniultra.cli import main
from napari_uniultra.errors import CheckpointError, ConfigError, ResourceError
from napari_uniultra.model import compiled


def rows_of(table: str) -> dict[str, list[str]]:
    """A table's rows below its head, by their first cell."""
    heading, _, _, ruler, *lines = table.splitlines()
    assert re.search(r"Python 3\.\d+\.\d+, torch .*\d{4}-\d\d-\d\d", heading), "machine, versions and date"
    assert set(ruler) == {"|", "-"}
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {ruler.count("|") - 1}
    return {first: rest for first, *rest in cells}


def number(cell: str) -> float:
    return float(cell.split()[0])


# The loop


@pytest.mark.parametrize("discs", [1, 4, 16])
def test_boxes_lie_around_dark_discs(discs: int) -> None:
    frame = SyntheticLoop(3, (120, 160), max(discs, 4))[0].astype(float)
    found = boxes(discs, (120, 160))
    assert len(set(found)) == discs
    for left, top, right, bottom in found:
        middle = frame[int((top + bottom) / 2), int(left) + 3 : int(right) - 3]
        assert middle.mean() < 0.5 * frame[:, 0].mean()


def test_a_loop_ends_where_it_says() -> None:
    loop = SyntheticLoop(2, (60, 80))
    assert np.stack(list(loop)).shape == loop.shape
    assert not np.array_equal(loop[0], loop[1])


def test_a_target_is_met_or_missed() -> None:
    assert judged("a", 60.0, 60, "ms").endswith("| at most 60 ms | met |")
    assert judged("a", 61.0, 60, "ms").endswith("| missed |")


# Interaction


def test_each_prompt_is_answered_anew(reference_model: Any) -> None:
    session = first_mask(reference_model)
    assert session.step(0).masks[1].shape == session.cine.shape_hw
    asked = []
    answer = session._engine.answer
    session._engine.answer = lambda *given: asked.append(given) or answer(*given)
    times = prompt_times(session, 3)
    assert len(asked) == len(times["box"]) + len(times["click"]) == 6, "nothing was answered from what was known"
    assert session.prompts[1, 0].box is not None
    assert len(session.prompts[1, 0].points) == 1


def test_interaction_in_fresh_processes(checkpoint: Path) -> None:
    rows = rows_of(run_interaction(str(checkpoint), quick=True))
    assert all(number(cells[0]) > 0 for cells in rows.values())
    assert [cells[1] for cells in rows.values()][:3] == ["", "at most 2 s", "at most 3 s"]
    assert "click on an embedded frame, slowest of 10" in rows


# Long loops


def test_a_long_loop_and_one_that_began_late(checkpoint: Path) -> None:
    rows = rows_of(run_long(str(checkpoint), FEWEST, image_size=64))
    parts = [rows[f"part {part} of 10"][0] for part in range(1, 11)]
    memory = [float(re.search(r"(\d+) MB", cell)[1]) for cell in parts]
    grown = number(rows["growth of memory, first part to last"][0])
    assert grown == pytest.approx(memory[-1] - memory[0], abs=1)
    assert rows["time per frame beside a session that began just before, same frames"][1] == "at most 5 %"
    pointer, whole_mask = 256 * 4, 240 * 320 / 8
    assert pointer <= number(rows["results that are kept, by frame"][0]) <= pointer + whole_mask
    assert number(rows["autosave, by frame"][0]) > 0


def test_too_few_frames_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=str(FEWEST)):
        run_long(str(checkpoint), FEWEST - 1)
    assert main(["bench", "--long", "3", "--model", str(checkpoint)]) == 2


def test_an_input_size_where_there_is_none_to_choose(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--interaction", "--image-size", "256"]) == 2
    assert "--image-size" in capsys.readouterr().err


# Start-up


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there a screen may be missing")
def test_no_screen_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["bench", "--start-up"]) == 6
    assert "with-display.sh" in capsys.readouterr().err


@pytest.mark.gui
@pytest.mark.slow
def test_start_up_with_and_without_the_panel() -> None:
    from napari_uniultra.benchmarks.start_up import PANEL, run_start_up

    rows = rows_of(run_start_up(quick=True))
    assert 0.1 < number(rows["napari alone"][0]) < number(rows[f"napari with the panel '{PANEL}'"][0])


@pytest.mark.gui
def test_a_napari_that_does_not_start_is_told(tmp_path: Path) -> None:
    from napari_uniultra.benchmarks.start_up import _seconds

    with pytest.raises(ResourceError, match="no such panel"):
        _seconds("no such panel", tmp_path)


# Training


def test_training_beside_a_plain_loop() -> None:
    plan = Plan("cpu", steps=2, batch=2, image_size=64, large="uniultra-mini", large_size=64)
    rows = rows_of(run_training(plan))
    ours, plain, ratio = rows["speed"]
    assert number(ours) > 0 < number(plain)
    assert 0.2 < number(ratio) < 5
    waits = [cells[0] for case, cells in rows.items() if "waiting for data" in case]
    assert len(waits) == 2
    assert all(0 <= float(re.search(r"([\d.]+) %", cell)[1]) <= 100 for cell in waits)
    assert sum("activation checkpointing" in case for case in rows) == 2


# GPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--gpu"]) == 6
    assert "no GPU" in capsys.readouterr().err


def test_what_runs_on_a_gpu_runs_on_the_cpu(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_BACKEND", "eager")  # PyTorch's compiler itself takes minutes on a CPU
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # the same for processes of their own
    plan = gpu.Plan(
        ((str(checkpoint), "small"),), image_size=64, objects=(2,), repeats=1, frames=3, official="Official"
    )
    rows = rows_of(gpu.run_gpu("cpu", plan))
    assert "(small)" in next(iter(rows))
    assert number(rows["images alone: embed, box to mask"][0]) > 0
    for note in ("", "; half, compiled"):
        ours, official, ratio = rows[f"propagate one frame, 2 objects{note}"]
        assert number(ratio) == pytest.approx(number(ours) / number(official), rel=0.02)
    assert number(rows["compiling, and first 3 frames"][0]) < 60
    assert 50 < number(rows["peak memory, 3 frames, 2 objects"][0]) < 5000
    word, mean, *_ = rows["half beside full precision, 3 frames"][0].split()
    assert word == "Dice"
    assert 0.9 < float(mean) <= 1


def test_the_optimised_official_predictor_tracks_as_the_plain_one(
    reference_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # it takes minutes; all else is as on a GPU
    tf32 = torch.backends.cudnn.allow_tf32
    frames = np.stack(list(SyntheticLoop(3, (60, 80))))
    found = []
    for kind in (contenders.Official, contenders.OfficialOptimised):
        contender = kind(reference_model)
        contender.open(frames)
        contender.embed(1)
        contenders.prompt(contender, boxes(2, (60, 80)))
        found.append([masks for _, masks in contender.propagate()])
    assert [set(masks) for masks in found[1]] == [{1, 2}] * 3
    assert np.mean(found[0][0][1] == found[1][0][1]) > 0.9, "bfloat16 changes a little"
    assert torch.backends.cudnn.allow_tf32 == tf32
    assert not torch.is_autocast_enabled("cpu")


def test_an_architecture_without_weights_gets_random_ones() -> None:
    model = benchmark_model("sam2.1-tiny", "cpu", 64)
    assert model.name == "sam2.1-tiny (random weights)"
    assert model.config.image_size == model.network.image_size == 64
    with pytest.raises(CheckpointError, match="no-such-model"):
        benchmark_model("no-such-model", "cpu")


def test_ours_and_the_official_predictor_at_another_size(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "file" / "table.md"
    assert main(["bench", "--quick", "--model", "sam2.1-tiny", "--image-size", "64", "--out", str(out)]) == 7
    said = capsys.readouterr().out
    assert "sam2.1-tiny (random weights), 64 px" in said
    cases = [line.split("|")[1].strip() for line in said.splitlines() if " ms |" in line]
    assert cases == [
        "embed a frame",
        "box to mask, embedded frame",
        "propagate one frame, 1 object",
        "propagate one frame, 4 objects",
        "propagate one frame, 1 object, ours in close-ups",
    ]
    assert "peak memory" not in said  # that is measured with weights that are there


def test_peak_memory_is_that_of_the_process() -> None:
    import psutil

    resident = psutil.Process(os.getpid()).memory_info().rss / 2**20
    assert 0.9 * resident < process.peak_megabytes() < 100 * resident


def test_a_large_parents_peak_is_not_the_childs(checkpoint: Path) -> None:
    ballast = np.ones(1 << 28)  # 2 GiB that are really there
    assert process.in_own_process("track", contender="Ours", model=str(checkpoint), frames=2)["peak_mb"] < 1500
    assert ballast[-1] == 1
