"""Marking in the real panel: tools, painting and erasing, marks that are collected, and what other plugins do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import tifffile
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from panel_window import BOX, CORNERS, HEIGHT, WIDTH, Window, loop, mouse_event, settle, thread_held, until
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication

from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.plugin.outlines import Outline, Outlines, same_request
from napari_uniultra.plugin.painting import Painted, prompts_of_painted
from napari_uniultra.plugin.strokes import frames_before
from napari_uniultra.segment.session import CineSession
from napari_uniultra.widgets.keys import KEYS

# Painting as prompts, without a viewer --------------------------------------------------------------------------------


def labels(*rows: str) -> np.ndarray:
    return np.array([[int(label) for label in row] for row in rows])


def masks_of(*rows: str) -> dict[int, np.ndarray]:
    image = labels(*rows)
    return {int(label): image == label for label in np.unique(image[image > 0])}


def test_what_was_painted_and_wiped_off() -> None:
    before, after = labels("1100", "0022"), labels("1000", "3022")
    found = prompts_of_painted(Painted(before, after), before, masks_of("1100", "0022"))
    assert found == {1: Prompt(mask=labels("1000", "0000") > 0), 3: Prompt(mask=labels("0000", "1000") > 0)}


def test_what_lies_under_another_object_stays() -> None:
    hidden = {1: labels("1111") > 0, 2: labels("0110") > 0}  # 2 lies on 1
    shown = labels("1220")
    assert prompts_of_painted(Painted(shown, labels("1221")), shown, {**hidden, 1: labels("1110") > 0}) == {
        1: Prompt(mask=labels("1111") > 0)
    }
    erased = prompts_of_painted(Painted(labels("1221"), labels("1020")), labels("1221"), hidden)
    assert erased == {1: Prompt(mask=labels("1110") > 0), 2: Prompt(mask=labels("0010") > 0)}


def test_an_object_that_is_wiped_off_is_absent() -> None:
    before = labels("1100")
    (prompt,) = prompts_of_painted(Painted(before, labels("0000")), before, masks_of("1100")).values()
    assert prompt.absent


def test_what_was_found_while_painting_stays() -> None:
    before, after, known = labels("0000"), labels("1000"), labels("0022")  # 2 was found in the meantime
    assert prompts_of_painted(Painted(before, after), known, masks_of("0022")) == {1: Prompt(mask=labels("1000") > 0)}
    # Without knowing what was shown, what is known counts.
    found = prompts_of_painted(Painted(None, after), known, masks_of("0022"))
    assert found[2].absent


def test_strokes_on_a_frame_are_one() -> None:
    first, second = Painted(labels("00"), labels("10")), Painted(labels("10"), labels("11"))
    assert first.then(second).before.tolist() == [[0, 0]]
    assert first.then(second).after.tolist() == [[1, 1]]
    rewritten = Painted(labels("00"), labels("02"))  # by something that did not know of the first
    assert first.then(rewritten).after.tolist() == [[1, 2]]


def test_outlines_are_found_by_what_they_asked_for() -> None:
    kept, mask = Outlines(), Prompt(mask=np.eye(3, dtype=bool))
    ellipse = Outline(Prompt(box=(1.0, 2.0, 3.0, 4.0)), np.zeros((4, 2)), "ellipse")
    kept.remember((1, 0), ellipse)
    assert kept.find((1, 0), Prompt(box=(1.0, 2.0, 3.0, 4.0001), points=((1.0, 1.0),), labels=(1,))) is ellipse
    assert kept.find((1, 0), mask) is None
    assert kept.find((1, 1), ellipse.prompt) is None
    assert not same_request(ellipse.prompt, Prompt(box=(1.0, 2.0, 3.0, 4.0), points=((1.0, 1.0),), labels=(1,)))
    assert same_request(mask, Prompt(mask=np.eye(3, dtype=bool)))


# In the panel ---------------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.gui


def masks_layer(window: Window) -> Any:
    return window.viewer.layers["UniUltra masks"]


def tool(window: Window, name: str) -> Any:
    return window.panel.marks_box.tools[name]


def pressed(window: Window) -> list[str]:
    return [name for name, button in window.panel.marks_box.tools.items() if button.isChecked()]


def paint(window: Window, row: int, column: int, frame: int = 0, size: int = 9) -> None:
    """Paint or erase, as the layer's mode says, in one go of the brush."""
    layer = masks_layer(window)
    window.viewer.dims.set_point(0, frame)
    layer.brush_size = size
    layer.paint((frame, row, column), 0 if str(layer.mode) == "erase" else layer.selected_label)


