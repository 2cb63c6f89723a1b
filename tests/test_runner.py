"""Runs of training as processes of their own: queued, stopped, resumed, killed, out of disk space, and what is read."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
from toy_training import toy_manifest, toy_settings

from napari_uniultra.core.lock import LOCK, InUseError, owner
from napari_uniultra.core.process import describe_process, this_process
from napari_uniultra.core.settings import read_settings, write_file
from napari_uniultra.core.stop_file import STOP
from napari_uniultra.errors import ReadError, TrainingError, WriteError
from napari_uniultra.model.load import load_model
from napari_uniultra.runner import job, launch
from napari_uniultra.runner.history import Curve, EventTail, Follower, History
from napari_uniultra.runner.place import runs_folder
from napari_uniultra.runner.product import CARD, evaluation_command, export, model_card, snapshot
from napari_uniultra.runner.registry import add_folder, delete_run, keep_draft, list_runs, new_run, remove_drafts
from napari_uniultra.runner.remote import write_remote
from napari_uniultra.runner.run import (
    CONFIG,
    DISTIL,
    INFO,
    JOB,
    LOG,
    RESULT,
    Run,
    RunInfo,
    State,
    Status,
    read_json,
    write_json,
)
from napari_uniultra.runner.turn import waits_for
from napari_uniultra.training.config import FineTuneConfig
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.training.ending import Ending
from napari_uniultra.training.events import EVENTS, Events, read_events
from napari_uniultra.training.layout import CHECKPOINT, MODEL, STUDENT

WAIT_S = 90


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Drafts of runs of a light network on three images; whatever still runs at the end is ended."""
    manifest = toy_manifest(tmp_path / "data")
    made: list[Run] = []

    def make(title: str = "Toy", **run_settings: object) -> Run:
        run = new_run(RunInfo(title))
        config = read_settings(FineTuneConfig, toy_settings(run.folder, manifest, **run_settings))
        write_file(config, run.folder / CONFIG)
        made.append(run)
        return run

    yield make
    for run in made:
        launch.end_now(run)


def wait_for(run: Run, *states: State, seconds: float = WAIT_S) -> str:
    end = time.monotonic() + seconds
    while (status := run.status()).state not in states:
        launch.reap()
        assert time.monotonic() < end, f"{status}: {log_of(run)}"
        time.sleep(0.1)
    return status.words


def wait_for_step(run: Run, step: int) -> None:
    end = time.monotonic() + WAIT_S
    while run.status().step < step:
        assert run.status().state.is_active, f"{run.status()}: {log_of(run)}"
        assert time.monotonic() < end, log_of(run)
        time.sleep(0.05)


def log_of(run: Run) -> str:
    return (run.folder / LOG).read_text() if (run.folder / LOG).exists() else "no log"


