"""The Train panel in a real napari window: from a click to a model in use, and whatever may go wrong on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from panel_window import Window, close_dock, docks, loop, open_from_menu, settle
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from test_runner_data import make_loop
from toy_training import toy_manifest, toy_settings

from napari_uniultra.core.lock import LOCK, owner
from napari_uniultra.core.settings import read_file
from napari_uniultra.core.stop_file import STOP as STOP_FILE
from napari_uniultra.runner import launch
from napari_uniultra.runner.place import runs_folder
from napari_uniultra.runner.registry import add_folder, keep_draft, list_runs, new_run
from napari_uniultra.runner.run import CONFIG, Run, RunInfo, State
from napari_uniultra.training.config import FineTuneConfig
from napari_uniultra.training.data.manifest import load_case, read_manifest
from napari_uniultra.training.layout import EVENTS, MODEL
from napari_uniultra.widgets.train_close import CANCEL, KEEP, STOP, CloseGuard
from napari_uniultra.widgets.train_data import BATCH, FILES, OPEN, PUBLIC
from napari_uniultra.widgets.train_panel import TrainPanel

pytestmark = pytest.mark.gui

WAIT_MS = 120_000
SMALL = {"model.image_size": "64", "data.batch": "2", "data.workers": "0", "run.early_stopping": "0"}


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """Ends what a test leaves running."""
    yield
    for run in list_runs():
        if run.status().is_active_here:
            launch.end_now(run)


@pytest.fixture
def open_panel(make_napari_viewer: Callable[..., Any], qtbot: Any) -> Callable[[], TrainPanel]:
    def make() -> TrainPanel:
        viewer = make_napari_viewer(show=True)  # what cannot be seen does not follow its run
        _, panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Train")
        panel.confirm = lambda _: True
        guard = CloseGuard.of(panel.window())
        guard.ask = lambda _: KEEP  # also when the fixture closes the window
        return panel

    return make


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Path]:
    """Settings files of the toy training, as the panel opens them."""

    def make(name: str = "toy", **run: Any) -> Path:
        settings = toy_settings(tmp_path / "unused", toy_manifest(tmp_path / "data"), **run)
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return make


def fill_in(panel: TrainPanel, values: dict[str, str]) -> None:
    for path, value in values.items():
        panel.new.settings.form.controls[path].setText(value)


def check(panel: TrainPanel, qtbot: Any) -> None:
    new = panel.new
    new.check_button.click()
    qtbot.waitUntil(lambda: new.start_button.isEnabled() or "cannot" in new.plan.words.text(), timeout=WAIT_MS)
    assert new.start_button.isEnabled(), new.plan.warnings.text()


def start(panel: TrainPanel, qtbot: Any, settings: Path) -> Run:
    """Open a settings file, check and start it, by the panel's buttons."""
    panel.new.load(str(settings))
    check(panel, qtbot)
    panel.new.start_button.click()
    return panel.view.run


def wait_for(run: Run, qtbot: Any, *states: State) -> None:
    qtbot.waitUntil(lambda: run.status().state in states, timeout=WAIT_MS)


def wait_for_step(panel: TrainPanel, qtbot: Any, step: int) -> None:
    qtbot.waitUntil(lambda: panel.view.history.step >= step, timeout=WAIT_MS)


