"""Objects in the real panel: what is added, named, coloured, hidden, locked and deleted, and what undo brings back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panel_window import CORNERS, Window, loop, settle
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog

from napari_uniultra.core.palette import colour_of
from napari_uniultra.plugin.layers import colours_in, names_of_objects
from napari_uniultra.plugin.presets import presets_file

pytestmark = pytest.mark.gui

PINK = (250, 10, 200)


def masks_layer(window: Window) -> Any:
    return window.viewer.layers["UniUltra masks"]


def item(window: Window, row: int) -> Any:
    return window.panel.object_list.list.topLevelItem(row)


def choose(window: Window, row: int) -> None:
    window.panel.object_list.list.setCurrentItem(item(window, row))


def click_icon(window: Window, row: int, column: int) -> None:
    """Click on the eye (1) or the padlock (2) of a row."""
    tree = window.panel.object_list.list
    place = tree.visualItemRect(item(window, row)).center()
    place.setX(tree.columnViewportPosition(column) + tree.columnWidth(column) // 2)
    window.qtbot.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=place)


def recolour(window: Window, monkeypatch: pytest.MonkeyPatch, colour: tuple[int, int, int]) -> None:
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor(*colour))
    window.panel.object_list.colour_button.click()


def picture(window: Window) -> tuple[Any, ...]:
    """All that the user sees of objects."""
    layers = window.viewer.layers
    boxes = layers["UniUltra boxes"].data if "UniUltra boxes" in layers else []
    masks = window.masks().copy() if "UniUltra masks" in layers else np.zeros(0)
    return window.panel.controller.objects.all, [np.array(box) for box in boxes], masks


def same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    boxes = len(first[1]) == len(second[1]) and all(map(np.allclose, first[1], second[1]))
    masks = np.array_equal(first[2], second[2]) or not (first[2].any() or second[2].any())
    return first[0] == second[0] and boxes and masks


def test_every_change_of_an_object_can_be_undone_and_made_again(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.open(loop())
    objects = window.panel.object_list
    pictures = [picture(window)]
    actions: tuple[Callable[[], Any], ...] = (
        objects.add_button.click,  # before anything is drawn
        lambda: item(window, 1).setText(0, "lumen"),
        lambda: recolour(window, monkeypatch, PINK),
        lambda: window.draw_box(),
        lambda: click_icon(window, 1, 2),
        lambda: click_icon(window, 1, 2),
        objects.remove_button.click,
        objects.remove_button.click,  # the last one
    )
    for act in actions:
        act()
        settle(window)
        pictures.append(picture(window))
    assert [len(seen[0]) for seen in pictures] == [1, 2, 2, 2, 2, 2, 2, 1, 1]
    assert pictures[4][2].any()
    assert not pictures[7][2].any()
    for expected in reversed(pictures[:-1]):
        window.panel.review_box.undo_button.click()
        settle(window)
        assert same(picture(window), expected)
    assert not window.panel.review_box.undo_button.isEnabled()
    for expected in pictures[1:]:
        window.panel.review_box.redo_button.click()
        settle(window)
        assert same(picture(window), expected)
    assert window.told == []


def test_a_named_structure_is_the_first_object_as_long_as_that_is_untouched(window: Window) -> None:
    window.open(loop())
    objects = window.panel.controller.objects
    objects.add("Thyroid nodule", PINK)
    assert objects.names == {1: "Thyroid nodule"}
    objects.add("Thyroid lobe")
    settle(window)
    assert objects.names == {1: "Thyroid nodule", 2: "Thyroid lobe"}
    assert objects.current == 2
    assert [own.colour for own in objects.all] == [PINK, colour_of(2)]


def test_a_structure_drawn_already_keeps_its_name(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    objects = window.panel.controller.objects
    objects.add("Thyroid nodule", colour_of(1))  # at once: the box has not been answered
    settle(window)
    assert objects.names == {1: "Object 1", 2: "Thyroid nodule"}


def test_the_menu_has_structures_by_organ_and_takes_any_name(window: Window, isolated_home: Path) -> None:
    window.open(loop())
    panel, objects = window.panel, window.panel.controller.objects
    panel.object_list.menu.aboutToShow.emit()
    organs = {action.text(): action.menu() for action in panel.object_list.menu.actions() if action.menu() is not None}
    nodule = next(action for action in organs["Thyroid"].actions() if action.text() == "Thyroid nodule")
    nodule.trigger()
    field = panel.object_list.menu.actions()[0].defaultWidget()
    field.setText("  cyst  ")
    window.qtbot.keyClick(field, Qt.Key.Key_Return)
    settle(window)
    assert objects.names == {1: "Thyroid nodule", 2: "cyst"}
    # The user's own list, and one that is damaged.
    presets_file().parent.mkdir(exist_ok=True)
    presets_file().write_text("Knee: [{name: Meniscus}]", encoding="utf-8")
    panel.object_list.menu.aboutToShow.emit()
    assert [action.text() for action in panel.object_list.menu.actions() if action.menu() is not None] == ["Knee"]
    presets_file().write_text("Knee: [", encoding="utf-8")
    panel.object_list.menu.aboutToShow.emit()
    assert "Thyroid" in [action.text() for action in panel.object_list.menu.actions()]
    assert len(window.told) == 1
    assert "objects.yaml" in window.told[0]


def test_a_colour_is_everywhere(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    window.open(loop())
    boxes = window.draw_box()
    points = window.click("add", (0, 30, 40))
    settle(window)
    recolour(window, monkeypatch, PINK)
    settle(window)
    expected = np.array([*PINK, 255]) / 255
    assert np.allclose(boxes.edge_color[0], expected)
    assert np.allclose(points.border_color[0], expected)
    assert np.allclose(masks_layer(window).get_color(1), expected, atol=1e-3)
    assert colours_in(masks_layer(window).metadata) == {1: PINK}
    swatch = item(window, 0).icon(0).pixmap(16, 16).toImage()
    assert swatch.pixelColor(swatch.width() // 2, swatch.height() // 2) == QColor(*PINK)
    window.draw_box(frame=3)
    assert np.allclose(boxes.edge_color[-1], expected)


def test_hiding_takes_an_object_out_of_the_view_alone(window: Window) -> None:
    window.open(loop())
    boxes = window.draw_box()
    points = window.click("add", (0, 30, 40))
    window.panel.object_list.add_button.click()
    window.draw_box(corners=CORNERS // 2)
    window.click("add", (0, 20, 20))
    settle(window)
    before = window.masks().copy()
    click_icon(window, 1, 1)
    layer = masks_layer(window)
    assert layer.get_color(2)[3] == 0
    assert layer.get_color(1)[3] == 1
    assert boxes.edge_color[:, 3].tolist() == [1, 0]
    assert points.shown.tolist() == [True, False]
    assert np.array_equal(window.masks(), before)
    settle(window)
    window.panel.review_box.undo_button.click()
    settle(window)
    assert layer.get_color(2)[3] == 1
    assert points.shown.tolist() == [True, True]
    window.panel.review_box.redo_button.click()
    settle(window)
    assert layer.get_color(2)[3] == 0
    assert np.array_equal(window.masks(), before)
    # What is tracked meanwhile is hidden, too; and who draws for it wants to see it.
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert layer.get_color(2)[3] == 0
    assert (window.masks()[4] == 2).any()
    window.panel.marks_box.tools["add"].click()
    window.panel.marks_box.tools["remove"].click()
    assert layer.get_color(2)[3] == 1
    assert boxes.edge_color[:, 3].tolist() == [1, 1]
    assert points.shown.tolist() == [True, True]


def test_a_locked_object_is_left_alone_and_the_user_told_why(window: Window) -> None:
    window.open(loop())
    boxes = window.draw_box()
    window.panel.object_list.add_button.click()
    window.draw_box(corners=CORNERS // 2)
    settle(window)
    click_icon(window, 1, 2)
    settle(window)
    before = window.masks().copy()
    # Neither a box,
    boxes.data = [boxes.data[0], np.insert(CORNERS // 2 + 5.0, 0, 0, axis=1)]
    settle(window)
    assert "Object 2 is locked" in window.told[-1]
    assert sorted(box[0, 1] for box in boxes.data) == [CORNERS[0, 0] // 2, CORNERS[0, 0]]
    # nor painting,
    layer = masks_layer(window)
    window.panel.marks_box.tools["paint"].click()
    window.viewer.dims.set_point(0, 0)
    layer.brush_size = 1
    layer.paint((0, *np.argwhere(before[0] == 0)[0]), 2)
    settle(window)
    assert len(window.told) == 2
    assert np.array_equal(window.masks(), before)
    # nor deleting,
    window.panel.object_list.remove_button.click()
    assert "Unlock it to delete it" in window.told[-1]
    # nor tracking,
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert not (window.masks()[1:] == 2).any()
    assert (window.masks()[4] == 1).any()
    # until it is unlocked.
    click_icon(window, 1, 2)
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert (window.masks()[4] == 2).any()
    assert len(window.told) == 3


def test_deleting_an_object_deletes_all_of_it_and_undo_brings_it_back(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.open(loop())
    window.draw_box()
    window.click("add", (0, 30, 40))
    item(window, 0).setText(0, "lumen")
    recolour(window, monkeypatch, PINK)
    window.panel.tracking_box.forward_button.click()
    settle(window)
    before, points = picture(window), window.viewer.layers["UniUltra points"]
    window.panel.object_list.remove_button.click()
    assert window.panel.controller.objects.names == {1: "Object 1"}
    settle(window)
    assert not window.masks().any()
    assert len(points.data) == 0
    # A new one begins anew, with none of the old one's.
    window.draw_box(frame=3)
    settle(window)
    assert window.masks().any(axis=(1, 2)).tolist() == [frame == 3 for frame in range(len(loop()))]
    for _ in range(2):
        window.panel.review_box.undo_button.click()
        settle(window)
    assert same(picture(window), before)
    assert np.allclose(points.data, [[0, 30, 40]])


def test_marks_that_wait_are_deleted_with_their_object(window: Window) -> None:
    window.open(loop())
    window.panel.marks_box.auto_box.click()
    boxes = window.draw_box()
    window.panel.object_list.add_button.click()
    window.draw_box(frame=2)
    window.panel.object_list.remove_button.click()
    settle(window)
    assert boxes.features["object"].tolist() == [1]
    assert set(window.panel.controller.snapshot.prompts) == {(1, 0)}


def test_more_objects_than_the_palette_has_colours(window: Window) -> None:
    window.open(loop())
    for _ in range(9):
        window.panel.object_list.add_button.click()
    objects = window.panel.controller.objects
    assert objects.current == 10
    corners = CORNERS // 2
    window.draw_box(corners=corners)
    window.draw_box(frame=1, corners=corners)
    settle(window)
    layer = masks_layer(window)
    assert set(np.unique(layer.data)) == {0, 10}
    own = next(own for own in objects.all if own.object_id == 10)
    assert np.allclose(layer.get_color(10)[:3], np.array(own.colour) / 255, atol=1e-3)
    assert names_of_objects(layer.features)[10] == "Object 10"
    assert len({own.colour for own in objects.all[:7]}) == 7


def test_objects_added_in_a_hurry_and_undone(window: Window) -> None:
    window.open(loop())
    objects = window.panel.controller.objects
    for _ in range(3):
        window.panel.object_list.add_button.click()
    window.panel.controller.review.undo()
    window.panel.object_list.add_button.click()
    assert objects.current == 5
    settle(window)
    assert sorted(objects.names) == [1, 2, 3, 5]
    assert objects.current == 5


def test_objects_need_no_model_and_are_kept_without_a_mark(window: Window, tmp_path: Path) -> None:
    data = loop()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    window.panel.add_model_file(str(broken))
    window.open(data)
    window.panel.controller.objects.add("lumen", PINK)
    window.panel.controller.objects.add("wall")
    window.panel.controller.objects.toggle_locked()
    settle(window)
    assert window.told == []
    before = window.panel.controller.objects.all
    window.viewer.layers.clear()
    settle(window)
    window.open(data)
    settle(window)
    window.panel.controller.review.restore()
    settle(window)
    assert window.panel.controller.objects.all == before
    assert [own.locked for own in before] == [False, True]


def test_names_and_colours_come_back_after_another_plugin_changed_the_layer(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    item(window, 0).setText(0, "lumen")
    settle(window)
    layer = masks_layer(window)
    layer.features = {"index": [1], "volume": [7.5]}
    layer.colormap = {None: "white", 1: "yellow"}
    window.panel.object_list.add_button.click()
    window.draw_box(frame=2, corners=CORNERS // 2)
    settle(window)
    assert names_of_objects(layer.features) == {1: "lumen", 2: "Object 2"}
    assert layer.features.set_index("index").loc[1, "volume"] == 7.5
    assert np.allclose(layer.get_color(2)[:3], np.array(colour_of(2)) / 255, atol=1e-3)
    assert np.allclose(layer.get_color(1)[:3], np.array(colour_of(1)) / 255, atol=1e-3)
    assert window.told == []