@pytest.mark.slow
def test_a_draft_becomes_a_model_with_a_stop_between(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(steps=100_000)
    assert list_runs() == []
    assert run.status().state is State.NEW
    launch.start(run)
    assert list_runs() == [run]
    wait_for_step(run, 2)
    assert run.status().state is State.RUNNING
    with pytest.raises(InUseError):
        launch.start(run)
    with pytest.raises(WriteError, match="Stop it first"):
        delete_run(run)
    before = read_events(run.folder)[-1]["step"]
    launch.ask_to_stop(run)
    assert "Resume goes on" in wait_for(run, State.STOPPED)
    stopped = run.status().step
    assert stopped >= before
    assert (run.folder / CHECKPOINT).exists()
    assert load_model(run.folder / MODEL, "cpu").config.image_size == 64

    values = {**run.settings_values()}
    values["run"]["steps"] = stopped + 2
    write_file(read_settings(FineTuneConfig, values), run.folder / CONFIG)
    assert run.can_resume
    launch.start(run)
    wait_for(run, State.DONE)
    starts = [event["step"] for event in read_events(run.folder) if event["event"] == "start"]
    assert starts == [0, stopped]
    assert run.status().step == stopped + 2
    assert f"step {stopped + 2}: end: done" in log_of(run)

    out = export(run, tmp_path / "given")
    card = (out / CARD).read_text()
    assert "# Toy" in card
    assert str(tmp_path) not in card
    assert load_model(out / MODEL, "cpu").config.image_size == 64
    command = evaluation_command(run)
    assert command[command.index("--part") + 1] == "val"
    delete_run(run)
    assert not run.folder.exists()


@pytest.mark.slow
def test_two_runs_take_turns_and_one_that_waits_can_leave(make_run: Callable[..., Run]) -> None:
    first, second, third = (make_run(title, steps=100_000) for title in ("first", "second", "third"))
    for run in (first, second, third):
        launch.start(run)
    wait_for_step(first, 1)
    assert [run.status().state for run in (second, third)] == [State.QUEUED, State.QUEUED]
    launch.ask_to_stop(second)
    assert wait_for(second, State.STOPPED) == "Taken out of the queue"
    launch.ask_to_stop(first)
    wait_for(first, State.STOPPED)
    wait_for_step(third, 1)
    assert second.status().state is State.STOPPED
    assert owner(first.folder) is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_trainer_is_told_and_goes_on_from_its_checkpoint(make_run: Callable[..., Run]) -> None:
    run, waiting = make_run(steps=100_000, save_every=2), make_run("waiting", steps=1)
    launch.start(run)
    launch.start(waiting)
    wait_for_step(run, 3)
    os.kill(owner(run.folder)["pid"], signal.SIGKILL)
    words = wait_for(run, State.FAILED)
    assert "ended from outside" in words
    wait_for(waiting, State.DONE)  # the turn of a killed one is free
    with open(run.folder / EVENTS, "ab") as file:
        file.write(b'{"event": "step", "st')  # what a kill within a write leaves
    launch.start(run)
    wait_for_step(run, read_events(run.folder)[-1]["step"] + 1)
    launch.ask_to_stop(run)
    wait_for(run, State.STOPPED)
    starts = [event["step"] for event in read_events(run.folder) if event["event"] == "start"]
    assert len(starts) == 2
    assert starts[1] >= 2
    assert starts[1] % 2 == 0


def test_a_bad_folder_of_data_is_told_in_words(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run()
    shutil.rmtree(tmp_path / "data")
    launch.start(run)
    assert "manifest" in wait_for(run, State.FAILED)
    assert run.can_resume


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk is mounted")
def test_a_full_disk_is_told_although_nothing_more_can_be_written(
    make_run: Callable[..., Run], tmp_path: Path, isolated_home: Path
) -> None:
    isolated_home.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(isolated_home)], check=False)
    if mounted.returncode:
        pytest.skip("disks cannot be mounted here")
    try:
        run = make_run(steps=4)
        launch.start(run)
        words = wait_for(run, State.FAILED)
        launch.reap()
    finally:
        subprocess.run(["umount", "-l", str(isolated_home)], check=True)
    assert "No space left" in words
    assert "Free some space" in words