@pytest.mark.slow
def test_from_a_click_on_real_data_to_a_model_in_the_segment_panel(
    window: Window, qtbot: Any, shared_data: Path
) -> None:
    _, panel = window.viewer.window.add_plugin_dock_widget("napari-uniultra", "Train")
    panel.new.data.choose_source(PUBLIC)
    panel.new.data.importer_box.setCurrentText("annotated")
    panel.new.data.set_path(shared_data)
    fill_in(panel, {**SMALL, "run.steps": "2", "run.validate_every": "2", "run.validation_cases": "3"})
    panel.new.settings.title.setText("On real data")
    check(panel, qtbot)
    said = panel.new.plan.words.text()
    assert "Learns from: " in said
    assert "Time: about " in said
    assert " GB that are free" in said
    panel.new.start_button.click()
    run = panel.view.run
    wait_for(run, qtbot, State.DONE)
    panel.view.update_view()
    qtbot.waitUntil(lambda: "done" in panel.view.title.text(), timeout=WAIT_MS)
    assert {"loss", "dice", "learning_rate"} <= set(panel.view.history.curves)
    assert len(panel.view.plot.lines) == 2
    assert panel.view.pictures.isVisibleTo(panel.view)
    assert "end: done" in panel.view.log.toPlainText()

    panel.view.use_button.click()
    segment = window.panel
    qtbot.waitUntil(lambda: "on-real-data-step-2" in segment.model_box.models.currentText(), timeout=WAIT_MS)
    window.open(loop())
    window.draw_box()
    settle(window)
    assert not any("cannot" in words for words in window.told)
    assert window.masks().shape == loop().shape
    assert "64 x 64" in segment.model_box.models.toolTip()


@pytest.mark.slow
def test_accepted_frames_of_the_open_loop_become_a_data_set(window: Window, qtbot: Any) -> None:
    window.open(loop(), name="Jane Doe 1961")
    window.draw_box()
    settle(window)
    control = window.panel.controller
    window.panel.tracking_box.forward_button.click()
    settle(window)
    for frame in range(6):
        window.viewer.dims.set_current_step(0, frame)
        window.panel.review_box.accept_button.click()
        settle(window)
    accepted = {frame for _, frame in control.snapshot.locked}
    assert accepted == set(range(6))

    _, panel = window.viewer.window.add_plugin_dock_widget("napari-uniultra", "Train")
    assert panel.new.data.source == OPEN
    qtbot.waitUntil(lambda: panel.new.data.table.topLevelItemCount() == 1, timeout=WAIT_MS)
    assert panel.new.data.table.topLevelItem(0).text(1) == "6"
    panel.new.data.table.topLevelItem(0).setText(2, "Doe")
    fill_in(panel, {**SMALL, "run.steps": "1"})
    check(panel, qtbot)
    assert "Validation is on the same loop" in panel.new.plan.warnings.text()
    run = panel.new.draft
    manifest = read_manifest(run.folder / "data" / "manifest.csv")
    assert {case.part for case in manifest.cases} == {"train", "val"}
    written = {a.frame: a for case in manifest.part("train") for a in load_case(case)}
    masks = window.masks()
    for number, annotated in written.items():
        np.testing.assert_array_equal(annotated.masks[0], masks[number] == 1)
    for path in run.folder.rglob("*"):
        assert "doe" not in path.name.lower()
        assert path.is_dir() or b"doe" not in path.read_bytes().lower()


def test_a_model_goes_into_the_panel_that_the_menu_opened(
    open_panel: Callable[[], TrainPanel], qtbot: Any, checkpoint: Path
) -> None:
    panel = open_panel()
    viewer = panel._viewer
    segment = open_from_menu(viewer, "Segment loop")
    run = new_run(RunInfo("mine"))
    keep_draft(run)
    shutil.copy(checkpoint, run.folder / MODEL)
    bases = panel.new.settings.base_box
    bases.showPopup()
    assert bases.findData(str(run.model)) >= 0  # it was not there when the panel opened
    bases.hidePopup()
    panel.runs.update_view()
    panel.runs.select(run)
    panel.runs.buttons["use"].click()
    assert docks(viewer, "Segment loop") == ["Segment loop (UniUltra)"]
    qtbot.waitUntil(lambda: "mine-step-" in segment.model_box.models.currentText(), timeout=WAIT_MS)
    panel.runs.buttons["delete"].click()
    assert run.folder.exists()
    segment.model_box.choose("uniultra-mini")
    panel.runs.buttons["delete"].click()
    assert not run.folder.exists()
    segment.thread_.stop()


