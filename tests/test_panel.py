"""The real panel in a real napari window: what is drawn, what comes back, and what happens when things go away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from panel_window import BOX, CORNERS, HEIGHT, WIDTH, Window, close_dock, drag, loop, settle, until
from qtpy.QtCore import QPoint, QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication

from napari_uniultra.core.measure import Cycle, Markers
from napari_uniultra.core.types import Cine
from napari_uniultra.plugin.layers import METADATA_KEY, set_markers
from napari_uniultra.segment.session import CineSession
from napari_uniultra.widgets.keys import KEYS

pytestmark = pytest.mark.gui


# Prompts --------------------------------------------------------------------------------------------------------------


def test_a_box_shows_its_mask_at_once(window: Window, reference_model: Any) -> None:
    data = loop()
    window.open(data, scale=(1, 0.2, 0.3), translate=(0, 5, -7))
    window.draw_box(frame=2)
    settle(window)
    expected = CineSession(Cine(data), reference_model).add_box(1, 2, BOX).masks[1]
    masks = window.masks()
    assert expected.any()
    assert np.array_equal(masks[2] == 1, expected)
    assert not np.delete(masks, 2, axis=0).any()
    layer = window.viewer.layers["UniUltra masks"]
    image = window.viewer.layers["loop"]
    assert isinstance(layer, Labels)
    assert np.array_equal(layer.scale, image.scale)
    assert np.array_equal(layer.translate, image.translate)
    assert layer.units == image.units
    assert window.told == []


def test_a_box_dragged_with_the_mouse_from_any_corner(window: Window, reference_model: Any) -> None:
    data = loop()
    window.open(data, scale=(1, 0.5, 0.25), translate=(0, 3, -2))
    window.viewer.dims.set_point(0, 4)
    window.panel.marks_box.tools["box"].click()
    boxes = window.viewer.layers["UniUltra boxes"]
    bottom_right, top_left = (4, 3 + 60 * 0.5, -2 + 62 * 0.25), (4, 3 + 18 * 0.5, -2 + 20 * 0.25)
    drag(boxes, bottom_right, top_left)
    settle(window)
    assert np.allclose(window.panel.controller.snapshot.prompts[1, 4].box, BOX, atol=0.5)
    expected = CineSession(Cine(data), reference_model).set_prompt(1, 4, window.panel.controller.snapshot.prompts[1, 4])
    assert np.array_equal(window.masks()[4] == 1, expected.masks[1])
    # Dragging the box itself moves the prompt.
    boxes.mode = "select"
    boxes.selected_data = {0}
    centre = (4, 3 + 39 * 0.5, -2 + 41 * 0.25)
    drag(boxes, centre, (4, centre[1] + 5 * 0.5, centre[2] + 3 * 0.25))
    settle(window)
    assert np.allclose(window.panel.controller.snapshot.prompts[1, 4].box, np.add(BOX, (3, 5, 3, 5)), atol=0.5)
    # A click with the box tool asks for a drag, and leaves nothing behind.
    window.panel.object_list.add_button.click()
    boxes.mode = "add_rectangle"
    drag(boxes, (4, 10, 5), (4, 10, 5))
    settle(window)
    assert "no size" in window.told[-1]
    assert len(boxes.data) == 1


def test_clicks_add_and_remove(window: Window, reference_model: Any) -> None:
    data = loop()
    window.open(data)
    window.click("add", (1, 30, 40), (1, 40, 50))
    settle(window)
    window.click("remove", (1, 5, 5))
    settle(window)
    reference = CineSession(Cine(data), reference_model)
    reference.add_points(1, 1, [(40.5, 30.5), (50.5, 40.5)], [1, 1])
    expected = reference.add_points(1, 1, [(5.5, 5.5)], [0]).masks[1]
    assert np.array_equal(window.masks()[1] == 1, expected)
    points = window.viewer.layers["UniUltra points"]
    assert [str(symbol) for symbol in points.symbol] == ["cross", "cross", "x"]
    assert points.features["label"].tolist() == [1, 1, 0]
    # Taking the last click away takes its effect away.
    points.selected_data = {2}
    points.remove_selected()
    settle(window)
    reference = CineSession(Cine(data), reference_model)
    expected = reference.add_points(1, 1, [(40.5, 30.5), (50.5, 40.5)], [1, 1]).masks[1]
    assert np.array_equal(window.masks()[1] == 1, expected)


def test_moving_replacing_and_deleting_a_box(window: Window, reference_model: Any) -> None:
    data = loop()
    window.open(data)
    boxes = window.draw_box()
    settle(window)
    reference = CineSession(Cine(data), reference_model)
    moved = np.insert(CORNERS + 4.0, 0, 0, axis=1)
    boxes.data = [moved]
    settle(window)
    expected = reference.add_box(1, 0, np.array(BOX) + 4).masks[1]
    assert np.array_equal(window.masks()[0] == 1, expected)
    # A second box for the same object and frame takes the place of the first.
    window.draw_box(corners=CORNERS - 3.0)
    settle(window)
    assert len(boxes.data) == 1
    assert np.array_equal(window.masks()[0] == 1, reference.add_box(1, 0, np.array(BOX) - 3).masks[1])
    boxes.data = []
    settle(window)
    assert not window.masks().any()
    assert window.told == []


def test_two_objects_with_names(window: Window, reference_model: Any) -> None:
    data = loop()
    window.open(data)
    window.draw_box()
    window.panel.object_list.add_button.click()
    window.panel.object_list.list.currentItem().setText(0, "lumen")
    boxes = window.draw_box(corners=CORNERS // 2)
    settle(window)
    control = window.panel.controller
    assert control.objects.names == {1: "Object 1", 2: "lumen"}
    assert dict(control.snapshot.names) == {1: "Object 1", 2: "lumen"}
    assert boxes.features["object"].tolist() == [1, 2]
    reference = CineSession(Cine(data), reference_model)
    reference.add_box(1, 0, BOX)
    reference.add_box(2, 0, (10.5, 9.5, 31.5, 30.5))
    assert np.array_equal(window.masks()[0], reference.labels(0))
    # Removing the first leaves the second.
    window.panel.object_list.list.setCurrentItem(window.panel.object_list.list.topLevelItem(0))
    window.panel.object_list.remove_button.click()
    settle(window)
    assert control.objects.names == {2: "lumen"}
    assert boxes.features["object"].tolist() == [2]
    assert np.array_equal(window.masks()[0] == 2, reference.step(0).masks[2])
    assert not (window.masks() == 1).any()


def test_painting_in_the_masks_is_a_prompt(window: Window) -> None:
    window.open(loop())
    boxes = window.draw_box()
    settle(window)
    layer = window.viewer.layers["UniUltra masks"]
    window.viewer.dims.set_point(0, 0)
    layer.mode = "paint"
    layer.selected_label, layer.brush_size = 1, 9
    before = window.masks()[0] == 1
    layer.paint((0, 5, 5), 1)
    painted = np.array(layer.data[0]) == 1
    assert painted.sum() > before.sum()
    settle(window)
    assert np.array_equal(window.masks()[0] == 1, painted)
    assert np.array_equal(window.panel.controller.snapshot.prompts[1, 0].mask, painted)
    assert len(boxes.data) == 0


def test_an_outline_counts_as_drawn_when_asked_to(window: Window) -> None:
    window.open(loop())
    window.panel.marks_box.exact_box.click()
    window.panel.marks_box.tools["box"].click()
    boxes = window.viewer.layers["UniUltra boxes"]
    boxes.add(np.array([[0, 10.2, 10.2], [0, 10.2, 40.2], [0, 50.2, 10.2]]), shape_type="polygon")
    settle(window)
    rows, columns = np.indices((HEIGHT, WIDTH))
    inside = (rows > 10.2) & (columns > 10.2) & ((rows - 10.2) / 40 + (columns - 10.2) / 30 < 1)
    assert np.array_equal(window.masks()[0] == 1, inside)


# Tracking -------------------------------------------------------------------------------------------------------------


def test_tracking_both_ways_with_progress(window: Window, reference_model: Any) -> None:
    data = loop()
    window.open(data)
    window.draw_box(frame=3)
    shown: list[str] = []
    window.panel.controller.tracker.progressed.connect(lambda _: shown.append(window.panel.tracking_box.pace.text()))
    window.panel.tracking_box.both_button.click()
    assert not window.panel.tracking_box.forward_button.isEnabled()
    settle(window)
    reference = CineSession(Cine(data), reference_model)
    reference.add_box(1, 3, BOX)
    for _ in reference.propagate("both"):
        pass
    assert np.array_equal(window.masks(), reference.masks)
    assert any("frame" in words and "s left" in words for words in shown)
    assert shown[-1] == ""
    assert window.panel.tracking_box.forward_button.isEnabled()
    assert not window.panel.tracking_box.cancel_button.isEnabled()


def test_the_slider_moves_while_it_tracks(window: Window) -> None:
    window.open(loop(frames=12))
    window.draw_box()
    settle(window)
    ticks, steps = [], []
    timer = QTimer()
    timer.setInterval(5)

    def drag() -> None:
        frame = len(ticks) % 12
        window.viewer.dims.set_point(0, frame)
        ticks.append(int(window.viewer.dims.current_step[0]) == frame)

    timer.timeout.connect(drag)
    window.panel.controller.tracker.progressed.connect(lambda progress: steps.append(progress))
    window.panel.tracking_box.forward_button.click()
    timer.start()
    until(window, lambda: not window.panel.controller.tracker.running)
    timer.stop()
    assert len(ticks) > 12  # more turns of the event loop than frames tracked: it was never waiting for one
    assert all(ticks)
    assert window.masks().any(axis=(1, 2)).all()


def test_cancel_keeps_what_is_done_and_tracking_goes_on_from_there(window: Window, reference_model: Any) -> None:
    data = loop(frames=30)
    window.open(data)
    window.draw_box()
    settle(window)
    window.panel.tracking_box.forward_button.click()
    until(window, lambda: window.panel.tracking_box.progress.value() >= 3)
    window.panel.tracking_box.cancel_button.click()
    done_at_cancel = window.panel.tracking_box.progress.value()
    until(window, lambda: not window.panel.controller.tracker.running)
    filled = window.masks().any(axis=(1, 2))
    count = int(filled.sum())
    assert done_at_cancel <= count <= done_at_cancel + 2  # the frame it was at, and one on its way to the screen
    assert count < 30
    assert filled[:count].all()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    reference = CineSession(Cine(data), reference_model)
    reference.add_box(1, 0, BOX)
    for _ in reference.propagate("forward"):
        pass
    assert np.array_equal(window.masks(), reference.masks)


def test_a_prompt_is_answered_in_the_middle_of_tracking(window: Window) -> None:
    window.open(loop(frames=30))
    window.draw_box()
    settle(window)
    window.panel.tracking_box.forward_button.click()
    until(window, lambda: window.panel.tracking_box.progress.value() >= 2)
    window.draw_box(frame=29, corners=CORNERS + 2)
    until(window, lambda: (1, 29) in window.panel.controller.snapshot.prompts)
    assert window.panel.controller.tracker.running
    assert window.masks()[29].any()
    window.panel.tracking_box.cancel_button.click()
    settle(window)


def test_tracking_without_a_prompt_says_so(window: Window) -> None:
    window.open(loop())
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert len(window.told) == 1
    assert "nothing to track" in window.told[0]
    assert window.panel.tracking_box.forward_button.isEnabled()


# Review ---------------------------------------------------------------------------------------------------------------


def test_undo_and_redo_move_masks_and_drawings(window: Window) -> None:
    window.open(loop())
    boxes = window.draw_box()
    settle(window)
    first = window.masks().copy()
    window.click("add", (0, 10, 10))
    settle(window)
    second = window.masks().copy()
    points = window.viewer.layers["UniUltra points"]
    window.panel.review_box.undo_button.click()
    settle(window)
    assert np.array_equal(window.masks(), first)
    assert (len(boxes.data), len(points.data)) == (1, 0)
    window.panel.review_box.undo_button.click()
    settle(window)
    assert not window.masks().any()
    assert len(boxes.data) == 0
    assert not window.panel.review_box.undo_button.isEnabled()
    for _ in range(2):
        window.panel.review_box.redo_button.click()
        settle(window)
    assert np.array_equal(window.masks(), second)
    assert np.allclose(boxes.data[0][:, 1:], CORNERS)
    assert np.allclose(points.data, [[0, 10, 10]])
    assert points.features["label"].tolist() == [1]


def test_an_accepted_frame_is_not_overwritten(window: Window) -> None:
    window.open(loop())
    boxes = window.draw_box()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    window.viewer.dims.set_point(0, 5)
    window.panel.review_box.accept_button.click()
    settle(window)
    assert window.panel.review_box.accept_button.isChecked()
    accepted = window.masks()[5].copy()
    assert accepted.any()
    # A box on it is refused in words, and does not stay.
    window.draw_box(frame=5, corners=CORNERS - 8)
    settle(window)
    assert "accepted" in window.told[0]
    assert len(boxes.data) == 1
    boxes.data = [np.insert(CORNERS - 8.0, 0, 0, axis=1)]
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert np.array_equal(window.masks()[5], accepted)
    window.viewer.dims.set_point(0, 4)
    assert not window.panel.review_box.accept_button.isChecked()
    window.viewer.dims.set_point(0, 5)
    window.panel.review_box.accept_button.click()
    settle(window)
    assert not window.panel.review_box.accept_button.isChecked()


def test_saved_work_comes_back(window: Window, isolated_home: Path) -> None:
    data = loop()
    window.open(data)
    window.draw_box()
    window.panel.object_list.list.currentItem().setText(0, "lumen")
    window.panel.tracking_box.forward_button.click()
    settle(window)
    before = window.masks().copy()
    assert len(list((isolated_home / "autosave").glob("*.npz"))) == 1
    window.viewer.layers.clear()
    settle(window)
    window.open(data)
    settle(window)
    assert window.panel.restore_button.isVisibleTo(window.panel)
    window.panel.restore_button.click()
    settle(window)
    assert np.array_equal(window.masks(), before)
    assert window.panel.controller.objects.names == {1: "lumen"}
    assert np.allclose(window.viewer.layers["UniUltra boxes"].data[0][:, 1:], CORNERS)
    assert not window.panel.restore_button.isVisibleTo(window.panel)
    assert window.told == []


def test_saved_work_that_was_not_restored_is_still_there_after_the_next_prompt(window: Window) -> None:
    data = loop()
    window.open(data)
    window.draw_box()
    settle(window)
    before = window.masks().copy()
    window.viewer.layers.clear()
    settle(window)
    window.open(data)
    window.draw_box(frame=4)
    settle(window)
    assert window.masks()[4].any()
    window.panel.restore_button.click()
    settle(window)
    assert np.array_equal(window.masks(), before)


# Things that go away --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loop", "UniUltra masks", "UniUltra boxes"])
def test_deleting_a_layer_while_tracking(window: Window, name: str) -> None:
    data = loop(frames=30)
    window.open(data)
    window.draw_box()
    settle(window)
    prompted = window.masks()[0].copy()
    window.panel.tracking_box.forward_button.click()
    until(window, lambda: window.panel.tracking_box.progress.value() >= 2)
    window.viewer.layers.remove(name)
    if name == "UniUltra boxes":  # drawings are not needed to track
        assert window.panel.controller.tracker.running
        until(window, lambda: window.panel.tracking_box.progress.value() >= 4)
        window.panel.tracking_box.cancel_button.click()
        settle(window)
        assert np.array_equal(window.masks()[0], prompted)
        window.panel.marks_box.tools["box"].click()
        assert np.allclose(window.viewer.layers[name].data[0][:, 1:], CORNERS)
        return
    until(window, lambda: not window.panel.controller.tracker.running)
    settle(window)
    assert len(window.told) == 1
    assert "tracking stopped" in window.told[0]
    if name == "loop":
        assert not window.panel.tracking_box.forward_button.isEnabled()
        assert np.array_equal(window.masks()[0], prompted)  # what was found stays to be looked at and saved
        return
    assert name not in window.viewer.layers
    window.draw_box(frame=29)
    settle(window)
    filled = window.masks().any(axis=(1, 2))
    assert np.array_equal(window.masks()[0], prompted)
    assert filled[:3].all()
    assert filled[29]


def test_closing_the_window_while_tracking(window: Window, isolated_home: Path, reference_model: Any) -> None:
    data = loop(frames=40)
    window.open(data)
    window.draw_box()
    settle(window)
    window.panel.tracking_box.forward_button.click()
    until(window, lambda: window.panel.tracking_box.progress.value() >= 3)
    thread = window.panel.thread_
    window.viewer.close()
    assert not thread.running
    (saved,) = (isolated_home / "autosave").glob("*.npz")
    session = CineSession.restore(saved, Cine(data), reference_model)
    filled = session.masks.any(axis=(1, 2))
    count = int(filled.sum())
    assert 3 <= count < 40
    assert filled[:count].all()


@pytest.mark.parametrize("way", ["window", "dock"])
def test_closing_keeps_what_was_not_sent_yet(
    window: Window, isolated_home: Path, reference_model: Any, way: str
) -> None:
    data = loop()
    window.viewer.window.show()
    window.open(data)
    window.panel.marks_box.auto_box.click()
    window.draw_box()
    window.panel.marks_box.tools["paint"].click()
    window.viewer.layers["UniUltra masks"].paint((0, 10, 10), 1)
    window.viewer.dims.set_point(0, 3)
    window.viewer.layers["UniUltra masks"].paint((3, 10, 10), 1)
    painted = window.masks()[3] == 1
    thread = window.panel.thread_
    if way == "window":
        QApplication.sendEvent(window.viewer.window._qt_window, QCloseEvent())  # as a click on its cross does
    else:
        window.viewer.window.remove_dock_widget("all")
    assert not thread.running
    (saved,) = (isolated_home / "autosave").glob("*.npz")
    session = CineSession.restore(saved, Cine(data), reference_model)
    assert set(session.prompts) == {(1, 0), (1, 3)}
    assert np.array_equal(session.step(3).masks[1], painted)


def test_a_window_that_is_kept_open_has_all_of_the_work(window: Window) -> None:
    window.viewer.window.show()
    window.open(loop())
    window.draw_box()
    settle(window)
    window.panel.marks_box.auto_box.click()
    window.draw_box(frame=3)
    window.panel.shut_down()
    settle(window)
    assert set(window.panel.controller.snapshot.prompts) == {(1, 0), (1, 3)}
    assert window.masks()[3].any()
    window.panel.review_box.undo_button.click()
    window.panel.review_box.undo_button.click()
    settle(window)
    assert window.panel.controller.snapshot.prompts == {}


def test_closing_the_panel_lets_go_of_the_viewer(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    thread = window.panel.thread_
    window.viewer.window.remove_dock_widget("all")
    window.panel.deleteLater()
    until(window, lambda: not thread.running)
    # The layers stay, and editing them concerns nobody any more.
    window.viewer.layers["UniUltra boxes"].data = []
    window.viewer.add_image(loop(), name="another")
    window.viewer.dims.set_point(0, 2)
    window.viewer.layers.clear()
    assert window.told == []


def test_the_next_panel_goes_on_with_what_a_closed_one_left(window: Window, checkpoint: Path) -> None:
    viewer = window.viewer
    window.open(loop())
    window.draw_box()
    window.click("add", (0, 30, 40))
    settle(window)
    before, old = window.masks().copy(), [layer for layer in viewer.layers if layer.name != "loop"]
    close_dock(window.panel)
    window.qtbot.wait(50)
    assert all(layer.visible for layer in old)
    _, window.panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
    window.panel.add_model_file(str(checkpoint))
    settle(window)
    assert np.array_equal(window.masks(), before)
    names = {f"UniUltra {kind}" for kind in ("boxes", "points", "masks")}
    assert not any(layer in viewer.layers for layer in old), "all of it was restored"
    assert {layer.name for layer in viewer.layers} == {"loop", *names}
    # So are those of other pixels.
    viewer.layers["loop"].data = loop()[:, ::-1, :80]
    settle(window)
    window.draw_box(frame=1)
    settle(window)
    assert [layer.name for layer in viewer.layers if layer.visible and "masks" in layer.name] == ["UniUltra masks"]
    assert window.masks().shape == (8, 72, 80)
    assert window.told == []


@pytest.mark.parametrize("restorable", [True, False])
def test_what_was_painted_while_the_panel_was_closed_reaches_the_session(
    window: Window, checkpoint: Path, isolated_home: Path, restorable: bool
) -> None:
    viewer = window.viewer
    window.open(loop())
    window.draw_box()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    before, masks = window.masks().copy(), viewer.layers["UniUltra masks"]
    close_dock(window.panel)
    window.qtbot.wait(50)
    masks.brush_size = 9
    masks.paint((5, 8, 8), 1)
    rows, columns = np.nonzero(before[6] == 0)
    masks.data_setitem((np.full(3, 6), rows[:3], columns[:3]), 2)
    viewer.layers["UniUltra boxes"].add(np.insert(CORNERS + 3.0, 0, 2, axis=1))
    set_markers(masks, Markers({1: (Cycle(0, 4),)}))
    painted = masks.data.copy()
    if not restorable:
        for file in isolated_home.glob("autosave/*"):
            file.unlink()
    _, window.panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
    window.panel.add_model_file(str(checkpoint))
    settle(window)
    prompts = window.panel.controller.snapshot.prompts
    assert np.array_equal(prompts[1, 5].mask, painted[5] == 1)
    assert np.array_equal(prompts[2, 6].mask, painted[6] == 2)
    assert np.allclose(prompts[1, 2].box, np.array(BOX) + 3)
    assert len(viewer.layers["UniUltra boxes"].data) == 2
    assert (masks in viewer.layers) != restorable, "what is not restored stays, hidden"
    assert {layer.name for layer in viewer.layers if layer.visible} == {"loop", "UniUltra masks", "UniUltra boxes"}
    if restorable:
        assert window.panel.controller.snapshot.markers.cycles == {1: (Cycle(0, 4),)}
        assert np.array_equal(np.delete(window.masks(), 2, axis=0), np.delete(painted, 2, axis=0))
        assert set(prompts) == {(1, 0), (1, 2), (1, 5), (2, 6)}
        window.panel.review_box.undo_button.click()
        settle(window)
        assert np.array_equal(window.masks(), before)
        assert len(viewer.layers["UniUltra boxes"].data) == 1
    assert len(window.told) == (1 if restorable else 2)
    taken = "What was painted on frames 5 and 6 while the panel was closed is taken over. Undo takes it back."
    assert taken in window.told


@pytest.mark.parametrize("tool", ["paint", "box"])
def test_a_tool_taken_before_the_loop_is_open_again_costs_nothing(window: Window, checkpoint: Path, tool: str) -> None:
    viewer = window.viewer
    window.open(loop())
    window.draw_box()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    masks = viewer.layers["UniUltra masks"]
    set_markers(masks, Markers({1: (Cycle(0, 4),)}))
    settle(window)
    close_dock(window.panel)
    window.qtbot.wait(50)
    masks.paint((5, 8, 8), 1)
    set_markers(masks, Markers())
    painted = masks.data.copy()
    _, window.panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
    window.panel.add_model_file(str(checkpoint))
    window.panel.marks_box.tools[tool].click()
    if tool == "paint":
        viewer.layers["UniUltra masks"].paint((3, 60, 84), 2)
    else:
        window.draw_box(frame=3)
    settle(window)
    assert window.panel.controller.marks.tool == tool
    prompts = window.panel.controller.snapshot.prompts
    assert set(prompts) == {(1, 0), (1, 5), (2, 3) if tool == "paint" else (1, 3)}
    assert np.array_equal(prompts[1, 5].mask, painted[5] == 1)
    assert np.array_equal(np.delete(window.masks(), 3, axis=0), np.delete(painted, 3, axis=0))
    assert window.masks()[3, 60, 84] == (2 if tool == "paint" else 0)
    assert len(viewer.layers["UniUltra boxes"].data) == (1 if tool == "paint" else 2)
    assert {layer.name for layer in viewer.layers if layer.visible} == {"loop", "UniUltra masks", "UniUltra boxes"}
    assert window.panel.controller.snapshot.markers == Markers(), "the beats were deleted meanwhile"
    (words,) = window.told
    assert words.startswith("What was painted on frame 5 while the panel was closed is taken over.")


def test_what_was_painted_for_other_pixels_is_set_aside_at_once(window: Window, checkpoint: Path) -> None:
    image = window.open(loop())
    window.draw_box()
    settle(window)
    masks = window.viewer.layers["UniUltra masks"]
    close_dock(window.panel)
    window.qtbot.wait(50)
    masks.paint((5, 8, 8), 1)
    image.data = loop()[:4]
    _, window.panel = window.viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
    window.panel.add_model_file(str(checkpoint))
    settle(window)
    (words,) = window.told
    assert "UniUltra masks (earlier)" in words
    assert masks.name == "UniUltra masks (earlier)"
    assert window.panel.controller.snapshot.prompts == {}


@pytest.mark.parametrize("way", ["dock", "window"])
def test_marks_without_a_model_come_back(
    window: Window, tmp_path: Path, checkpoint: Path, make_napari_viewer: Callable[..., Any], way: str
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    window.viewer.window.show()
    window.panel.add_model_file(str(broken))
    window.open(loop())
    window.draw_box()
    window.click("add", (2, 30, 40))
    settle(window)
    window.panel.marks_box.tools["paint"].click()
    for column in (10, 60):
        window.viewer.layers["UniUltra masks"].paint((4, 10, column), 1)
        settle(window)
    painted = window.masks()[4].copy()
    assert painted.any()
    if way == "dock":
        close_dock(window.panel)
        window.viewer.layers.clear()
    else:
        QApplication.sendEvent(window.viewer.window._qt_window, QCloseEvent())
        window.viewer = make_napari_viewer()
    window.qtbot.wait(50)
    _, window.panel = window.viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
    window.panel.add_model_file(str(broken))
    window.open(loop())
    settle(window)
    window.panel.restore_button.click()
    settle(window)
    (box,) = window.viewer.layers["UniUltra boxes"].data
    assert np.allclose(box, np.insert(CORNERS, 0, 0, axis=1))
    assert np.allclose(window.viewer.layers["UniUltra points"].data, [[2, 30, 40]])
    assert np.array_equal(window.masks()[4], painted)
    assert not window.masks()[[0, 2]].any()
    # They are answered as soon as there is a model.
    window.panel.add_model_file(str(checkpoint))
    settle(window)
    prompts = window.panel.controller.snapshot.prompts
    assert set(prompts) == {(1, 0), (1, 2), (1, 4)}
    assert np.array_equal(prompts[1, 4].mask, painted == 1)
    assert window.masks()[[0, 2]].any()
    assert all("broken" in words for words in window.told)
    window.panel.review_box.undo_button.click()
    settle(window)
    assert window.panel.controller.snapshot.prompts == {}
    window.panel.thread_.stop()


def test_a_model_that_cannot_be_loaded_leaves_everything_as_it_was(
    window: Window, tmp_path: Path, checkpoint: Path
) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    before = window.masks().copy()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    window.panel.add_model_file(str(broken))
    window.draw_box(frame=3)
    settle(window)
    (words,) = window.told
    assert "broken.safetensors" in words, "told once, though several jobs find out"
    assert np.array_equal(window.masks(), before)
    # The box is still asked for once a model is there.
    window.panel.add_model_file(str(checkpoint))
    settle(window)
    assert window.masks()[3].any()


# Images of all kinds --------------------------------------------------------------------------------------------------


def kinds() -> dict[str, np.ndarray]:
    base = loop(frames=2)
    with_nan = base.astype(np.float32) / 255
    with_nan[:, :5, :5] = np.nan
    return {
        "uint16": base.astype(np.uint16) * 200,
        "float with NaN": with_nan,
        "constant": np.full((2, HEIGHT, WIDTH), 7, np.uint8),
        "64 x 64": loop(2, 64, 64),
        "odd": loop(2, 71, 93),
        "very wide": loop(2, 64, 1500),
        "large": loop(1, 1500, 1500),
        "RGB": np.repeat(base[..., None], 3, axis=-1),
        "one frame": base[:1],
        "still": base[0],
        "RGB still": np.repeat(base[0][..., None], 3, axis=-1),
    }


@pytest.mark.parametrize("kind", kinds())
def test_images_of_all_kinds_give_the_masks_of_the_session(window: Window, reference_model: Any, kind: str) -> None:
    data = kinds()[kind]
    rgb = kind.startswith("RGB")
    image = window.open(data, rgb=rgb)
    is_still = image.ndim == 2
    window.draw_box(frame=None if is_still else 0)
    window.panel.tracking_box.both_button.click()
    settle(window)
    assert window.told == []
    reference = CineSession(Cine(data), reference_model)
    reference.add_box(1, 0, BOX)
    for _ in reference.propagate("both"):
        pass
    masks = window.masks()
    assert masks.shape == image.data.shape[: image.ndim]
    assert np.array_equal(masks[None] if is_still else masks, reference.masks)


def test_a_box_beside_the_image_is_refused_in_words(window: Window) -> None:
    window.open(loop())
    window.draw_box(corners=CORNERS + 500)
    settle(window)
    assert len(window.told) == 1
    assert "covers no pixel" in window.told[0]
    assert not window.masks().any()
    # It is told once, and the next box works.
    window.draw_box(frame=1)
    settle(window)
    assert window.masks()[1].any()
    assert len(window.told) == 1


def test_a_volume_over_time_is_refused_once_and_another_layer_can_be_chosen(window: Window) -> None:
    window.open(loop(), name="loop")
    window.draw_box()
    settle(window)
    window.open(np.zeros((2, 3, 40, 50), np.uint8), name="volumes")
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText("volumes"))
    assert len(window.told) == 1
    assert "4 dimensions" in window.told[0]
    settle(window)
    assert "4 dimensions" in window.panel.status.text()
    strip = window.panel.confidence.strip
    assert [strip.words_at(QPoint(strip.width() // 2, y)) for y in range(strip.height())] == [""] * strip.height()
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText("loop"))
    assert window.panel.marks_box.tools["box"].isEnabled()
    assert len(window.told) == 1


def test_two_loops_each_with_its_own_work(window: Window) -> None:
    window.open(loop(), name="first")
    window.draw_box()
    settle(window)
    first = window.viewer.layers["UniUltra masks"]
    before = first.data.copy()
    window.open(loop()[:, ::-1].copy(), name="second")
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText("second"))
    window.panel.marks_box.tools["box"].click()
    second_boxes = window.panel.controller.layers[0]
    assert second_boxes.name != "UniUltra boxes"
    second_boxes.add(np.insert(CORNERS, 0, 4, axis=1), shape_type="rectangle")
    settle(window)
    assert window.panel.controller.layers[-1].data[4].any()
    assert np.array_equal(first.data, before)
    # Back to the first: its work goes on.
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText("first"))
    settle(window)
    assert window.panel.controller.layers[-1] == first
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert first.data.any(axis=(1, 2)).all()
    assert np.array_equal(first.data[0], before[0])


def choose(window: Window, name: str) -> None:
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText(name))
    settle(window)


def test_undo_and_what_is_left_to_track_are_there_after_another_loop(window: Window) -> None:
    window.open(loop(frames=30), name="first")
    boxes = window.draw_box()
    settle(window)
    window.panel.tracking_box.forward_button.click()
    until(window, lambda: window.panel.tracking_box.progress.value() >= 3)
    window.open(loop()[:, ::-1].copy(), name="second")
    choose(window, "second")
    control = window.panel.controller
    assert control.host._session is None
    first = next(work for work in control._workspaces if work.image.name == "first").session.session
    assert first.model is None, "and so nothing on its device"
    choose(window, "first")
    before = window.masks().copy()
    count = int(before.any(axis=(1, 2)).sum())
    assert 3 <= count < 30
    assert control.tracker.can_go_on
    control.tracker.go_on()
    settle(window)
    assert np.array_equal(window.masks()[:count], before[:count])
    assert window.masks().any(axis=(1, 2)).all()
    for _ in range(3):
        window.panel.review_box.undo_button.click()
    settle(window)
    assert not window.masks().any()
    assert len(boxes.data) == 0
    choose(window, "second")
    choose(window, "first")
    window.panel.review_box.redo_button.click()
    settle(window)
    assert np.allclose(boxes.data[0][:, 1:], CORNERS)
    assert window.told == []


@pytest.mark.parametrize("way", ["tool", "data"])
def test_who_works_in_the_layers_of_another_loop_turns_to_it(window: Window, way: str) -> None:
    window.open(loop(), name="first")
    boxes = window.draw_box()
    settle(window)
    window.open(loop()[:, ::-1].copy(), name="second")
    choose(window, "second")
    window.panel.marks_box.tools["box"].click()
    settle(window)
    masks = window.viewer.layers["UniUltra masks"]
    window.viewer.layers.selection.active = masks
    assert window.panel.image_box.currentText() == "second", "looking at a layer is no work"
    if way == "tool":
        window.viewer.dims.set_point(0, 4)
        masks.mode = "paint"
        assert window.panel.image_box.currentText() == "first"
        masks.paint((4, 10, 10), 1)
        painted = window.masks()[4] == 1
    else:
        boxes.data = [np.insert(CORNERS + 4.0, 0, 0, axis=1)]
        changed = masks.data.copy()
        changed[4, 10:20, 10:20] = 1
        masks.data = changed
        painted = changed[4] == 1
    settle(window)
    assert window.panel.image_box.currentText() == "first"
    prompts = window.panel.controller.snapshot.prompts
    assert set(prompts) == {(1, 0), (1, 4)}
    assert np.array_equal(prompts[1, 4].mask, painted)
    assert np.array_equal(window.masks()[4] == 1, painted)
    assert np.allclose(prompts[1, 0].box, np.array(BOX) + (4 if way == "data" else 0))
    assert window.told == []


def test_a_layer_deleted_while_another_loop_is_in_use_comes_back(window: Window) -> None:
    window.open(loop(), name="first")
    window.draw_box()
    settle(window)
    before = window.masks().copy()
    window.open(loop()[:, ::-1].copy(), name="second")
    choose(window, "second")
    window.viewer.layers.remove("UniUltra masks")
    window.viewer.layers.remove("UniUltra boxes")
    choose(window, "first")
    assert np.array_equal(window.masks(), before)
    assert np.allclose(window.viewer.layers["UniUltra boxes"].data[0][:, 1:], CORNERS)


def saved_works(home: Path) -> list[set[tuple[int, int]]]:
    """The marks in each of the files in which work is kept."""
    data = Cine(loop())
    return [set(CineSession.restore(file, data, None).prompts) for file in sorted((home / "autosave").glob("*.npz"))]


def test_two_layers_of_one_loop_keep_their_own_work(window: Window, isolated_home: Path) -> None:
    window.open(loop(), name="first")
    window.draw_box()
    settle(window)
    window.open(loop(), name="copy")
    choose(window, "copy")
    assert len(window.told) == 1
    assert "very same loop" in window.told[0]
    control = window.panel.controller
    assert control.restorable
    window.panel.marks_box.tools["box"].click()
    control.layers[0].add(np.insert(CORNERS, 0, 5, axis=1), shape_type="rectangle")
    settle(window)
    assert {frame for _, frame in control.snapshot.prompts} == {5}
    choose(window, "first")
    assert {frame for _, frame in control.snapshot.prompts} == {0}
    control.layers[0].add(np.insert(CORNERS, 0, 2, axis=1), shape_type="rectangle")
    settle(window)
    choose(window, "copy")
    assert {frame for _, frame in control.snapshot.prompts} == {5}
    window.panel.review_box.undo_button.click()
    settle(window)
    assert control.snapshot.prompts == {}
    assert control.restorable
    # Whatever one wrote over is beside it.
    assert sorted(map(sorted, saved_works(isolated_home))) == [[], [(1, 0)], [(1, 0), (1, 2)], [(1, 5)]]


def test_work_that_was_not_restored_is_never_written_over(window: Window, isolated_home: Path) -> None:
    for frame in range(3):  # three days, none of which brings back the one before
        window.open(loop(), name="loop")
        window.draw_box(frame=frame)
        settle(window)
        window.open(loop()[:, ::-1].copy(), name="second")
        choose(window, "second")
        choose(window, "loop")
        assert {own for _, own in window.panel.controller.snapshot.prompts} == {frame}
        assert window.panel.restore_button.isVisibleTo(window.panel) == (frame > 0)
        if frame < 2:
            window.viewer.layers.clear()
            settle(window)
    window.panel.restore_button.click()
    settle(window)
    assert {frame for _, frame in window.panel.controller.snapshot.prompts} == {1}
    works = saved_works(isolated_home)
    assert {(1, 0)} in works
    assert {(1, 1)} in works


def test_work_that_cannot_be_moved_aside_is_not_written_over(
    window: Window, isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.open(loop())
    window.draw_box(frame=0)
    settle(window)
    window.viewer.layers.clear()
    settle(window)
    replace = os.replace

    def held(source: Path, target: Path) -> None:  # as on Windows, while another program reads the file
        if not Path(source).name.startswith("."):
            raise PermissionError(13, "The process cannot access the file", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", held)
    window.open(loop())
    for frame in (3, 5):
        window.draw_box(frame=frame)
        settle(window)
    assert sorted(map(sorted, saved_works(isolated_home))) == [[(1, 0)], [(1, 3), (1, 5)]]
    assert len(window.told) == 1
    assert "a file of its own" in window.told[0]
    assert window.panel.restore_button.isVisibleTo(window.panel)


def test_renamed_layers_and_a_changed_scale_are_followed(window: Window) -> None:
    image = window.open(loop())
    boxes = window.draw_box()
    settle(window)
    image.name, boxes.name = "probe A", "my boxes"
    window.viewer.layers["UniUltra masks"].name = "my masks"
    assert window.panel.image_box.currentText() == "probe A"
    image.scale = (1, 0.5, 0.5)
    image.units, image.axis_labels = ("s", "mm", "mm"), ("t", "y", "x")
    assert np.array_equal(boxes.scale, image.scale)
    assert (boxes.units, boxes.axis_labels) == (image.units, image.axis_labels)
    boxes.add(np.insert(CORNERS, 0, 6, axis=1), shape_type="rectangle")
    settle(window)
    assert window.viewer.layers["my masks"].data[6].any()
    masks = window.viewer.layers["my masks"]
    assert np.array_equal(masks.scale, image.scale)
    assert (masks.units, masks.axis_labels) == (image.units, image.axis_labels)
    assert window.told == []


def test_beyond_the_loops_end_nothing_is_done_to_its_last_frame(window: Window) -> None:
    window.open(loop(), name="short")
    window.draw_box(frame=7)
    settle(window)
    window.open(loop(frames=20), name="long")
    window.viewer.dims.set_current_step(0, 7)
    panel, control = window.panel, window.panel.controller
    assert control.image.name == "short"
    assert panel.review_box.accept_button.isEnabled()
    window.viewer.dims.set_current_step(0, 15)
    assert not panel.review_box.accept_button.isEnabled()
    assert not panel.marks_box.absent_button.isEnabled()
    before = control.snapshot
    handler = window.viewer.window._qt_viewer._key_map_handler
    for name in ("accept", "absent", "fill_between", "range_start", "range_end"):
        window.told.clear()
        handler.press_key(KEYS[name])
        settle(window)
        assert window.told == ["short ends at frame 7. Go to one of its frames first."]
    assert (control.snapshot.locked, control.snapshot.prompts) == (before.locked, before.prompts)
    assert control.tracker.range == (0, 7)
    window.viewer.dims.set_current_step(0, 7)
    handler.press_key(KEYS["accept"])
    settle(window)
    assert control.snapshot.locked == {(1, 7)}
    window.told.clear()
    window.draw_box(frame=7, corners=CORNERS - 3)
    settle(window)
    assert "Press Accept frame (G) again" in window.told[0]


def test_the_masks_know_the_loops_spacing(window: Window) -> None:
    window.open(loop(), metadata={METADATA_KEY: {"spacing_mm": (0.2, 0.3)}})
    window.draw_box()
    settle(window)
    assert window.viewer.layers["UniUltra masks"].metadata[METADATA_KEY]["spacing_mm"] == (0.2, 0.3)


# Keys -----------------------------------------------------------------------------------------------------------------


def test_keys_work_whatever_layer_is_chosen(window: Window) -> None:
    image = window.open(loop())
    window.draw_box()
    settle(window)
    control, viewer = window.panel.controller, window.viewer
    handler = viewer.window._qt_viewer._key_map_handler  # how napari itself delivers keys
    for layer in (image, *control.layers):
        viewer.layers.selection.active = layer
        control.marks.put_away()
        handler.press_key(KEYS["add"])
        assert control.marks.tool == "add"
    handler.press_key(KEYS["forward"])
    assert control.tracker.running
    settle(window)
    handler.press_key("Control-Z")
    settle(window)
    assert window.masks().any(axis=(1, 2)).sum() == 1