def test_a_run_that_has_said_much_since_its_start_has_started(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.emit("start", 0, steps=5000)
    for step in range(10, 2000, 10):
        events.emit("step", step, loss=0.3, terms={"dice": 0.2, "focal": 0.1}, gradient_norm=0.5)
    run = add_folder(tmp_path)
    assert (run.status().state, run.status().step) == (State.FAILED, 1990)
    run.write_info(RunInfo("far", is_remote=True))
    assert (run.status().state, run.status().host) == (State.RUNNING, "another computer")


def test_what_ends_at_once_in_its_first_second_was_ended_by_a_person(make_run: Callable[..., Run]) -> None:
    run = make_run(steps=1)
    launch.start(run)
    launch.end_now(run)
    assert run.status().state is State.STOPPED
    assert run.status().words.startswith("Ended at once")


def test_a_number_of_a_process_that_is_used_again_is_no_running_run(make_run: Callable[..., Run]) -> None:
    run = make_run()
    keep_draft(run)
    reused = {**this_process(), "started": "earlier"}
    write_json(run.folder / JOB, {**reused, "queued": "2020-01-01T00:00:00.000+00:00"})
    assert run.status().state is State.FAILED
    write_json(run.folder / JOB, {**this_process(), "queued": "2020-01-01T00:00:00.000+00:00"})
    assert run.status().state is State.QUEUED
    (run.folder / JOB).unlink()  # before the fixture ends what runs


_LAUNCHER = """
import subprocess, sys, time
from napari_uniultra.core.lock import locked
from napari_uniultra.runner.place import slot_folder
if len(sys.argv) > 1:
    with locked(slot_folder()):
        print("at work", flush=True)
        sys.stdin.read()
else:
    subprocess.run([sys.executable, "-c", sys.orig_argv[2], "child"])
"""


def test_a_run_whose_python_starts_another_one_as_on_windows_is_starting(make_run: Callable[..., Run]) -> None:
    run = make_run()
    keep_draft(run)
    launcher = subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        write_json(run.folder / JOB, {**describe_process(launcher.pid), "queued": "2020-01-01T00:00:00.000+00:00"})
        assert run.status().state is State.QUEUED
        assert launcher.stdout.readline() == "at work\n"
        assert run.status().state is State.STARTING
    finally:
        launcher.communicate()


def test_a_run_of_another_computer_is_neither_ended_nor_waited_for(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / EVENTS).write_text('{"event": "start", "step": 0, "steps": 9}\n')
    elsewhere = {"pid": victim.pid, "started": "then", "boot": "other", "host": "gpu-server", "machine": "other"}
    write_json(shared / LOCK, elsewhere)
    far, run = add_folder(shared), make_run(steps=1)
    try:
        assert far.status().state is State.RUNNING
        assert not far.status().is_active_here
        assert "gpu-server" in far.status().words
        launch.ask_to_stop(far)
        assert far.status().state is State.STOPPING
        with pytest.raises(TrainingError, match="runs on gpu-server"):
            launch.end_now(far)
        assert victim.poll() is None
        write_json(shared / JOB, {**elsewhere, "queued": "2020-01-01T00:00:00.000+00:00"})
        launch.start(run)
        wait_for(run, State.DONE)
    finally:
        victim.kill()
        victim.communicate()
    (shared / JOB).unlink()
    (shared / LOCK).unlink()
    assert far.status().state is State.FAILED


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk is mounted")
def test_a_start_that_cannot_be_noted_leaves_no_process(
    make_run: Callable[..., Run], isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_home.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(isolated_home)], check=False).returncode:
        pytest.skip("disks cannot be mounted here")
    try:
        run = make_run(steps=4)
        started: list[int] = []

        def note(path: Path, values: dict[str, object]) -> None:
            if path.name == JOB:
                started.append(int(str(values["pid"])))
                fill(isolated_home)
            write_json(path, values)

        monkeypatch.setattr(launch, "write_json", note)
        with pytest.raises(WriteError, match="No space left"):
            launch.start(run)
        assert not psutil.pid_exists(started[0])
        assert not run.status().state.is_active
    finally:
        subprocess.run(["umount", "-l", str(isolated_home)], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


def test_a_process_that_nobody_noted_gives_up(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(steps=1)
    monkeypatch.setattr("napari_uniultra.runner.turn._UNNOTED_S", 0.0)
    with pytest.raises(SystemExit, match="not noted"):
        job.main(str(run.folder))
    assert run.status().state is State.NEW


@pytest.mark.slow
def test_what_a_user_ends_was_not_ended_by_lack_of_memory(make_run: Callable[..., Run]) -> None:
    run, waiting = make_run("long", steps=100_000, save_every=1), make_run("short", steps=1)
    launch.start(run)
    launch.start(waiting)
    wait_for_step(run, 2)
    assert waits_for(waiting) == "Waits for “long”, which trains on this computer"
    launch.end_now(run)
    assert run.status().state is State.STOPPED
    assert run.status().words == "Ended at once; Resume goes on from the last checkpoint"
    assert run.can_resume
    wait_for(waiting, State.DONE)


@pytest.mark.slow
def test_runs_work_in_a_home_that_was_named_by_a_relative_path(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_UNIULTRA_HOME", "mine")
    run = make_run(steps=1)
    launch.start(run)
    wait_for(run, State.DONE)
    assert run.folder.is_relative_to(tmp_path / "mine")
    assert [path.name for path in run.folder.rglob("mine")] == []


@pytest.mark.slow
def test_runs_of_a_shell_are_listed_and_read(make_run: Callable[..., Run], tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no folder of a run"):
        add_folder(tmp_path)
    run = make_run(steps=2)
    command = [sys.executable, "-m", "napari_uniultra.cli", "train", str(run.folder / CONFIG)]
    elsewhere = tmp_path / "elsewhere"
    subprocess.run([*command, "--set", f"output={elsewhere}"], check=True, capture_output=True)
    found = add_folder(elsewhere)
    assert found.status().state is State.DONE
    assert found.config().run.steps == 2
    assert [one.folder for one in list_runs()] == [elsewhere]
    # ... and what the panel writes runs from a shell.
    subprocess.run(command, check=True, capture_output=True)
    assert run.status().state is State.DONE
    delete_run(found)
    assert list_runs() == []
    assert elsewhere.exists()


@pytest.mark.slow
def test_a_run_of_a_shell_with_relative_paths_goes_on_in_its_place(tmp_path: Path) -> None:
    toy_manifest(tmp_path / "data")
    folder = tmp_path / "runs" / "a"
    write_file(
        read_settings(FineTuneConfig, toy_settings(Path("runs/a"), Path("data/manifest.csv"))), tmp_path / "c.yaml"
    )
    folder.mkdir(parents=True)
    (folder / STOP).touch()
    command = [sys.executable, "-m", "napari_uniultra.cli", "train", "c.yaml"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    run = add_folder(folder)
    assert (run.status().state, run.status().step) == (State.STOPPED, 1)
    assert run.config().output == str(folder)
    launch.start(run)
    wait_for(run, State.DONE)
    assert [event["step"] for event in read_events(folder) if event["event"] == "start"] == [0, 1]
    assert not (folder / "runs").exists()
    assert "val" in evaluation_command(run)


def test_drafts_go_with_their_makers_and_data_of_others_stays(make_run: Callable[..., Run]) -> None:
    run, other = make_run(), make_run("other")
    config = other.config()
    manifest = str(run.folder / "data" / "manifest.csv")
    write_file(replace(config, data=replace(config.data, manifests=(manifest,))), other.folder / CONFIG)
    keep_draft(other)
    with pytest.raises(WriteError, match="other learns from its data"):
        delete_run(run)
    remove_drafts()
    assert run.folder.exists()
    write_json(run.folder / "draft.json", {**this_process(), "started": "earlier"})
    remove_drafts()
    assert not run.folder.exists()
    assert list_runs() == [other]


def test_a_run_whose_model_others_need_stays(make_run: Callable[..., Run], tmp_path: Path) -> None:
    teacher, base, student, tuned = (make_run(title) for title in ("teacher", "base", "student", "tuned"))
    values = {
        "output": str(student.folder),
        "teacher": {"checkpoint": str(teacher.folder / MODEL)},
        "data": student.settings_values()["data"],
    }
    write_file(read_settings(DistillConfig, values), student.folder / CONFIG)
    settings = tuned.settings_values()
    settings["model"]["base"] = str(base.folder)
    write_file(read_settings(FineTuneConfig, settings), tuned.folder / CONFIG)
    for run in (teacher, base, student, tuned):
        keep_draft(run)
    for needed, words in ((teacher, "student learns from its model"), (base, "tuned starts from its model")):
        with pytest.raises(WriteError, match=words):
            delete_run(needed)
        assert needed.folder.exists()
    for run in (student, teacher, tuned, base):
        delete_run(run)
    assert list_runs() == []


def test_runs_on_a_disk_that_is_away_come_back_with_it(tmp_path: Path) -> None:
    disk, other = tmp_path / "disk", tmp_path / "other"
    for folder in (disk / "run", other):
        folder.mkdir(parents=True)
        (folder / EVENTS).write_text("")
    run = add_folder(disk / "run")
    disk.rename(tmp_path / "away")
    assert list_runs() == []
    add_folder(other)
    (tmp_path / "away").rename(disk)
    assert run in list_runs()


def test_a_folder_for_another_computer_trains_there(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(steps=1)
    remote, warnings = write_remote(run, tmp_path / "there")
    assert "same paths" in warnings[0]
    assert remote.status().state is State.NEW
    assert not remote.can_resume
    code = "import sys; from napari_uniultra.cli import main; sys.exit(main(['train', 'config.yaml']))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path / "there")
    assert remote.status().state is State.DONE
    assert "uniultra train config.yaml" in (tmp_path / "there/train.sh").read_text()
    assert remote.config().output == str(tmp_path / "there")
    assert remote.config().data.manifests == (str(tmp_path / "there/data/manifest.csv"),)
    assert (tmp_path / "there").samefile(evaluation_command(remote)[-1] + "/..")


def test_a_folder_for_linux_can_be_written_on_windows_and_with_a_read_only_model(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, base = make_run(), tmp_path / "base"
    base.mkdir()
    (base / "weights.safetensors").write_bytes(b"weights")
    (base / "weights.safetensors").chmod(0o444)
    config = run.config()
    write_file(replace(config, model=replace(config.model, base=str(base))), run.folder / CONFIG)
    opened = io.open

    def open_as_on_windows(
        file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None, newline: Any = None
    ) -> IO[Any]:
        newline = "\r\n" if newline is None and "w" in mode and "b" not in mode else newline
        return opened(file, mode, buffering, encoding, errors, newline)

    monkeypatch.setattr(io, "open", open_as_on_windows)
    remote, _ = write_remote(run, tmp_path / "there")
    assert b"\r\n" in (remote.folder / "README.txt").read_bytes()
    assert (remote.folder / "train.sh").read_bytes().startswith(b"#!/bin/sh\ncd ")
    assert b"\r" not in (remote.folder / "train.sh").read_bytes()
    assert (remote.folder / "base" / "weights.safetensors").stat().st_mode & 0o200


@pytest.mark.slow
def test_a_distillation_goes_through_both_stages(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run("distilled")
    toy = toy_settings(run.folder, tmp_path / "data" / "manifest.csv", steps=2)
    values = {
        "output": toy["output"],
        "teacher": {"checkpoint": "uniultra-mini"},
        "student": {"image_size": 64, "embedding": 64},
        "joint": {"steps": 1},
        "data": toy["data"],
        "run": toy["run"],
    }
    write_file(read_settings(DistillConfig, values), run.folder / CONFIG)
    run.write_info(replace(run.info, kind=DISTIL))
    launch.start(run)
    wait_for(run, State.DONE)
    assert run.model == run.folder / STUDENT
    follower = Follower(run.folder)
    follower.update()
    assert follower.history.curves["loss"].steps == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs libuv there")
def test_several_processes_stop_together(make_run: Callable[..., Run]) -> None:
    run = make_run(steps=100_000)
    run.write_info(replace(run.info, processes=2))
    launch.start(run)
    wait_for_step(run, 2)
    assert read_events(run.folder)[0]["processes"] == 2
    launch.ask_to_stop(run)
    wait_for(run, State.STOPPED)
    assert (run.folder / CHECKPOINT).exists()


def test_every_ending_of_a_training_is_told_and_one_of_a_later_version_too(tmp_path: Path) -> None:
    events, run = Events(tmp_path), Run(tmp_path)
    for reason in Ending:
        events.emit("end", 3, reason=reason)
        assert run.status() == Status(State.DONE if reason.is_complete else State.STOPPED, reason.words, 3)
        assert json.loads((tmp_path / EVENTS).read_text().splitlines()[-1])["reason"] == reason.value
    assert {reason.value for reason in Ending if reason.is_complete} == {"done", "no improvement"}
    assert run.status().words == "The computer asked it to end; there is a checkpoint, and Resume goes on"
    events.emit("end", 3, reason="sunset")
    assert run.status() == Status(State.STOPPED, "sunset", 3)


def test_events_are_read_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / EVENTS
    tail = EventTail(path)
    assert tail.read() == ([], False)
    path.write_bytes(b'{"event": "step", "step": 1, "loss": 0.5}\n{"event": "st')
    assert [event["step"] for event in tail.read()[0]] == [1]
    with path.open("ab") as file:
        file.write(b'ep", "step": 2}\nrubbish\n[1]\n{"event": "step", "step": 3}\n')
    assert [event["step"] for event in tail.read()[0]] == [2, 3]
    path.write_bytes(b'{"event": "start", "step": 0}\n')
    events, anew = tail.read()
    assert anew
    assert events[0]["event"] == "start"


def test_a_history_goes_back_with_its_run_and_stays_small() -> None:
    history = History()

    def at(second: int, **event: object) -> None:
        history.add({"time": f"2026-01-01T00:{second // 60:02}:{second % 60:02}+00:00", **event})

    at(0, event="start", step=0, steps=10)
    for step in range(1, 5):
        at(2 * step, event="step", step=step, loss=1 / step)
    assert history.seconds_left == pytest.approx(12)
    assert history.curves["loss"].values == [1, 0.5, 1 / 3, 0.25]
    at(20, event="start", step=2, steps=10)
    assert history.curves["loss"].steps == [1, 2]
    assert history.seconds_left is None
    curve = Curve()
    for step in range(50_000):
        curve.add(step, step)
    assert 2000 <= len(curve.steps) <= 4001
    assert curve.steps == curve.values
    curve.add(50_000, None)
    assert curve.steps[-1] < 50_000


def test_a_second_stage_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    for folder, steps in ((tmp_path, 3), (tmp_path / "joint", 2)):
        folder.mkdir(exist_ok=True)
        lines = [{"event": "start", "step": 0, "steps": steps}]
        lines += [{"event": "step", "step": step, "loss": 1.0} for step in range(1, steps + 1)]
        (folder / EVENTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    follower = Follower(tmp_path)
    assert follower.update()
    assert follower.history.curves["loss"].steps == [1, 2, 3, 4, 5]
    assert follower.history.steps == 5
    assert not follower.update()


def test_a_second_stage_that_is_resumed_keeps_its_curves(tmp_path: Path) -> None:
    (tmp_path / "joint").mkdir()
    first, joint = Events(tmp_path), Events(tmp_path / "joint")
    live = Follower(tmp_path, 200)
    first.emit("start", 0, steps=100)
    first.emit("step", 100, loss=1.0)
    first.emit("end", 100, reason="done")
    joint.emit("start", 0, steps=200)
    joint.emit("step", 100, loss=0.5)
    joint.emit("validation", 100, metrics={"dice": 0.8})
    joint.emit("end", 100, reason="stop file")

    def assert_as_before(curve: list[int]) -> None:
        later = Follower(tmp_path, 200)
        assert live.update()
        assert later.update()
        for history in (live.history, later.history):
            assert (history.step, history.steps) == (curve[-1], 300)
            assert history.curves["loss"].steps == curve
            assert history.curves["dice"].steps == [200]

    assert_as_before([100, 200])
    first.emit("start", 100, steps=100)
    first.emit("end", 100, reason="done")
    assert_as_before([100, 200])
    joint.emit("start", 100, steps=200)
    joint.emit("step", 110, loss=0.4)
    assert_as_before([100, 200, 210])


def validation(step: int, dice: float, best: bool = False) -> dict[str, object]:
    return {"event": "validation", "step": step, "metrics": {"dice": dice, "odd": None}, "best": best}


def exported(step: int) -> dict[str, object]:
    return {"event": "checkpoint", "step": step, "paths": ["model.safetensors"], "kind": "model"}


def test_scores_are_those_of_trained_weights_and_of_the_file() -> None:
    history = History()
    history.add({"event": "start", "step": 0, "steps": 12})
    history.add(validation(0, 0.9))
    assert history.best() is None
    assert history.validated_export() is None
    for event in (validation(4, 0.6, best=True), exported(4), validation(8, 0.5), validation(12, 0.4)):
        history.add(event)
    assert history.best() == 0.6
    assert history.curves["dice"].values == [0.9, 0.6, 0.5, 0.4]
    assert history.validated_export() == (4, {"dice": 0.6, "odd": None})
    history.add(exported(14))
    assert history.validated_export()[0] == 12


@pytest.mark.slow
def test_a_card_has_the_scores_of_the_weights_in_the_file(make_run: Callable[..., Run]) -> None:
    run = make_run(steps=12, validate_every=4)
    values = run.settings_values()
    values["optimiser"]["learning_rate"] = 0.05  # it gets worse
    write_file(read_settings(FineTuneConfig, values), run.folder / CONFIG)
    launch.start(run)
    wait_for(run, State.DONE)
    events = read_events(run.folder)
    best = [event for event in events if event["event"] == "validation" and event["best"]][-1]
    assert best["step"] < 12
    card = model_card(run, run.model)
    assert f"- dice: {best['metrics']['dice']:.4g} (step {best['step']})" in card


def test_a_used_model_is_named_by_the_step_of_its_weights(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_info(RunInfo("Nerve, first"))
    (tmp_path / MODEL).write_bytes(b"weights")
    events = Events(tmp_path)
    events.emit("start", 0, steps=500)
    events.emit("checkpoint", 100, paths=[MODEL], kind="model")
    events.emit("checkpoint", 200, paths=[CHECKPOINT], kind="state")
    events.emit("step", 250, loss=0.5)
    assert snapshot(run).name == "nerve-first-step-100.safetensors"
    assert snapshot(run).read_bytes() == b"weights"


def test_a_second_stage_counts_before_it_begins(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run("distilled")
    values = {
        "output": str(run.folder),
        "teacher": {"checkpoint": "uniultra-mini"},
        "joint": {"steps": 5},
        "data": run.settings_values()["data"],
        "run": {"steps": 10},
    }
    write_file(read_settings(DistillConfig, values), run.folder / CONFIG)
    lines = [{"event": "start", "step": 0, "steps": 10, "time": "2026-01-01T00:00:00+00:00"}]
    lines += [{"event": "step", "step": 5, "loss": 1.0, "time": "2026-01-01T00:00:10+00:00"}]
    (run.folder / EVENTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    follower = run.follower()
    follower.update()
    assert follower.history.steps == 15
    assert follower.history.seconds_left == pytest.approx(20)
    (run.folder / "joint").mkdir()
    (run.folder / "joint" / EVENTS).write_text('{"event": "start", "step": 0, "steps": 4}\n')
    follower.update()
    assert follower.history.steps == 9


def test_what_is_damaged_hides_no_other_run(make_run: Callable[..., Run]) -> None:
    run = make_run()
    keep_draft(run)
    broken = runs_folder() / "broken"
    broken.mkdir()
    for name in (INFO, JOB, RESULT, CONFIG, EVENTS):
        (broken / name).write_bytes(b"\xff{not json")
    assert {one.folder for one in list_runs()} == {run.folder, broken}
    assert Run(broken).status().state is State.NEW
    assert read_json(broken / INFO) == {}


def test_what_cannot_be_read_is_told_and_hides_and_holds_up_no_other_run(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = make_run()
    keep_draft(run)
    odd = make_run("odd")
    keep_draft(odd)
    (odd.folder / LOCK).mkdir()  # no more readable than a lock without rights
    write_json(runs_folder() / "folders.json", {"folders": [str(tmp_path / ("n" * 300))]})
    assert list_runs() == [odd, run]
    assert [one.status().state for one in list_runs()] == [State.UNREADABLE, State.NEW]
    assert f"{odd.folder / LOCK} cannot be read: Is a directory" in odd.status().words
    assert waits_for(run) == ""
    assert not odd.can_resume
    with pytest.raises(WriteError, match="may be running"):
        delete_run(odd)
    with pytest.raises(WriteError, match=r"odd.* cannot be read, and may need it"):
        delete_run(run)
    (odd.folder / LOCK).rmdir()
    assert odd.status().state is State.NEW