def undo(window: Window) -> None:
    window.panel.review_box.undo_button.click()
    settle(window)


def test_painting_needs_no_mask_to_begin_with(window: Window) -> None:
    window.open(loop())
    tool(window, "paint").click()
    layer = masks_layer(window)
    assert window.viewer.layers.selection.active == layer
    assert (str(layer.mode), layer.selected_label, layer.preserve_labels) == ("paint", 1, True)
    assert pressed(window) == ["paint"]
    paint(window, 30, 40)
    painted = layer.data[0] == 1
    assert painted.any()
    settle(window)
    assert np.array_equal(window.panel.controller.snapshot.prompts[1, 0].mask, painted)
    undo(window)
    assert not window.masks().any()
    assert window.panel.controller.objects.names == {1: "Object 1"}
    assert window.told == []


def test_painting_leaves_other_objects_alone(window: Window) -> None:
    window.open(loop())
    tool(window, "paint").click()
    paint(window, 30, 40)
    settle(window)
    first = window.masks()[0] == 1
    window.panel.object_list.add_button.click()
    paint(window, 30, 44)
    settle(window)
    assert np.array_equal(window.masks()[0] == 1, first)
    assert (window.masks()[0] == 2).any()
    tool(window, "erase").click()
    paint(window, 30, 42, size=60)
    settle(window)
    assert np.array_equal(window.masks()[0] == 1, first)
    assert not (window.masks()[0] == 2).any()
    assert set(window.panel.controller.snapshot.prompts) == {(1, 0), (2, 0)}


