"""Session files in the panel: saved, opened, dragged onto napari, and refused in words that name no patient."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panel_window import CORNERS, Window, close_dock, docks, loop, open_from_menu, settle, thread_held
from qtpy.QtWidgets import QFileDialog

from napari_uniultra.core.measure import Cycle, Markers
from napari_uniultra.plugin.layers import METADATA_KEY, markers_of, set_markers
from napari_uniultra.segment.session_file import read_about
from napari_uniultra.widgets.keys import KEYS

pytestmark = pytest.mark.gui

MARKERS = Markers({1: (Cycle(0, 4),)}, {(1, 4): ((20.0, 10.0), (40.0, 50.0))})


def segment(window: Window) -> np.ndarray:
    """A box, tracked, named, accepted on a frame, with markers; returns the masks."""
    window.draw_box()
    window.panel.controller.objects.rename(1, "lumen")
    window.panel.controller.tracker.track("forward")
    settle(window)
    window.viewer.dims.set_point(0, 2)
    window.panel.controller.review.accept_frame()
    settle(window)
    set_markers(window.viewer.layers["UniUltra masks"], MARKERS)
    settle(window)
    return window.masks().copy()


def save(window: Window, path: Path) -> Path:
    window.panel.session_buttons.save_asked.emit(str(path))
    settle(window)
    return path


def start_anew(window: Window, autosaves: Path) -> None:
    """As on another computer: nothing is kept of this loop."""
    window.viewer.layers.clear()
    settle(window)
    for file in autosaves.glob("autosave/*"):
        file.unlink()


def test_a_session_goes_to_another_computer(window: Window, tmp_path: Path, isolated_home: Path) -> None:
    data = loop()
    known = {METADATA_KEY: {"spacing_mm": (0.5, 0.25), "frame_times_s": np.arange(8) / 10}}
    window.open(data, metadata=known)
    masks = segment(window)
    path = save(window, tmp_path / "mine.uniultra")
    about = read_about(path)
    rows = list(csv.DictReader(io.StringIO(about.tables["measurements.csv"])))
    for row in rows:
        area = np.count_nonzero(masks[int(row["frame"])]) * 0.5 * 0.25
        assert float(row["area_mm2"]) == pytest.approx(area, abs=1e-3)
    (beat,) = csv.DictReader(io.StringIO(about.tables["beats.csv"]))
    assert (beat["object"], beat["ed_frame"], beat["es_frame"], beat["es_time_ms"]) == ("lumen", "0", "4", "400")
    assert about.model.name == "tiny"

    start_anew(window, isolated_home)
    window.open(data, metadata=known)
    settle(window)
    window.panel.session_buttons.open_asked.emit(str(path))
    settle(window)
    control = window.panel.controller
    assert np.array_equal(window.masks(), masks)
    assert control.objects.names == {1: "lumen"}
    assert control.snapshot.locked == {(1, 2)}
    assert np.allclose(window.viewer.layers["UniUltra boxes"].data[0][:, 1:], CORNERS)
    assert markers_of(window.viewer.layers["UniUltra masks"]) == MARKERS
    assert window.told == []
    # And the work goes on.
    window.draw_box(frame=5)
    settle(window)
    assert (1, 5) in control.snapshot.prompts


def test_opening_can_be_undone(window: Window, tmp_path: Path) -> None:
    window.open(loop())
    theirs = segment(window)
    path = save(window, tmp_path / "theirs.uniultra")
    window.panel.controller.objects.remove(1)
    window.draw_box(frame=7)
    settle(window)
    mine = window.masks().copy()
    window.panel.controller.files.open(path)
    settle(window)
    assert np.array_equal(window.masks(), theirs)
    window.panel.controller.review.undo()
    settle(window)
    assert np.array_equal(window.masks(), mine)
    assert {frame for _, frame in window.panel.controller.snapshot.prompts} == {7}


def test_a_session_of_another_loop_is_refused_by_size_and_content(
    window: Window, tmp_path: Path, isolated_home: Path
) -> None:
    image = window.open(loop(), name="DOE^JANE")
    segment(window)
    path = save(window, tmp_path / "a.uniultra")
    key = read_about(path).loop.key
    image.data = loop(frames=6)
    settle(window)
    for _ in range(2):
        window.panel.controller.files.open(path)
        settle(window)
        assert f"8 frames of 96 x 72 pixels, content {key[:8]}" in window.told[-1]
        assert "DOE" not in window.told[-1]
        window.viewer.layers.clear()  # and then with no loop at all
        settle(window)
    assert len(window.told) == 2
    assert "not open" in window.told[-1]


def test_the_layer_of_the_loop_is_chosen(window: Window, tmp_path: Path, isolated_home: Path) -> None:
    window.open(loop(), name="first")
    masks = segment(window)
    path = save(window, tmp_path / "a.uniultra")
    start_anew(window, isolated_home)
    window.open(loop()[:, ::-1].copy(), name="second")
    window.open(np.zeros((2, 3, 40, 50), np.uint8), name="no loop")
    window.open(loop(), name="first")
    settle(window)
    assert window.panel.image_box.currentText() == "second"
    window.panel.controller.files.open(path)
    settle(window)
    assert window.panel.image_box.currentText() == "first"
    assert np.array_equal(window.masks(), masks)
    assert window.told == []


def test_dragging_a_session_onto_napari_opens_it(window: Window, tmp_path: Path, isolated_home: Path) -> None:
    window.open(loop())
    masks = segment(window)
    path = save(window, tmp_path / "a.uniultra")
    start_anew(window, isolated_home)
    window.open(loop())
    settle(window)
    assert list(window.viewer.open(str(path), plugin="napari-uniultra")) == []
    settle(window)
    assert np.array_equal(window.masks(), masks)
    assert len(docks(window.viewer, "Segment loop")) == 1


def test_a_session_goes_into_the_panel_that_the_menu_opened(
    window: Window, tmp_path: Path, isolated_home: Path, checkpoint: Path
) -> None:
    window.open(loop())
    masks = segment(window)
    path = save(window, tmp_path / "a.uniultra")
    start_anew(window, isolated_home)
    close_dock(window.panel)
    window.panel = open_from_menu(window.viewer, "Segment loop")
    window.panel.add_model_file(str(checkpoint))
    window.open(loop())
    settle(window)
    window.viewer.open(str(path), plugin="napari-uniultra")
    settle(window)
    assert docks(window.viewer, "Segment loop") == ["Segment loop (UniUltra)"]
    assert window.panel.controller.snapshot.names == {1: "lumen"}
    assert np.array_equal(window.masks(), masks)


def test_a_session_opens_a_panel_that_the_menu_finds(
    window: Window, tmp_path: Path, make_napari_viewer: Callable[..., Any], qtbot: Any
) -> None:
    window.open(loop())
    segment(window)
    path = save(window, tmp_path / "a.uniultra")
    other = make_napari_viewer()
    other.open(str(path), plugin="napari-uniultra")
    (title,) = docks(other, "Segment loop")
    opened = other.window.dock_widgets[title]
    assert open_from_menu(other, "Segment loop") is opened
    assert docks(other, "Segment loop") == [title]
    opened.thread_.stop()


def test_a_session_opens_without_its_model(
    window: Window, checkpoint: Path, tmp_path: Path, isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.open(loop())
    masks = segment(window)
    path = save(window, tmp_path / "a.uniultra")
    start_anew(window, isolated_home)
    window.panel.controller.close()  # a new start, in which no model was loaded
    window.panel.model_box.choose("uniultra-mini")
    window.open(loop())
    settle(window)
    window.panel.controller.files.open(path)
    settle(window)
    assert np.array_equal(window.masks(), masks)
    (words,) = window.told
    assert "'tiny', which is not on this computer" in words


def test_the_model_of_a_session_is_chosen_when_it_is_here(
    window: Window, checkpoint: Path, tmp_path: Path, isolated_home: Path
) -> None:
    from napari_uniultra.model.zoo import add_model

    window.open(loop())
    segment(window)
    path = save(window, tmp_path / "a.uniultra")
    start_anew(window, isolated_home)
    add_model(checkpoint, "my-tiny")
    window.panel.controller.close()
    window.panel.model_box.choose("uniultra-mini")
    window.open(loop())
    settle(window)
    window.panel.controller.files.open(path)
    settle(window)
    assert window.panel.model_box.name == "my-tiny"
    assert window.told == []


def test_what_cannot_be_saved_or_opened_is_said(window: Window, tmp_path: Path) -> None:
    window.open(loop())
    window.panel.controller.files.save(tmp_path / "empty")
    settle(window)
    assert "nothing to save" in window.told[-1]
    masks = segment(window)
    (tmp_path / "file").write_text("")
    window.panel.controller.files.save(tmp_path / "file" / "a")
    settle(window)
    assert "cannot be written" in window.told[-1]
    (tmp_path / "broken.uniultra").write_bytes(b"PK")
    window.panel.controller.files.open(tmp_path / "broken.uniultra")
    settle(window)
    assert "no session file" in window.told[-1]
    assert np.array_equal(window.masks(), masks)


def test_keys_ask_for_the_file(window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    window.open(loop())
    masks = segment(window)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "by key"), ""))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "by key.uniultra"), ""))
    handler = window.viewer.window._qt_viewer._key_map_handler
    handler.press_key(KEYS["save_session"])
    settle(window)
    window.panel.controller.objects.remove(1)
    settle(window)
    handler.press_key(KEYS["open_session"])
    settle(window)
    assert np.array_equal(window.masks(), masks)


def test_keys_without_a_loop_ask_for_no_file(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (asked.append("asked"), "")[::-1])
    handler = window.viewer.window._qt_viewer._key_map_handler
    for name in ("save_session", "export"):
        handler.press_key(KEYS[name])
        assert "no loop" in window.told.pop()
    assert not window.panel.session_buttons.save_button.isEnabled()
    assert asked == []


# Markers of the panel "Measure" ---------------------------------------------------------------------------------------


def test_markers_set_in_the_measure_panel_are_the_sessions(window: Window, tmp_path: Path, qtbot: Any) -> None:
    window.open(loop())
    segment(window)
    set_markers(window.viewer.layers["UniUltra masks"], Markers())
    settle(window)
    _, measure = window.viewer.window.add_plugin_dock_widget("napari-uniultra", "Measure")
    control = measure.controller
    qtbot.waitUntil(lambda: bool(control.cycles), timeout=20_000)
    control.set_frames_of_cycle(ed=1)
    settle(window)
    kept = window.panel.controller.snapshot.markers
    assert kept.cycles[1][0].ed == 1
    window.panel.controller.review.undo()
    settle(window)
    assert not window.panel.controller.snapshot.markers
    assert control.cycle.ed != 1
    window.panel.controller.review.redo()
    settle(window)
    assert control.cycle.ed == 1
    # They stay with the layer when another one is measured in between.
    other = window.viewer.add_labels(window.masks().copy(), name="other")
    control.set_layer(other)
    assert not control._edited
    control.set_layer(window.viewer.layers["UniUltra masks"])
    assert control._edited[1][0].ed == 1
    measure.thread_.stop()


def test_markers_on_masks_whose_loop_was_removed_are_nobodys(window: Window) -> None:
    image = window.open(loop())
    window.draw_box()
    settle(window)
    masks = window.viewer.layers["UniUltra masks"]
    with thread_held(window):
        window.panel.controller.tracker.track("forward")
        window.viewer.layers.remove(image)
        set_markers(masks, MARKERS)
    settle(window)
    assert markers_of(masks) == MARKERS
    assert window.told == ["The image was removed, so tracking stopped. The masks found so far stay."]


def test_markers_of_a_loop_that_is_not_in_use_are_its_sessions(window: Window, qtbot: Any) -> None:
    first = window.open(loop(), name="first")
    window.draw_box()
    window.panel.controller.tracker.track("forward")
    settle(window)
    masks = window.viewer.layers["UniUltra masks"]
    second = window.open(loop()[:, ::-1].copy(), name="second")
    window.panel.choose_image(second)
    settle(window)
    _, measure = window.viewer.window.add_plugin_dock_widget("napari-uniultra", "Measure")
    control = measure.controller
    control.set_layer(masks)
    set_markers(masks, MARKERS)
    qtbot.waitUntil(lambda: bool(control.cycles), timeout=20_000)
    control.set_frames_of_cycle(ed=1)
    settle(window)
    assert window.panel.controller.image == second, "measuring chooses no other loop"
    assert not window.panel.controller.snapshot.markers
    window.panel.choose_image(first)
    settle(window)
    kept = window.panel.controller.snapshot.markers
    assert kept == markers_of(masks)
    assert kept.cycles[1][0].ed == 1
    window.panel.controller.review.undo()
    settle(window)
    assert window.panel.controller.snapshot.markers == markers_of(masks) == MARKERS
    measure.thread_.stop()
