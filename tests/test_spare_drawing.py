"""Marks are drawn where they are, and cost nothing elsewhere, in a real window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from panel_window import CORNERS, Window, loop, settle

pytestmark = pytest.mark.gui


def is_drawn(window: Window, layer: Any) -> bool:
    return bool(window.viewer.window._qt_viewer.canvas.layer_to_visual[layer].node.visible)


def test_boxes_are_drawn_on_their_own_frames_only(window: Window) -> None:
    window.open(loop())
    window.viewer.dims.set_point(0, 0)
    boxes = window.draw_box(0)
    settle(window)
    assert is_drawn(window, boxes)
    window.viewer.dims.set_point(0, 3)
    assert not is_drawn(window, boxes)
    assert boxes.visible, "the layer itself is as visible as it was"
    boxes.add(np.insert(np.asarray(CORNERS, float), 0, 3, axis=1), shape_type="rectangle")
    assert is_drawn(window, boxes), "what is being drawn shows at once"
    window.viewer.dims.set_point(0, 0)
    assert is_drawn(window, boxes)


def test_the_eye_of_the_layer_still_decides(window: Window) -> None:
    window.open(loop())
    window.viewer.dims.set_point(0, 0)
    boxes = window.draw_box(0)
    settle(window)
    boxes.visible = False
    assert not is_drawn(window, boxes)
    window.viewer.dims.set_point(0, 2)
    boxes.visible = True
    assert not is_drawn(window, boxes)
    window.viewer.dims.set_point(0, 0)
    assert is_drawn(window, boxes)


def test_points_are_spared_alike(window: Window) -> None:
    window.open(loop())
    points = window.click("add", (2, 30, 30))
    window.viewer.dims.set_point(0, 2)
    assert is_drawn(window, points)
    window.viewer.dims.set_point(0, 5)
    assert not is_drawn(window, points)


def test_a_box_is_seen_in_the_picture(make_napari_viewer: Callable[..., Any], qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    _, panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
    window = Window(viewer=viewer, panel=panel, told=[], qtbot=qtbot)
    window.open(np.zeros((4, 60, 80), np.uint8))
    panel.marks_box.tools["box"].click()
    boxes, red = viewer.layers["UniUltra boxes"], []
    for frame in (1, 2):
        viewer.dims.set_point(0, frame)
        boxes.add(np.insert(np.asarray(CORNERS, float), 0, frame, axis=1), shape_type="rectangle")
        boxes.selected_data = set()
    for frame in range(4):
        viewer.dims.set_point(0, frame)
        red.append(int((viewer.screenshot(canvas_only=True, flash=False)[..., :3].max(axis=-1) > 120).sum()))
    settle(window)
    panel.thread_.stop()
    assert red[1] > 50
    assert red[1] == red[2]
    assert red[0] == red[3] < red[1] / 4