def test_erasing_shows_what_lies_beneath(window: Window, reference_model: Any) -> None:
    data = loop()
    window.open(data)
    window.draw_box()
    window.panel.object_list.add_button.click()
    window.draw_box()  # the very same, on top
    settle(window)
    whole = CineSession(Cine(data), reference_model).add_box(1, 0, BOX).masks[1]
    assert np.array_equal(window.masks()[0], 2 * whole)
    tool(window, "erase").click()
    row, column = np.argwhere(whole)[whole.sum() // 2]
    paint(window, int(row), int(column), size=15)
    erased = whole & (np.asarray(masks_layer(window).data[0]) == 0)
    assert erased.any()
    settle(window)
    assert np.array_equal(window.masks()[0] == 1, erased)
    assert (1, 0) in window.panel.controller.snapshot.prompts
    assert window.panel.controller.snapshot.prompts[1, 0].mask is None


def test_the_size_of_the_brush_is_that_of_the_layer(window: Window) -> None:
    window.open(loop())
    window.panel.marks_box.brush_size.setValue(23)
    tool(window, "paint").click()
    assert masks_layer(window).brush_size == 23
    window.viewer.window._qt_viewer._key_map_handler.press_key("]")
    assert masks_layer(window).brush_size == window.panel.marks_box.brush_size.value() > 23
    window.panel.marks_box.brush_size.setValue(5)
    assert masks_layer(window).brush_size == 5
    assert window.panel.marks_box.brush_size.suffix() == " px"


def test_the_tool_shown_is_the_one_in_hand(window: Window) -> None:
    image = window.open(loop())
    boxes = window.draw_box()
    window.panel.object_list.add_button.click()
    window.draw_box(corners=CORNERS // 2)
    settle(window)
    layer = masks_layer(window)
    assert pressed(window) == ["box"]
    boxes.mode = "select"
    assert pressed(window) == []
    boxes.mode = "add_ellipse"
    assert pressed(window) == ["box"]
    window.viewer.layers.selection.active = image
    assert pressed(window) == []
    window.viewer.layers.selection.active = layer
    layer.mode = "erase"
    assert pressed(window) == ["erase"]
    layer.mode = "paint"
    assert pressed(window) == ["paint"]
    # The label that is painted is the object that is chosen.
    assert window.panel.controller.objects.current == 2
    layer.selected_label = 1
    assert window.panel.controller.objects.current == 1
    assert window.panel.object_list.list.currentItem().text(0) == "Object 1"
    layer.selected_label = 0
    assert pressed(window) == ["erase"]
    layer.selected_label = 1
    tool(window, "paint").click()
    assert pressed(window) == []
    assert str(layer.mode) == "pan_zoom"
    tool(window, "remove").click()
    assert pressed(window) == ["remove"]


def test_keys_for_painting_and_absence_work_whatever_layer_is_chosen(window: Window) -> None:
    image = window.open(loop())
    window.draw_box()
    window.click("add", (0, 30, 40))
    settle(window)
    control, viewer = window.panel.controller, window.viewer
    handler = viewer.window._qt_viewer._key_map_handler
    viewer.dims.set_point(0, 0)
    for layer in (image, *control.layers):
        for action in ("paint", "erase"):
            viewer.layers.selection.active = layer
            handler.press_key(KEYS[action])
            assert control.marks.tool == action
        viewer.layers.selection.active = layer
        handler.press_key(KEYS["hide_object"])
        assert control.objects.all[0].hidden
        handler.press_key(KEYS["hide_object"])
        handler.press_key(KEYS["lock_object"])
        assert control.objects.all[0].locked
        handler.press_key(KEYS["lock_object"])
        handler.press_key(KEYS["absent"])
        settle(window)
        assert control.marks.absent
        handler.press_key(KEYS["absent"])
        settle(window)
        assert not control.marks.absent
    handler.press_key(KEYS["delete_object"])
    settle(window)
    assert control.snapshot.names == {}
    assert window.told == []


# Absent ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["button", "brush"])
def test_an_object_that_is_not_here_does_not_come_back(window: Window, way: str) -> None:
    window.open(loop())
    window.draw_box()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    before = window.masks().copy()
    assert before[3].any()
    window.viewer.dims.set_point(0, 3)
    if way == "button":
        window.panel.marks_box.absent_button.click()
    else:
        tool(window, "erase").click()
        paint(window, HEIGHT // 2, WIDTH // 2, frame=3, size=2 * WIDTH)
    settle(window)
    assert not window.masks()[3].any()
    assert window.panel.controller.snapshot.prompts[1, 3].absent
    assert window.panel.marks_box.absent_button.isChecked()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert not window.masks()[3].any()
    window.viewer.dims.set_point(0, 2)
    assert not window.panel.marks_box.absent_button.isChecked()
    undo(window)  # the tracking
    assert np.array_equal(np.delete(window.masks(), 3, axis=0), np.delete(before, 3, axis=0))
    undo(window)
    assert np.array_equal(window.masks(), before)
    assert window.told == []


def test_not_here_can_be_taken_back(window: Window) -> None:
    window.open(loop())
    boxes = window.draw_box()
    settle(window)
    before = window.masks().copy()
    window.viewer.dims.set_point(0, 0)
    window.panel.marks_box.absent_button.click()
    settle(window)
    assert not window.masks().any()
    assert len(boxes.data) == 0
    window.panel.marks_box.absent_button.click()
    settle(window)
    assert not window.masks().any(), "nothing is known of the frame"
    undo(window)
    undo(window)
    assert np.array_equal(window.masks(), before)
    assert len(boxes.data) == 1
    # A box where it was absent says that it is there.
    window.panel.marks_box.absent_button.click()
    settle(window)
    window.draw_box()
    settle(window)
    assert np.array_equal(window.masks(), before)
    assert not window.panel.marks_box.absent_button.isChecked()


def test_not_here_can_be_taken_back_while_it_waits_for_a_model(
    window: Window, tmp_path: Path, checkpoint: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    window.open(loop())
    window.draw_box()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    before = window.masks().copy()
    window.panel.add_model_file(str(broken))
    window.viewer.dims.set_point(0, 2)
    absent = window.panel.marks_box.absent_button
    for on in (True, False, True, False):
        absent.click()
        settle(window)
        assert absent.isChecked() == on
        assert window.masks()[2].any() != on
    window.draw_box(frame=5)
    settle(window)
    (words,) = window.told
    assert "broken.safetensors" in words, "and told once"
    window.panel.add_model_file(str(checkpoint))
    settle(window)
    assert set(window.panel.controller.snapshot.prompts) == {(1, 0), (1, 5)}
    assert np.array_equal(np.delete(window.masks(), 5, axis=0), np.delete(before, 5, axis=0))
    window.panel.add_model_file(str(broken))
    settle(window)
    assert len(window.told) == 2, "chosen again"


# Marks that are collected ---------------------------------------------------------------------------------------------


def test_marks_are_collected_until_they_are_asked_for(window: Window, reference_model: Any) -> None:
    data = loop()
    window.open(data)
    box = window.panel.marks_box
    box.auto_box.click()
    assert not box.segment_button.isEnabled()
    window.draw_box()
    window.click("add", (0, 30, 40), (0, 40, 50))
    window.draw_box(frame=2)
    tool(window, "paint").click()
    paint(window, 10, 10, frame=5)
    settle(window)
    assert box.segment_button.isEnabled()
    assert window.panel.controller.snapshot.prompts == {}
    assert window.masks().any(axis=(1, 2)).nonzero()[0].tolist() == [5]
    painted = window.masks()[5] == 1
    box.segment_button.click()
    settle(window)
    assert not box.segment_button.isEnabled()
    reference = CineSession(Cine(data), reference_model)
    reference.set_prompt(1, 0, Prompt(box=BOX, points=((40.5, 30.5), (50.5, 40.5)), labels=(1, 1)))
    reference.add_box(1, 2, BOX)
    reference.add_mask(1, 5, painted)
    assert np.array_equal(window.masks(), reference.masks)
    # Tracking needs them, and takes them along.
    window.draw_box(frame=7)
    settle(window)
    assert (1, 7) not in window.panel.controller.snapshot.prompts
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert (1, 7) in window.panel.controller.snapshot.prompts
    # Off again: what is drawn is answered at once.
    window.draw_box(frame=6)
    box.auto_box.click()
    settle(window)
    assert (1, 6) in window.panel.controller.snapshot.prompts


def test_a_stroke_that_waits_with_a_click_stays_whatever_is_shown_meanwhile(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    window.panel.marks_box.auto_box.click()
    tool(window, "paint").click()
    paint(window, 10, 84, frame=1)
    window.click("add", (5, 30, 40))
    painted = window.masks()[1].copy()
    window.panel.controller.tracker.go_on()  # takes them along
    tool(window, "paint").click()
    paint(window, 60, 10, frame=4)
    window.click("remove", (6, 5, 5))
    with_stroke = window.masks()[4].copy()
    settle(window)
    assert window.masks()[2].any(), "tracked"
    assert np.array_equal(window.panel.controller.snapshot.prompts[1, 1].mask, painted == 1)
    assert (window.masks()[4][with_stroke > 0] == 1).all()
    window.panel.controller.show_everything()
    settle(window)
    assert (window.masks()[4][with_stroke > 0] == 1).all()
    paint(window, 60, 84, frame=4)
    both = window.masks()[4] == 1
    assert both.sum() == 2 * (with_stroke > 0).sum()
    window.panel.marks_box.segment_button.click()
    settle(window)
    mask = window.panel.controller.snapshot.prompts[1, 4].mask
    assert mask[both].all()
    assert np.array_equal(window.masks()[4] == 1, mask)


def test_marks_that_were_sent_together_are_undone_together(window: Window) -> None:
    window.open(loop())
    window.panel.marks_box.auto_box.click()
    window.draw_box()
    window.draw_box(frame=2)
    window.viewer.window._qt_viewer._key_map_handler.press_key(KEYS["segment"])
    settle(window)
    assert len(window.panel.controller.snapshot.prompts) == 2
    undo(window)
    assert window.panel.controller.snapshot.prompts == {}
    assert not window.panel.review_box.undo_button.isEnabled()


def test_marks_wait_for_a_model_with_their_own_loop(window: Window, tmp_path: Path, checkpoint: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    window.panel.add_model_file(str(broken))
    first = window.open(loop(), name="first")
    window.draw_box()
    tool(window, "paint").click()
    paint(window, 30, 40, frame=4)
    settle(window)
    assert window.told
    second = window.open(loop()[:, ::-1].copy(), name="second")
    window.panel.controller.set_image(second)
    settle(window)
    window.panel.add_model_file(str(checkpoint))
    settle(window)
    assert window.panel.controller.snapshot.prompts == {}, "they belong to the first loop"
    window.panel.controller.set_image(first)
    settle(window)
    window.panel.controller.marks.send_again()
    settle(window)
    assert set(window.panel.controller.snapshot.prompts) == {(1, 0), (1, 4)}


def test_marks_that_wait_are_there_whatever_comes_in_between(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    box = window.panel.marks_box
    box.auto_box.click()
    window.draw_box(frame=5)
    window.draw_box(corners=CORNERS + 5)  # and one that was sent is drawn anew
    tool(window, "add").click()  # for which there is no layer yet
    tool(window, "box").click()
    assert len(window.viewer.layers["UniUltra boxes"].data) == 2
    box.segment_button.click()
    settle(window)
    prompts = window.panel.controller.snapshot.prompts
    assert set(prompts) == {(1, 0), (1, 5)}
    assert np.allclose(prompts[1, 0].box, np.array(BOX) + 5)
    # A layer of drawings that is deleted takes along only what it held.
    window.draw_box(frame=6)
    window.viewer.layers.remove("UniUltra points")
    box.segment_button.click()
    settle(window)
    assert (1, 6) in window.panel.controller.snapshot.prompts


@pytest.mark.parametrize("auto", [True, False])
def test_a_mark_drawn_while_an_answer_is_on_its_way_stays(window: Window, auto: bool) -> None:
    window.open(loop())
    window.draw_box()
    window.click("add", (0, 30, 40))
    settle(window)
    if not auto:
        window.panel.marks_box.auto_box.click()
    with thread_held(window):
        window.panel.review_box.undo_button.click()
        window.draw_box(frame=3)
        window.qtbot.wait(150)
    settle(window)
    frames = [int(box[0, 0]) for box in window.viewer.layers["UniUltra boxes"].data]
    assert 3 in frames
    assert window.panel.marks_box.segment_button.isEnabled() != auto
    window.panel.controller.marks.segment_now()
    settle(window)
    assert (1, 3) in window.panel.controller.snapshot.prompts
    assert window.masks()[3].any()


def test_an_answer_does_not_end_the_drag_of_a_box(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    tool(window, "paint").click()
    paint(window, 30, 40)
    window.qtbot.wait(10)
    boxes = window.viewer.layers["UniUltra boxes"]
    with thread_held(window):
        window.qtbot.wait(100)  # the painting is on its way
        tool(window, "box").click()
        window.viewer.dims.set_point(0, 4)
        monkeypatch.setattr(QGuiApplication, "mouseButtons", lambda: Qt.MouseButton.LeftButton)
        mouse_press_callbacks(boxes, mouse_event("mouse_press", (4, 18, 20)))
        mouse_move_callbacks(boxes, mouse_event("mouse_move", (4, 30, 30)))
    until(window, lambda: window.panel.controller.snapshot.prompts[1, 0].mask is not None)
    window.qtbot.wait(100)
    assert len(boxes.data) == 2, "nothing is drawn or taken away meanwhile"
    mouse_move_callbacks(boxes, mouse_event("mouse_move", (4, 60, 62)))
    monkeypatch.undo()
    mouse_release_callbacks(boxes, mouse_event("mouse_release", (4, 60, 62)))
    settle(window)
    assert np.allclose(window.panel.controller.snapshot.prompts[1, 4].box, BOX, atol=0.5)
    window.qtbot.wait(100)
    assert len(boxes.data) == 1, "the painting took the place of the other box"


# Clicks on masks ------------------------------------------------------------------------------------------------------


def test_clicks_refine_what_was_painted(window: Window, reference_model: Any) -> None:
    data = loop()
    window.open(data)
    tool(window, "paint").click()
    with thread_held(window):
        paint(window, 30, 40, size=21)
        window.qtbot.wait(100)
        window.click("add", (0, 30, 60))  # before the painting is in the session
        window.qtbot.wait(100)
    settle(window)
    painted = window.panel.controller.snapshot.prompts[1, 0].mask
    assert painted.sum() > 200
    window.click("remove", (0, 5, 5))
    settle(window)
    reference = CineSession(Cine(data), reference_model)
    reference.add_mask(1, 0, painted)
    reference.add_points(1, 0, [(60.5, 30.5)], [1])
    expected = reference.add_points(1, 0, [(5.5, 5.5)], [0]).masks[1]
    assert np.array_equal(window.masks()[0] == 1, expected)
    points = window.viewer.layers["UniUltra points"]
    assert len(points.data) == 2
    # Without the clicks it is as it was painted.
    points.data = np.zeros((0, 3))
    settle(window)
    assert np.array_equal(window.masks()[0] == 1, painted)
    assert window.panel.controller.snapshot.prompts[1, 0].mask_only
    undo(window)
    assert np.array_equal(window.masks()[0] == 1, expected)
    assert len(points.data) == 2
    # A box begins anew.
    window.draw_box()
    settle(window)
    assert window.panel.controller.snapshot.prompts[1, 0].mask is None
    assert window.told == []


@pytest.mark.parametrize("order", ["paint, add", "add, paint", "paint, add, paint elsewhere"])
def test_painting_and_a_click_sent_together_both_count(window: Window, reference_model: Any, order: str) -> None:
    data = loop()
    window.open(data)
    window.panel.marks_box.auto_box.click()
    reference = CineSession(Cine(data), reference_model)
    tool(window, "paint").click()
    paint(window, 5, 5, frame=7)  # something else meanwhile
    for action in order.split(", "):
        if action == "add":
            window.click("add", (0, 30, 60))
        else:
            tool(window, "paint").click()
            paint(window, 30, 40, frame=0 if action == "paint" else 3, size=21)
    painted = window.masks()[0] == 1
    window.panel.marks_box.segment_button.click()
    settle(window)
    if order.startswith("paint"):
        reference.add_mask(1, 0, painted)
        expected = reference.add_points(1, 0, [(60.5, 30.5)], [1]).masks[1]
    else:
        expected = reference.add_points(1, 0, [(60.5, 30.5)], [1]).masks[1] | painted
    assert np.array_equal(window.masks()[0] == 1, expected)
    prompt = window.panel.controller.snapshot.prompts[1, 0]
    assert len(prompt.points) == len(window.viewer.layers["UniUltra points"].data) == order.startswith("paint")
    assert window.told == []


def test_a_click_on_an_exact_outline_is_said_to_change_nothing(window: Window) -> None:
    window.open(loop())
    window.panel.marks_box.exact_box.click()
    tool(window, "box").click()
    boxes = window.viewer.layers["UniUltra boxes"]
    boxes.add(ellipse(0), shape_type="ellipse")
    settle(window)
    before = window.masks().copy()
    window.click("add", (0, 5, 5))
    settle(window)
    assert np.array_equal(window.masks(), before)
    (words,) = window.told
    assert "Clicks on frame 0 change nothing" in words
    assert "Drawn outlines are exact" in words
    # Without the outline they count, and what it asked for is gone.
    boxes.data = []
    settle(window)
    prompt = window.panel.controller.snapshot.prompts[1, 0]
    assert prompt.mask is None
    assert prompt.points == ((5.5, 5.5),)


# Outlines -------------------------------------------------------------------------------------------------------------


def ellipse(frame: int) -> np.ndarray:
    return np.insert(CORNERS.astype(float), 0, frame, axis=1)


@pytest.mark.parametrize("exact", [True, False])
def test_an_outline_comes_back_as_it_was_drawn(window: Window, exact: bool) -> None:
    window.open(loop())
    if exact:
        window.panel.marks_box.exact_box.click()
    tool(window, "box").click()
    boxes = window.viewer.layers["UniUltra boxes"]
    boxes.add(ellipse(1), shape_type="ellipse")
    settle(window)
    before = window.masks().copy()
    assert (window.panel.controller.snapshot.prompts[1, 1].mask is not None) == exact
    undo(window)
    assert len(boxes.data) == 0
    window.panel.review_box.redo_button.click()
    settle(window)
    assert boxes.shape_type == ["ellipse"]
    assert np.allclose(boxes.data[0], ellipse(1))
    assert np.array_equal(window.masks(), before)
    # Another drawing for it, taken back, too.
    boxes.add(ellipse(1) + np.array([0, 5, 5]), shape_type="polygon")
    settle(window)
    assert boxes.shape_type == ["polygon"]
    undo(window)
    assert boxes.shape_type == ["ellipse"]
    assert np.array_equal(window.masks(), before)
    assert window.told == []


def test_whether_outlines_are_exact_concerns_this_frame_and_what_comes(window: Window) -> None:
    window.open(loop())
    window.panel.marks_box.exact_box.click()
    tool(window, "box").click()
    boxes = window.viewer.layers["UniUltra boxes"]
    for frame in (1, 2):
        boxes.add(ellipse(frame), shape_type="ellipse")
    settle(window)
    window.viewer.dims.set_point(0, 2)
    window.panel.marks_box.exact_box.click()
    settle(window)
    prompts = window.panel.controller.snapshot.prompts
    assert prompts[1, 1].mask is not None
    assert prompts[1, 2].mask is None
    assert prompts[1, 2].box is not None


# Other plugins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layer"), [("box", "boxes"), ("add", "points"), ("erase", "masks")])
def test_a_tool_brings_its_hidden_layer_back(window: Window, name: str, layer: str) -> None:
    window.open(loop())
    window.draw_box()
    window.click("add", (0, 30, 30))
    settle(window)
    own = window.viewer.layers[f"UniUltra {layer}"]
    own.visible = False
    window.panel.controller.marks.put_away()
    tool(window, name).click()
    assert own.visible
    assert pressed(window) == [name]


def test_side_by_side_has_no_tools_and_no_loops_of_its_own(window: Window) -> None:
    window.open(loop())
    for name in ("one", "two"):
        window.viewer.add_labels(np.ones((8, HEIGHT, WIDTH), np.uint8), name=name)
    _, compare = window.viewer.window.add_plugin_dock_widget("napari-uniultra", "Compare")
    compare.sources[1].choose(("layer", window.viewer.layers["one"]))
    compare.run()
    until(window, lambda: compare.controller.comparison is not None)
    box = window.panel.image_box
    compare.grid_box.setChecked(True)
    assert "A: loop" in window.viewer.layers
    assert [box.itemText(row) for row in range(box.count())] == ["loop"]
    tool(window, "box").click()
    assert pressed(window) == []
    assert "side by side" in window.told[-1]
    compare.grid_box.setChecked(False)
    tool(window, "box").click()
    assert pressed(window) == ["box"]
    compare.controller.close()


def test_drawing_shows_an_object_that_was_hidden_with_the_tool_in_hand(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    objects = window.panel.controller.objects
    objects.toggle_hidden()
    settle(window)
    assert objects.all[0].hidden
    window.draw_box(frame=2)
    settle(window)
    assert not objects.all[0].hidden
    assert window.masks()[2].any()


def with_a_hole(data: np.ndarray) -> np.ndarray:
    changed = np.array(data)
    changed[0, 30:40, 30:50] = 0
    changed[4, 10:14, 10:14] = 1
    return changed


@pytest.mark.parametrize(
    "kind",
    [lambda data: data, lambda data: data.astype(np.int64), lambda data: data.astype(np.uint8), dask.array.from_array],
    ids=["as ours", "int64", "uint8", "dask"],
)
def test_data_from_another_plugin_count_as_painted(window: Window, kind: Callable[[np.ndarray], Any]) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    layer = masks_layer(window)
    wanted = with_a_hole(window.masks())
    assert not np.array_equal(wanted, window.masks())
    layer.data = kind(wanted)
    settle(window)
    assert np.array_equal(window.masks(), wanted)
    assert set(window.panel.controller.snapshot.prompts) == {(1, 0), (1, 4)}
    assert window.panel.controller.snapshot.prompts[1, 0].mask is not None
    # And the work goes on.
    window.draw_box(frame=6)
    settle(window)
    assert window.masks()[6].any()
    undo(window)
    undo(window)
    assert not window.masks()[4].any()
    assert window.told == []


def test_data_changed_in_place_and_handed_over_again(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    layer = masks_layer(window)
    window.viewer.dims.set_point(0, 0)
    wanted = with_a_hole(window.masks())[0]
    layer.data[0] = wanted
    layer.data = layer.data
    settle(window)
    assert np.array_equal(window.panel.controller.snapshot.prompts[1, 0].mask, wanted == 1)


def test_data_of_another_size_are_left_to_whoever_made_them(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    before, layer = window.masks().copy(), masks_layer(window)
    layer.data = np.zeros((4, 10, 12), np.uint8)
    settle(window)
    assert len(window.told) == 1
    assert "new layer" in window.told[0]
    ours = window.panel.controller.layers[-1]
    assert ours != layer
    assert np.array_equal(ours.data, before)
    assert layer.data.shape == (4, 10, 12)


def test_data_changed_in_place_on_other_frames_count_too(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    window.viewer.dims.set_point(0, 0)
    layer = masks_layer(window)
    wanted = with_a_hole(window.masks())
    layer.data[4] = wanted[4]
    layer.data = layer.data
    settle(window)
    prompts = window.panel.controller.snapshot.prompts
    assert set(prompts) == {(1, 0), (1, 4)}
    assert prompts[1, 0].mask is None
    assert np.array_equal(prompts[1, 4].mask, wanted[4] == 1)


@pytest.mark.parametrize("view", ["rolled", "3-D", "fill in 3-D", "elsewhere"])
def test_painting_on_many_frames_at_once_reaches_the_session(window: Window, view: str, tmp_path: Path) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    window.panel.tracking_box.both_button.click()
    settle(window)
    before = window.masks().copy()
    tool(window, "paint").click()
    layer = masks_layer(window)
    layer.preserve_labels = False
    with layer.block_history():  # as napari does while the mouse is pressed
        if view == "rolled":
            window.viewer.dims.order = (1, 0, 2)
            layer.brush_size = 3
            layer.paint((3, 10, 12), 1)
            layer.paint((5, 10, 14), 1)
        elif view == "3-D":
            window.viewer.dims.ndisplay = 3
            layer.n_edit_dimensions, layer.brush_size = 3, 5
            layer.paint((3, 10, 12), 0)
            layer.paint((4, 30, 40), 1)
        elif view == "fill in 3-D":
            layer.n_edit_dimensions = 3
            layer.fill((2, 1, 1), 1 - int(layer.data[2, 1, 1]))
        else:
            layer.data_setitem((np.array([6, 6, 7]), np.array([1, 2, 3]), np.array([4, 5, 6])), 2)
    painted = layer.data.copy()
    changed = {frame for frame in range(len(before)) if not np.array_equal(painted[frame], before[frame])}
    assert len(changed) > 1
    settle(window)
    assert np.array_equal(window.masks(), painted)
    prompts = window.panel.controller.snapshot.prompts
    assert {frame for (_, frame), prompt in prompts.items() if prompt.mask is not None} == changed
    window.panel.controller.review.export(str(tmp_path / "masks.tif"))
    settle(window)
    assert np.array_equal(tifffile.imread(tmp_path / "masks.tif"), painted)
    undo(window)
    assert np.array_equal(window.masks(), before)
    assert window.told == []


@pytest.mark.parametrize("why", ["accepted", "locked"])
def test_a_stroke_on_many_frames_that_may_not_change_is_refused_once(window: Window, why: str) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    window.panel.tracking_box.both_button.click()
    settle(window)
    control = window.panel.controller
    if why == "locked":
        control.objects.lock(1, True)
    else:
        for frame in (1, 2, 3, 5):
            window.viewer.dims.set_point(0, frame)
            control.review.accept_frame()
    settle(window)
    before = window.masks().copy()
    tool(window, "erase").click()
    layer = masks_layer(window)
    layer.n_edit_dimensions, layer.brush_size = 3, 200
    layer.paint((3, 10, 12), 0)
    settle(window)
    (words,) = window.told
    if why == "locked":
        assert words == "Object 1 is locked. Unlock it to change it."
        assert np.array_equal(window.masks(), before)
    else:
        assert words.startswith("Frames 1 to 3 and 5 were accepted for this object.")
        changed = (window.masks() != before).any(axis=(1, 2)).nonzero()[0].tolist()
        assert changed == [0, 4, 6, 7]


def test_frames_before_a_stroke_on_a_still_and_from_notes_that_nobody_knows() -> None:
    after = np.array([[0, 2], [1, 2]])
    rows, columns = np.array([0, 1]), np.array([1, 1])
    found = frames_before([((rows, columns), np.array([0, 1]), 2), ((rows, columns), np.array([2, 2]), 2)], after)
    assert {frame: before.tolist() for frame, before in found.items()} == {0: [[0, 0], [1, 1]]}
    assert frames_before(["painted"], np.zeros((2, 2, 2), int)) == {0: None, 1: None}
    assert frames_before([], after) == {}


@pytest.mark.parametrize("view", ["frame", "rolled"])
def test_a_mask_that_comes_during_a_stroke_and_the_stroke_both_count(
    window: Window, reference_model: Any, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    data = loop()
    window.open(data)
    window.draw_box()
    settle(window)
    window.viewer.dims.set_point(0, 3)
    tool(window, "paint").click()
    layer = masks_layer(window)
    layer.brush_size = 4
    if view == "rolled":
        window.viewer.dims.order = (1, 0, 2)
        window.viewer.dims.set_point(1, 5)
    with monkeypatch.context() as held:
        held.setattr(QGuiApplication, "mouseButtons", lambda: Qt.MouseButton.LeftButton)
        with layer.block_history():  # as napari does while the brush moves
            layer.paint((3, 5, 6), 1)
            stroke = layer.data.copy()
            window.panel.controller.tracker.track("forward")
            until(window, lambda: not window.panel.controller.tracker.running)
            assert np.array_equal(layer.data[2], stroke[2]) == (view == "rolled")
            assert np.array_equal(layer.data[3], stroke[3]), "nothing is written under the brush"
    settle(window)
    reference = CineSession(Cine(data), reference_model)
    reference.add_box(1, 0, BOX)
    steps = [step.masks[1] for step in reference.propagate()]
    prompts = window.panel.controller.snapshot.prompts
    for frame in range(1, len(data)):
        expected = steps[frame] | (stroke[frame] == 1)
        assert np.array_equal(window.masks()[frame] == 1, expected)
        assert ((1, frame) in prompts) == bool(stroke[frame].any())