def test_a_run_of_another_computer_can_only_be_asked_to_stop(
    open_panel: Callable[[], TrainPanel], qtbot: Any, tmp_path: Path
) -> None:
    panel = open_panel()
    (tmp_path / EVENTS).write_text('{"event": "start", "step": 0, "steps": 9}\n')
    elsewhere = {"pid": os.getpid(), "started": "then", "boot": "other", "host": "gpu-server", "machine": "other"}
    (tmp_path / LOCK).write_text(json.dumps(elsewhere))
    panel.watch(add_folder(tmp_path))
    for _ in range(2):
        qtbot.waitUntil(panel.view.stop_button.isEnabled, timeout=WAIT_MS)
        panel.view.stop_button.click()
        qtbot.waitUntil(lambda: "stopping" in panel.view.title.text(), timeout=WAIT_MS)
        assert (tmp_path / STOP_FILE).exists()
        assert panel.view.stop_button.text() == "Stop"
        assert "gpu-server" in panel.view.words.text()
    asked: list[list[str]] = []
    guard = CloseGuard.of(panel.window())
    guard.ask = lambda titles: asked.append(titles) or KEEP
    assert not guard.eventFilter(panel.window(), QCloseEvent())
    assert asked == []
    (tmp_path / LOCK).unlink()


def test_long_logs_are_read_beside_the_window(open_panel: Callable[[], TrainPanel], qtbot: Any) -> None:
    panel, go = open_panel(), threading.Event()
    panel.tabs.setCurrentIndex(2)
    qtbot.waitUntil(lambda: not panel.reader_.busy, timeout=WAIT_MS)
    panel.reader_.submit(lambda: go.wait(60), lambda _: None, lambda _: None)
    run = new_run(RunInfo("long"))
    keep_draft(run)
    events = [{"event": "start", "step": 0, "steps": 9}, {"event": "validation", "step": 4, "metrics": {"dice": 0.75}}]
    (run.folder / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in events))
    panel.runs.update_view()
    item = panel.runs.table.topLevelItem(0)
    panel.view.show_run(run)
    assert (item.text(0), item.text(3), panel.view.title.text()) == ("long", "", "long")
    go.set()
    qtbot.waitUntil(lambda: panel.runs.table.topLevelItem(0).text(3) == "0.750", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: panel.view.history.best() == 0.75, timeout=WAIT_MS)
    panel.runs.select(run)
    assert list(panel.runs.plot.lines) == [("long", "metric")]
    assert panel.runs.plot.metric.getAxis("left").labelText == "Dice"


def test_a_run_that_cannot_be_read_is_a_row_of_its_own_until_it_can(
    open_panel: Callable[[], TrainPanel], qtbot: Any
) -> None:
    for title in ("good", "odd"):
        run = new_run(RunInfo(title))
        keep_draft(run)
    (run.folder / LOCK).mkdir()  # no more readable than a lock without rights
    panel = open_panel()
    panel.tabs.setCurrentIndex(2)

    def states() -> dict[str, str]:
        items = [panel.runs.table.topLevelItem(row) for row in range(2)]
        return {item.text(0): item.text(1) for item in items}

    qtbot.waitUntil(lambda: states() == {"good": "not started", "odd": "cannot be read"}, timeout=10_000)
    (run.folder / LOCK).rmdir()
    qtbot.waitUntil(lambda: states() == {"good": "not started", "odd": "not started"}, timeout=10_000)


