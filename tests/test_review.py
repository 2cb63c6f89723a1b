"""Accepting, mending, tidying, measuring and exporting in the real panel; hints and keys."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from panel_window import CORNERS, Window, docks, loop, open_from_menu, settle, until
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QFileDialog, QLabel

from napari_uniultra.core.measure import Markers
from napari_uniultra.core.measure.cardiac import Cycle
from napari_uniultra.core.postprocess import TidySettings, tidy_mask
from napari_uniultra.core.types import Prompt
from napari_uniultra.plugin.layers import markers_of, set_markers
from napari_uniultra.plugin.loop_scale import Scale
from napari_uniultra.plugin.preview_layer import PREVIEW_NAME
from napari_uniultra.segment.session_file import read_about
from napari_uniultra.widgets.first_steps import FirstSteps
from napari_uniultra.widgets.keys import KEYS, WORDS

pytestmark = pytest.mark.gui


def paint(window: Window, frame: int, mask: np.ndarray, object_id: int = 1) -> None:
    """Give a mask as painting does."""
    control, prompts = window.panel.controller, {(object_id, frame): Prompt(mask=mask)}
    control.submit(control.host.answer, control.show, with_model=True, first=lambda: control.host.ask(prompts))
    settle(window)


def disc(row: float, column: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:72, :96]
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def test_filling_between_two_frames_and_taking_it_back(window: Window) -> None:
    window.open(loop())
    paint(window, 1, disc(30, 30, 10))
    paint(window, 5, disc(40, 60, 10))
    window.viewer.dims.set_current_step(0, 3)
    window.panel.review_box.fill_button.click()
    settle(window)
    rows, columns = np.nonzero(window.masks()[3])
    assert (rows.mean(), columns.mean()) == pytest.approx((35, 45), abs=0.6)
    assert not window.masks()[[0, 6, 7]].any()
    # What was filled in is done: nothing is left to track between the two.
    tracking, strip = window.panel.tracking_box, window.panel.confidence.strip
    assert tracking.continue_button.isEnabled()
    tracking.range_slider.setValue((1, 5))
    assert not tracking.continue_button.isEnabled()
    assert "Filled in, no predicted IoU" in strip.words_at(QPoint(strip._edge(3) + 2, 8))
    window.panel.review_box.undo_button.click()
    settle(window)
    assert not window.masks()[2:5].any()


def test_filling_where_nothing_is_given_says_what_to_do(window: Window) -> None:
    window.open(loop())
    paint(window, 1, disc(30, 30, 10))
    window.viewer.dims.set_current_step(0, 3)
    window.panel.review_box.fill_button.click()
    settle(window)
    assert any("frame before and on one after" in words for words in window.told)


def test_tidying_is_shown_first_and_then_applied_to_all_frames(window: Window) -> None:
    window.open(loop(), scale=(1, 0.5, 0.25))
    window.draw_box(0, CORNERS)
    settle(window)
    window.panel.tracking_box.forward_button.click()
    settle(window)
    before = window.masks().copy()
    settings = TidySettings(smooth_px=3.0, largest_piece=True, fill_holes=True)
    expected = tidy_mask(before[2] == 1, settings)
    assert not np.array_equal(expected, before[2] == 1), "the network's mask is ragged enough for this test"
    box = window.panel.tidy_box
    box.expand()
    box.largest_box.setChecked(True)
    box.holes_box.setChecked(True)
    box.smooth_box.setValue(3.0)
    window.viewer.dims.set_current_step(0, 2)
    box.preview_button.click()
    settle(window)
    preview = window.viewer.layers[PREVIEW_NAME]
    np.testing.assert_array_equal(preview.data[0] > 0, expected)
    assert preview.translate[0] == 2
    np.testing.assert_array_equal(window.masks(), before)
    box.apply_button.click()
    settle(window)
    assert PREVIEW_NAME not in window.viewer.layers
    for frame in range(1, len(before)):
        np.testing.assert_array_equal(window.masks()[frame] == 1, tidy_mask(before[frame] == 1, settings))
    window.panel.review_box.undo_button.click()
    settle(window)
    np.testing.assert_array_equal(window.masks(), before)


def test_the_preview_follows_the_slider_and_goes_with_its_box(window: Window) -> None:
    window.open(loop())
    paint(window, 1, disc(30, 30, 10))
    box = window.panel.tidy_box
    box.expand()
    box.preview_button.click()
    settle(window)
    assert not window.viewer.layers[PREVIEW_NAME].data.any()
    window.viewer.dims.set_current_step(0, 1)
    settle(window)
    assert window.viewer.layers[PREVIEW_NAME].data.any()
    box.collapse()
    settle(window)
    assert PREVIEW_NAME not in window.viewer.layers


def test_accepting_all_keeps_every_frame(window: Window) -> None:
    window.open(loop())
    window.draw_box(0)
    settle(window)
    window.panel.tracking_box.forward_button.click()
    settle(window)
    window.panel.review_box.accept_all_button.click()
    settle(window)
    assert window.panel.controller.snapshot.locked == {(1, frame) for frame in range(8)}
    assert window.panel.review_box.accept_button.isChecked()
    kept = window.masks().copy()
    window.panel.tracking_box.both_button.click()
    settle(window)
    np.testing.assert_array_equal(window.masks(), kept)


@pytest.fixture
def save_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], None]:
    """What the user answers to the question for a file."""

    def answer(path: Path, kind: str = "") -> None:
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), kind))

    return answer


def test_masks_and_measurements_are_exported(
    window: Window,
    tmp_path: Path,
    save_as: Callable[..., None],
) -> None:
    window.open(loop())
    paint(window, 1, disc(30, 30, 10))
    save_as(tmp_path / "masks.tif")
    window.panel.review_box.export_button.click()
    settle(window)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "masks.tif"), window.masks())
    save_as(tmp_path / "areas", "Measurements (*.csv)")  # the suffix comes from the kind that was chosen
    window.panel.review_box.export_button.click()
    settle(window)
    rows = list(csv.DictReader((tmp_path / "areas.csv").open()))
    assert [(row["frame"], float(row["area_px"])) for row in rows] == [("1", float(disc(30, 30, 10).sum()))]


def test_measurements_are_exported_with_the_scale_as_it_is_now(
    window: Window, tmp_path: Path, save_as: Callable[..., None]
) -> None:
    image = window.open(loop())
    paint(window, 1, disc(30, 30, 10))
    Scale.in_mm((0.5, 0.25)).give_to(image)
    save_as(tmp_path / "areas.csv")
    window.panel.review_box.export_button.click()
    settle(window)
    row = next(csv.DictReader((tmp_path / "areas.csv").open()))
    assert float(row["area_mm2"]) == pytest.approx(disc(30, 30, 10).sum() * 0.125)


def test_an_export_that_fails_says_why_and_loses_nothing(
    window: Window,
    tmp_path: Path,
    save_as: Callable[..., None],
) -> None:
    window.open(loop())
    paint(window, 1, disc(30, 30, 10))
    before = window.masks().copy()
    (tmp_path / "a file").touch()
    save_as(tmp_path / "a file" / "masks.tif")
    window.panel.review_box.export_button.click()
    settle(window)
    assert any("masks.tif" in words for words in window.told)
    np.testing.assert_array_equal(window.masks(), before)


@pytest.mark.parametrize("name", ["masks.tif", "areas.csv", "mine.uniultra"])
def test_what_was_not_sent_yet_is_in_what_is_saved(window: Window, tmp_path: Path, name: str) -> None:
    window.open(loop())
    window.panel.marks_box.auto_box.click()
    window.draw_box(frame=2)
    control = window.panel.controller
    save = control.files.save if name.endswith("uniultra") else control.review.export
    save(str(tmp_path / name))
    settle(window)
    assert window.told == []
    assert window.masks()[2].any()
    if name == "masks.tif":
        np.testing.assert_array_equal(tifffile.imread(tmp_path / name), window.masks())
    elif name == "areas.csv":
        assert [row["frame"] for row in csv.DictReader((tmp_path / name).open())] == ["2"]
    else:
        assert read_about(tmp_path / name).tables["measurements.csv"].count("\n") == 2


def test_what_cannot_be_segmented_is_said_to_be_missing(window: Window, tmp_path: Path) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    without_a_model(window, tmp_path)
    window.draw_box(frame=4)
    window.panel.controller.review.export(str(tmp_path / "masks.tif"))
    settle(window)
    assert any("not in the file" in words for words in window.told)
    assert tifffile.imread(tmp_path / "masks.tif").any(axis=(1, 2)).nonzero()[0].tolist() == [0]


def without_a_model(window: Window, folder: Path) -> None:
    """Choose a model that cannot be loaded."""
    broken = folder / "broken.safetensors"
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    window.panel.add_model_file(str(broken))
    settle(window)
    window.told.clear()


def test_going_over_the_results_needs_no_model(window: Window, tmp_path: Path) -> None:
    window.open(loop())
    paint(window, 1, disc(30, 30, 10))
    paint(window, 5, disc(40, 60, 10))
    without_a_model(window, tmp_path)
    control, review = window.panel.controller, window.panel.review_box
    window.viewer.dims.set_current_step(0, 3)
    review.fill_button.click()
    settle(window)
    filled = window.masks().copy()
    assert filled[2:5].any(axis=(1, 2)).all()
    box = window.panel.tidy_box
    box.expand()
    box.smooth_box.setValue(3.0)
    box.preview_button.click()
    settle(window)
    assert window.viewer.layers[PREVIEW_NAME].data.any()
    box.apply_button.click()
    settle(window)
    tidied = window.masks().copy()
    assert not np.array_equal(tidied, filled)
    review.undo_button.click()
    settle(window)
    np.testing.assert_array_equal(window.masks(), filled)
    review.redo_button.click()
    settle(window)
    np.testing.assert_array_equal(window.masks(), tidied)
    review.accept_button.click()
    settle(window)
    assert control.snapshot.locked == {(1, 3)}
    review.accept_all_button.click()
    settle(window)
    assert len(control.snapshot.locked) == 5
    assert window.told == []


def test_a_tool_makes_the_masks_layer_ready_and_there_is_nothing_to_export_yet(window: Window, tmp_path: Path) -> None:
    window.open(loop())
    window.panel.marks_box.tools["box"].click()
    assert not window.masks().any()
    assert window.panel.controller.marks.tool == "box"
    window.panel.controller.review.export(str(tmp_path / "masks.tif"))
    settle(window)
    assert any("no masks to save" in words for words in window.told)
    assert not (tmp_path / "masks.tif").exists()


def test_masks_and_markers_come_back_with_the_next_tool(window: Window) -> None:
    window.open(loop())
    paint(window, 1, disc(30, 30, 10))
    before = window.masks().copy()
    markers = Markers(cycles={1: (Cycle(0, 2),)})
    set_markers(window.viewer.layers["UniUltra masks"], markers)
    settle(window)
    window.viewer.layers.remove("UniUltra masks")
    window.panel.marks_box.tools["box"].click()
    settle(window)
    np.testing.assert_array_equal(window.masks(), before)
    assert markers_of(window.viewer.layers["UniUltra masks"]) == markers


def test_the_measurements_open_from_the_panel(window: Window) -> None:
    window.open(loop())
    paint(window, 1, disc(30, 30, 10))
    window.panel.review_box.measure_button.click()
    dock = next(iter(key for key in window.viewer.window.dock_widgets if key.startswith("Measure")))
    measure = window.viewer.window.dock_widgets[dock]
    until(window, lambda: len(measure.controller.rows) == 1)
    assert measure.controller.rows[0].area == disc(30, 30, 10).sum()


def test_measurements_that_the_menu_opened_are_shown_and_not_doubled(window: Window) -> None:
    measure = open_from_menu(window.viewer, "Measure")
    window.panel.review_box.measure_button.click()
    assert docks(window.viewer, "Measure") == ["Measure (UniUltra)"]
    dock = measure.parentWidget()
    dock.hide()  # as the menu does with a panel that is seen
    window.panel.review_box.measure_button.click()
    assert not dock.isHidden()
    assert docks(window.viewer, "Measure") == ["Measure (UniUltra)"]
    measure.thread_.stop()


def test_measure_shows_the_loop_in_use(window: Window) -> None:
    window.open(loop(), name="first")
    paint(window, 1, disc(30, 30, 10))
    window.open(loop()[:, ::-1], name="second")
    box = window.panel.image_box
    box.setCurrentIndex(box.findText("second"))
    settle(window)
    paint(window, 2, disc(40, 40, 5))
    window.panel.review_box.measure_button.click()
    (name,) = docks(window.viewer, "Measure")
    measure = window.viewer.window.dock_widgets[name]

    def area() -> list[tuple[int, float]]:
        return [(row.frame, row.area) for row in measure.controller.rows]

    until(window, lambda: area() == [(2, disc(40, 40, 5).sum())])
    assert measure.layer_box.currentText().endswith(" of second")
    box.setCurrentIndex(box.findText("first"))
    until(window, lambda: area() == [(1, disc(30, 30, 10).sum())])
    assert measure.layer_box.currentText().endswith(" of first")
    # A loop without masks has no measurements, until it has masks.
    window.open(loop() + 1, name="third")
    box.setCurrentIndex(box.findText("third"))
    until(window, lambda: not measure.controller.rows)
    assert measure.layer_box.currentIndex() == -1
    paint(window, 0, disc(20, 20, 6))
    until(window, lambda: area() == [(0, disc(20, 20, 6).sum())])
    # What the user chooses in the list stays; names are followed.
    measure.layer_box.setCurrentIndex(0)
    chosen = measure.controller.layer
    window.open(loop() + 2, name="fourth")
    assert measure.controller.layer == chosen
    chosen.name, window.viewer.layers["third"].name = "renamed", "other"
    titles = [measure.layer_box.itemText(row) for row in range(measure.layer_box.count())]
    assert titles[0].startswith("renamed of ")
    assert any(title.endswith(" of other") for title in titles)
    measure.thread_.stop()


def test_first_steps_are_ticked_off_and_stay_away_once_closed(window: Window, qtbot: Any) -> None:
    steps = window.panel.first_steps
    assert steps.isVisibleTo(window.panel)
    assert steps.sample_button.isVisibleTo(steps)
    window.open(loop())
    assert not steps.sample_button.isVisibleTo(steps)
    assert [label.isVisibleTo(steps) for label in steps.labels] == [True, False, False]
    window.draw_box(0)
    settle(window)
    assert [label.isVisibleTo(steps) for label in steps.labels] == [False, True, False]
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert [label.isVisibleTo(steps) for label in steps.labels] == [False, False, True]
    window.click("add", (4, 36, 40))
    settle(window)
    assert steps.title().endswith("✓✓✓")
    assert steps.done.isVisibleTo(steps)
    steps.close_button.click()
    assert not steps.isVisibleTo(window.panel)
    again = FirstSteps()
    qtbot.addWidget(again)
    assert not again.isVisibleTo(window.panel)


def test_the_sample_loop_opens_from_the_first_steps(window: Window) -> None:
    window.panel.first_steps.sample_button.click()
    assert window.panel.controller.image is not None
    assert len(window.panel.controller.image.data) > 20


def test_every_key_is_in_the_list(window: Window) -> None:
    assert set(WORDS) == set(KEYS)
    window.panel.keys_button.click()
    assert window.panel.key_list.isVisible()
    shown = {label.text() for label in window.panel.key_list.findChildren(QLabel)}
    assert set(WORDS.values()) <= shown
    window.panel.key_list.close()
