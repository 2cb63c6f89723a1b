"""The Batch panel in a real napari window: the job file it writes, a run, and a correction that goes back."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import torch
from panel_window import close_dock, docks, open_from_menu
from qtpy.QtCore import QPoint, QProcess, Qt

from napari_uniultra.batch.run import run_job
from napari_uniultra.batch.settings import JobSettings, read_job, with_absolute_paths
from napari_uniultra.core.settings import read_settings
from napari_uniultra.io.readers import read_cine
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import architecture
from napari_uniultra.model.load import load_model
from napari_uniultra.segment.autosave import autosave_folder
from napari_uniultra.segment.session import CineSession
from napari_uniultra.widgets import batch_open, batch_panel
from napari_uniultra.widgets.batch_panel import BatchPanel
from napari_uniultra.widgets.settings_form import SettingsForm

pytestmark = pytest.mark.gui

WAIT_MS = 90_000


@pytest.fixture
def job(tmp_path: Path) -> JobSettings:
    """One small loop, a tiny model, work in one process."""
    torch.manual_seed(3)
    config = architecture("uniultra-mini", image_size=64)
    network = build_network(config)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    save_checkpoint(tmp_path / "tiny.safetensors", network, config, {"description": "random weights"})
    (tmp_path / "in").mkdir()
    stack = np.random.default_rng(0).integers(0, 255, (4, 40, 56)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "in/a.tif", stack, photometric="minisblack")
    prompts = {"objects": [{"id": 1, "name": "lumen", "frames": {"0": {"box": [14, 8, 42, 32]}}}]}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    values = {
        "inputs": {"loops": [str(tmp_path / "in")]},
        "start": {"prompts": str(tmp_path / "prompts.json"), "frame": -1},
        "objects": {"1": "lumen"},
        "model": {"name": str(tmp_path / "tiny.safetensors"), "device": "cpu", "image_size": 64},
        "post": {"smooth_px": 0.5},
        "outputs": {"folder": str(tmp_path / "out"), "formats": ["coco", "png"]},
        "workers": {"count": 0},
    }
    return read_settings(JobSettings, values)


def test_the_form_gives_back_what_it_shows(qtbot: Any, job: JobSettings) -> None:
    form = SettingsForm(JobSettings)
    qtbot.addWidget(form)
    assert form.settings() == JobSettings()
    form.show_settings(job)
    assert form.settings() == job
    for path in ("inputs.loops", "workers.slurm.jobs", "post.largest_piece"):
        assert form.controls[path].toolTip()


def test_the_panel_writes_the_job_runs_it_and_takes_corrections_back(
    make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path, job: JobSettings
) -> None:
    viewer = make_napari_viewer()
    _, panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Batch")
    assert isinstance(panel, BatchPanel)
    panel.form.show_settings(job)
    panel.save(str(tmp_path / "job.yaml"))
    assert read_job(tmp_path / "job.yaml") == with_absolute_paths(job)
    panel.run()
    assert panel.running
    qtbot.waitUntil(lambda: not panel.running, timeout=WAIT_MS)
    assert panel.status.text() == "1 done, 0 unchanged, 0 failed"
    assert panel.results.count() == 1

    segment = open_from_menu(viewer, "Segment loop")
    panel.results.setCurrentRow(0)
    panel.open_result()
    assert docks(viewer, "Segment loop") == ["Segment loop (UniUltra)"]
    control = segment.controller
    qtbot.waitUntil(lambda: bool(control.snapshot.prompts), timeout=WAIT_MS)
    assert control.snapshot.names == {1: "lumen"}
    before = tifffile.imread(tmp_path / "out/loops/a/masks.tif")
    result = next(layer for layer in viewer.layers if layer._type_string == "labels")
    viewer.dims.set_current_step(0, 2)
    painted = np.zeros((40, 56), np.uint16)
    painted[5:15, 5:25] = 1
    rows, columns = np.nonzero(painted != result.data[2])
    result.data_setitem((np.full_like(rows, 2), rows, columns), painted[rows, columns])
    qtbot.waitUntil(lambda: (1, 2) in control.snapshot.prompts, timeout=WAIT_MS)

    panel.take_back()
    qtbot.waitUntil(lambda: not panel.running, timeout=WAIT_MS)
    after = tifffile.imread(tmp_path / "out/loops/a/masks.tif")
    np.testing.assert_array_equal(after[2], painted)
    np.testing.assert_array_equal(after[[1, 3]], before[[1, 3]])
    assert run_job(job).unchanged == 1


def test_take_back_takes_the_loop_in_use(
    make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path, job: JobSettings
) -> None:
    stack = np.random.default_rng(1).integers(0, 255, (4, 40, 56)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "in/b.tif", stack, photometric="minisblack")
    run_job(job)
    viewer = make_napari_viewer()
    _, panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Batch")
    panel.form.show_settings(job)
    panel._refresh()
    segment = open_from_menu(viewer, "Segment loop")
    control = segment.controller

    def correct(name: str) -> None:
        rows = [panel.results.item(row).data(Qt.ItemDataRole.UserRole) for row in range(panel.results.count())]
        panel.results.setCurrentRow(rows.index(name))
        panel.open_button.click()
        qtbot.waitUntil(lambda: control.image.name == name and bool(control.snapshot.prompts), timeout=WAIT_MS)

    correct("a")
    correct("b")
    correct("a")  # which is open already
    assert [layer.name for layer in viewer.layers if layer._type_string == "image"] == ["a", "b"]
    assert panel.take_button.toolTip().endswith(": a")
    segment.image_box.setCurrentIndex(segment.image_box.findText("b"))
    assert panel.take_button.toolTip().endswith(": b")
    correct("a")
    viewer.dims.set_current_step(0, 2)
    masks = control.work.result.layer
    rows, columns = np.nonzero(masks.data[2] == 0)
    masks.data_setitem((np.full_like(rows, 2), rows, columns), 1)
    qtbot.waitUntil(lambda: (1, 2) in control.snapshot.prompts, timeout=WAIT_MS)
    panel.take_button.click()
    qtbot.waitUntil(lambda: not panel.running, timeout=WAIT_MS)
    assert (tifffile.imread(tmp_path / "out/loops/a/masks.tif")[2] == 1).all()
    viewer.add_image(stack, name="other")
    segment.image_box.setCurrentIndex(segment.image_box.findText("other"))
    assert not panel.take_button.isEnabled()


def forty_more(folder: Path) -> None:
    stack = np.random.default_rng(1).integers(0, 255, (20, 40, 56)).astype(np.uint8)
    for number in range(40):
        tifffile.imwrite(folder / f"more_{number:02}.tif", stack, photometric="minisblack")


def running(viewer: Any, qtbot: Any, folder: Path, job: JobSettings, done: int) -> BatchPanel:
    """A panel whose job of 41 loops runs, and is done with so many of them."""
    forty_more(folder / "in")
    panel = open_from_menu(viewer, "Batch")
    panel.form.show_settings(job)
    panel.run()
    qtbot.waitUntil(lambda: panel.progress.value() >= done, timeout=WAIT_MS)
    return panel


@pytest.mark.parametrize("whole_window", [False, True])
def test_a_job_ends_with_its_panel(
    make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path, job: JobSettings, whole_window: bool
) -> None:
    viewer = make_napari_viewer(show=True)
    panel = running(viewer, qtbot, tmp_path, job, done=2)
    process = psutil.Process(panel._process.processId())
    if whole_window:
        viewer.close()
    else:
        close_dock(panel)
    assert not process.is_running()
    assert len(list((tmp_path / "out/loops").rglob("result.json"))) < 41
    assert (tmp_path / "out/report.html").is_file(), "it has summed up what was finished"


def test_stop_sums_up_what_is_finished(
    make_napari_viewer: Callable[..., Any],
    qtbot: Any,
    tmp_path: Path,
    job: JobSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a signal: processes without a window hear none on Windows."""
    monkeypatch.setattr(QProcess, "terminate", lambda self: None)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/STOP").touch()  # which came too late for an earlier run
    panel = running(make_napari_viewer(), qtbot, tmp_path, job, done=2)
    panel.stop_button.click()
    assert not panel.stop_button.isEnabled()
    qtbot.waitUntil(lambda: not panel.running, timeout=WAIT_MS)
    assert panel.status.text() == "Stopped; what is finished is in the results"
    with (tmp_path / "out/measurements.csv").open(newline="") as file:
        measured = {row["loop"] for row in csv.DictReader(file)}
    assert measured == {path.parent.name for path in (tmp_path / "out/loops").rglob("result.json")}
    assert 2 <= len(measured) < 41
    assert (tmp_path / "out/report.html").is_file()
    assert not {".lock", "STOP"} & {path.name for path in (tmp_path / "out").iterdir()}
    assert panel.results.count() == len(measured)