def test_ticks_stay_when_more_is_accepted(open_panel: Callable[[], TrainPanel], qtbot: Any, tmp_path: Path) -> None:
    data = open_panel().new.data
    loops = [make_loop(tmp_path, number, accepted=4) for number in range(2)]
    data.choose_source(FILES)
    data.add_files([str(path) for pair in loops for path in pair])
    qtbot.waitUntil(lambda: data.table.topLevelItemCount() == 2, timeout=WAIT_MS)
    data.table.topLevelItem(0).setCheckState(0, Qt.CheckState.Unchecked)
    make_loop(tmp_path, 1, accepted=5)
    data.look_button.click()
    qtbot.waitUntil(lambda: data.table.topLevelItem(1).text(1) == "5", timeout=WAIT_MS)
    assert [loop.accepted for loop in data.choice().loops] == [5]
    data.accepted_box.click()
    assert len(data.choice().loops) == 1
    data.table.topLevelItem(0).setCheckState(0, Qt.CheckState.Checked)
    data.accepted_box.click()
    assert len(data.choice().loops) == 2


def test_rows_have_their_height_as_soon_as_something_is_said(open_panel: Callable[[], TrainPanel], qtbot: Any) -> None:
    new = open_panel().new
    qtbot.waitUntil(lambda: new.settings.preset_box.height() > 10, timeout=WAIT_MS)
    new._say("Something that is told at length. " * 40, ("And what speaks against it. " * 40,))
    for box in (new.settings.title, new.settings.preset_box, new.data.source_box):
        assert box.height() >= box.minimumSizeHint().height()
    assert new.plan.words.height() >= new.plan.words.heightForWidth(new.plan.words.width())
    bar = new._new_scroll.verticalScrollBar()
    assert bar.value() == bar.maximum() > 0


@pytest.mark.slow
def test_a_run_goes_on_without_the_dock_and_what_was_checked_does_not(
    open_panel: Callable[[], TrainPanel], qtbot: Any, toy: Callable[..., Path]
) -> None:
    panel = open_panel()
    viewer = panel._viewer
    run = start(panel, qtbot, toy(steps=100_000))
    wait_for_step(panel, qtbot, 1)
    panel.new.load(str(toy("other")))
    check(panel, qtbot)
    checked = panel.new.draft.folder
    assert checked.exists()
    gone, thread = [], panel.thread_
    panel.destroyed.connect(gone.append)
    close_dock(panel)
    assert not checked.exists()
    qtbot.waitUntil(lambda: bool(gone) and not thread.running, timeout=WAIT_MS)
    step = run.status().step
    qtbot.waitUntil(lambda: run.status().step > step, timeout=WAIT_MS)
    assert run.status().state is State.RUNNING
    assert open_from_menu(viewer, "Train").view.run == run


@pytest.mark.slow
def test_stop_resume_and_a_killed_trainer(
    open_panel: Callable[[], TrainPanel], qtbot: Any, toy: Callable[..., Path]
) -> None:
    panel = open_panel()
    run = start(panel, qtbot, toy(steps=100_000, save_every=2))
    assert panel.tabs.currentIndex() == 1
    wait_for_step(panel, qtbot, 2)
    assert panel.view.stop_button.isEnabled()
    assert not panel.view.resume_button.isEnabled()
    panel.view.stop_button.click()
    wait_for(run, qtbot, State.STOPPED)
    qtbot.waitUntil(panel.view.resume_button.isEnabled, timeout=WAIT_MS)
    assert panel.view.use_button.isEnabled()
    stopped = run.status().step
    panel.view.resume_button.click()
    wait_for_step(panel, qtbot, stopped + 3)
    if sys.platform == "win32":
        return
    os.kill(owner(run.folder)["pid"], signal.SIGKILL)
    wait_for(run, qtbot, State.FAILED)
    qtbot.waitUntil(lambda: "ended from outside" in panel.view.words.text(), timeout=WAIT_MS)
    assert panel.isVisible()
    assert panel.view.resume_button.isEnabled()


@pytest.mark.slow
def test_two_runs_take_turns_are_compared_and_deleted(
    open_panel: Callable[[], TrainPanel], qtbot: Any, toy: Callable[..., Path]
) -> None:
    panel = open_panel()
    first = start(panel, qtbot, toy("first", steps=100_000))
    wait_for_step(panel, qtbot, 1)
    second = start(panel, qtbot, toy("second", steps=2))
    wait_for(second, qtbot, State.QUEUED)
    panel.tabs.setCurrentIndex(2)
    qtbot.waitUntil(lambda: panel.runs.table.topLevelItem(0).text(1) == "waiting", timeout=WAIT_MS)
    launch.ask_to_stop(first)
    wait_for(second, qtbot, State.DONE)
    panel.runs.update_view()
    panel.runs.select(first, second)
    qtbot.waitUntil(lambda: {title for title, _ in panel.runs.plot.lines} == {"first", "second"}, timeout=WAIT_MS)
    assert "run.steps: second: 2, first: 100000" in panel.runs.details.text()
    reports: list[Path] = []
    panel.open_report = reports.append
    for run in (first, second):
        panel.runs.select(run)
        panel.runs.buttons["evaluate"].click()
    qtbot.waitUntil(lambda: len(reports) == 2, timeout=WAIT_MS)
    assert [report.parents[1] for report in reports] == [first.folder, second.folder]
    assert "<html" in reports[1].read_text()[:200].lower()
    panel.runs.buttons["duplicate"].click()
    assert panel.tabs.currentIndex() == 0
    assert panel.new.settings.name == "second again"
    assert panel.new.settings.settings("x", "y").run.steps == 2
    panel.runs.select(first, second)
    panel.runs.buttons["delete"].click()
    assert list_runs() == []
    assert not first.folder.exists()


@pytest.mark.slow
def test_what_cannot_be_trained_is_said_before_the_start(
    open_panel: Callable[[], TrainPanel], qtbot: Any, toy: Callable[..., Path], tmp_path: Path
) -> None:
    panel = open_panel()

    def refusal() -> str:
        panel.new.check_button.click()
        qtbot.waitUntil(lambda: "cannot be trained" in panel.new.plan.words.text(), timeout=WAIT_MS)
        assert not panel.new.start_button.isEnabled()
        return panel.new.plan.warnings.text()

    assert "nothing to learn from" in refusal()  # no loop is open
    panel.new.data.choose_source(PUBLIC)
    panel.new.data.set_path(tmp_path / "nowhere")
    assert "is not a folder" in refusal()
    panel.new.load(str(toy()))
    manifest = tmp_path / "data" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("s2,val", "s1,val"))
    assert "is in part" in refusal()  # one subject in two parts
    toy_manifest(tmp_path / "data")
    for number in range(3):
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "data" / "masks" / f"{number}.png")
    assert "empty" in refusal()
    toy_manifest(tmp_path / "data")
    check(panel, qtbot)
    panel.new.settings.form.controls["run.steps"].setText("4")
    assert not panel.new.start_button.isEnabled()  # what was checked is not what would be started
    shutil.rmtree(tmp_path / "data")
    assert "manifest" in refusal()
    assert list_runs() == []


@pytest.mark.slow
def test_closing_asks_and_a_later_viewer_finds_the_run(
    open_panel: Callable[[], TrainPanel], qtbot: Any, toy: Callable[..., Path]
) -> None:
    panel = open_panel()
    run = start(panel, qtbot, toy(steps=100_000))
    wait_for_step(panel, qtbot, 1)
    main, asked = panel.window(), []
    guard = CloseGuard.of(main)

    def answer(words: str) -> Callable[[list[str]], str]:
        return lambda titles: asked.append(titles) or words

    guard.ask = answer(CANCEL)
    main.close()
    assert asked == [["toy"]]
    assert main.isVisible()
    assert run.status().state is State.RUNNING

    later = open_panel()  # of a second viewer, while the first is still there
    assert later.view.run == run
    assert later.tabs.currentIndex() == 1
    qtbot.waitUntil(lambda: later.view.history.step >= 1, timeout=WAIT_MS)
    guard.ask = answer(STOP)
    assert not guard.eventFilter(main, QCloseEvent())  # the window may close; napari's fixture does it
    wait_for(run, qtbot, State.STOPPED)
    qtbot.waitUntil(lambda: later.view.resume_button.isEnabled(), timeout=WAIT_MS)