def test_a_batch_that_does_not_stop_in_time_is_not_told_as_summed_up(
    make_napari_viewer: Callable[..., Any],
    qtbot: Any,
    tmp_path: Path,
    job: JobSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_panel, "_STOP_MS", 0)
    panel = running(make_napari_viewer(), qtbot, tmp_path, job, done=1)
    panel.stop_button.click()
    qtbot.waitUntil(lambda: not panel.running, timeout=WAIT_MS)
    assert not (tmp_path / "out/report.html").exists()
    assert panel.status.text().startswith("Ended before what is finished was summed up")
    assert panel.run_button.isEnabled()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_batch_that_is_killed_is_told(
    make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path, job: JobSettings
) -> None:
    panel = running(make_napari_viewer(), qtbot, tmp_path, job, done=1)
    psutil.Process(panel._process.processId()).kill()
    qtbot.waitUntil(lambda: not panel.running, timeout=WAIT_MS)
    assert "memory ran out" in panel.status.text()
    assert panel.run_button.isEnabled()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_list_is_seen_as_a_field_and_takes_files(
    make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path, theme: str
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.theme = theme
    _, panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Batch")
    loops = panel.form.controls["inputs.loops"]

    def colours() -> set[str]:
        beside = loops.geometry().topLeft() - QPoint(3, -10)
        image = loops.parentWidget().grab().toImage()
        return {image.pixelColor(place).name() for place in (beside, loops.geometry().center())}

    qtbot.waitUntil(lambda: loops.x() > 3 and len(colours()) == 2, timeout=5000)
    panel.add_loops([str(tmp_path / "a.tif"), str(tmp_path)])
    panel.add_loops([str(tmp_path), ""])
    assert loops.toPlainText().splitlines() == [str(tmp_path / "a.tif"), str(tmp_path)]


def test_the_shell_opens_a_loop_and_takes_the_changes_in(
    make_napari_viewer: Callable[..., Any], tmp_path: Path, job: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands between opening the window and closing it is a change of the work that the viewer keeps."""
    import napari

    run_job(job)
    painted = np.zeros((40, 56), bool)
    painted[5:15, 5:25] = True

    def correct() -> None:
        (work,) = autosave_folder().glob("*.npz")
        model = load_model(tmp_path / "tiny.safetensors", device="cpu")
        session = CineSession.restore(work, read_cine(tmp_path / "in/a.tif"), model)
        session.add_mask(1, 3, painted)
        session.save(work)

    monkeypatch.setattr(napari, "Viewer", lambda **_: make_napari_viewer())
    monkeypatch.setattr(napari, "run", correct)
    assert batch_open.main(str(tmp_path / "out/identifying/job.yaml"), "a") == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/loops/a/masks.tif")[3] > 0, painted)
    assert batch_open.main(str(tmp_path / "out/identifying/job.yaml"), "b") == 3