@pytest.mark.slow
def test_every_check_keeps_its_own_draft(
    open_panel: Callable[[], TrainPanel], qtbot: Any, toy: Callable[..., Path]
) -> None:
    first, second = open_panel(), open_panel()
    second.new.load(str(toy("other")))
    check(second, qtbot)
    first.new.load(str(toy()))
    first.new.check_button.click()
    first.new.settings.title.setText("changed meanwhile")
    check(first, qtbot)
    check(first, qtbot)
    qtbot.waitUntil(lambda: not first.thread_.busy, timeout=WAIT_MS)
    for panel, title in ((first, "changed meanwhile"), (second, "other")):
        draft = panel.new.draft
        assert (draft.info.title, draft.info.is_draft) == (title, True)
        assert (draft.folder / CONFIG).is_file()
        assert draft.status().state is State.NEW
    assert len([path for path in runs_folder().iterdir() if path.name.startswith("run-")]) == 2
    first.new.start_button.click()
    assert first.view.run.info.title == "changed meanwhile"
    close_dock(second)


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk is mounted")
def test_a_full_disk_is_shown(
    open_panel: Callable[[], TrainPanel], qtbot: Any, toy: Callable[..., Path], isolated_home: Path
) -> None:
    isolated_home.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(isolated_home)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("disks cannot be mounted here")
    try:
        panel = open_panel()
        run = start(panel, qtbot, toy(steps=2))
        wait_for(run, qtbot, State.FAILED)
        qtbot.waitUntil(lambda: "No space left" in panel.view.words.text(), timeout=WAIT_MS)
        assert panel.isVisible()
    finally:
        subprocess.run(["umount", "-l", str(isolated_home)], check=True)


def test_settings_go_to_the_shell_and_come_back(
    open_panel: Callable[[], TrainPanel], qtbot: Any, toy: Callable[..., Path], tmp_path: Path
) -> None:
    panel = open_panel()
    path = toy(steps=7)
    panel.new.load(str(path))
    panel.new.save(str(tmp_path / "saved.yaml"))
    saved, given = (read_file(FineTuneConfig, file) for file in (tmp_path / "saved.yaml", path))
    assert saved.run == given.run
    assert saved.data == given.data
    assert saved.model == given.model
    panel.new.data.set_path(f"{given.data.manifests[0]}; {tmp_path / 'more.csv'}")
    panel.new.save(str(tmp_path / "two.yaml"))
    two = read_file(FineTuneConfig, tmp_path / "two.yaml").data.manifests
    assert two == (given.data.manifests[0], str(tmp_path / "more.csv"))
    panel.new.load(str(path))

    check(panel, qtbot)
    panel.new.write_remote(str(tmp_path / "there"))
    qtbot.waitUntil(lambda: (tmp_path / "there" / CONFIG).exists() and panel.view.run is not None, timeout=WAIT_MS)
    assert panel.view.run.folder == tmp_path / "there"
    assert not panel.view.resume_button.isEnabled()
    events = '{"event": "start", "step": 0, "steps": 7}\n{"event": "step", "step": 3, "loss": 0.5}\n'
    (tmp_path / "there" / "events.jsonl").write_text(events)
    qtbot.waitUntil(lambda: panel.view.history.step == 3, timeout=WAIT_MS)
    assert "running" in panel.view.title.text()
    panel.new.settings.kind_box.setCurrentIndex(1)
    assert panel.new.settings.settings("x", "y").teacher.checkpoint == "uniultra-mini"
    for source in (FILES, BATCH):
        panel.new.data.choose_source(source)
        assert panel.new.data.choice().loops == ()
