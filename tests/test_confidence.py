"""Confidence: the numbers, what the strip shows of them in a real window, and the way to frames that need a look."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from panel_window import CORNERS, Window, loop, settle, until
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QColor, QMouseEvent
from qtpy.QtTest import QTest

from napari_uniultra.core.palette import colour_of
from napari_uniultra.core.types import Prompt
from napari_uniultra.plugin.confidence import WEAK_IOU, Confidence, Score
from napari_uniultra.widgets.confidence_strip import (
    FILLED,
    NOT_SEEN,
    ROW_PX,
    WEAK_EDGE,
    ConfidenceStrip,
    heat_colours,
)

GOOD, WEAK, UNSEEN = Score(0.95, 5.0), Score(WEAK_IOU - 0.1, 5.0), Score(0.95, -2.0)
FILLED_IN = Score(float("nan"), 10.0)


# The numbers ----------------------------------------------------------------------------------------------------------


def test_scores_are_kept_by_frame_and_object_and_forgotten() -> None:
    confidence = Confidence(6)
    assert confidence.update({1: {1: GOOD, 2: WEAK}, 4: {1: UNSEEN}}) == {1, 4}
    assert confidence.at(2, 1).predicted_iou == pytest.approx(WEAK.predicted_iou)
    assert confidence.at(1, 2) is None
    assert confidence.at(7, 1) is None
    assert np.isnan(confidence.predicted_iou(1)).tolist() == [True, False, True, True, False, True]
    assert confidence.object_score(1)[4] == -2
    assert confidence.known_frames() == {1, 4}
    assert confidence.known_frames([1, 2]) == {1}
    # An object that is gone from a frame, and frames that are gone from the session.
    assert confidence.update({1: {1: GOOD}}) == {1}
    assert confidence.at(2, 1) is None
    assert confidence.update({4: {1: GOOD}}, everything=True) == {1, 4}
    assert confidence.known_frames() == {4}


def test_weak_frames_come_one_after_the_other_around_the_loop() -> None:
    confidence = Confidence(10)
    assert confidence.next_weak(0, 1) is None
    confidence.update({frame: {1: GOOD, 2: GOOD} for frame in range(9)})
    assert confidence.next_weak(0, 1) is None
    confidence.update({2: {1: WEAK}, 5: {1: GOOD, 2: UNSEEN}, 8: {1: Score(WEAK_IOU, 0.0)}})
    assert confidence.weak_frames() == [2, 5]
    assert [confidence.next_weak(frame, 1) for frame in (0, 2, 4, 5, 9)] == [2, 5, 5, 2, 2]
    assert [confidence.next_weak(frame, -1) for frame in (0, 2, 4, 5, 9)] == [5, 5, 2, 2, 5]
    assert confidence.weak_objects(5) == [2]
    assert confidence.next_weak(0, 1, settled={(1, 2)}) == 5
    assert confidence.next_weak(5, 1, settled={(1, 2)}) == 5
    assert confidence.next_weak(0, 1, settled={(1, 2), (2, 5)}) is None


def test_scores_in_words() -> None:
    assert Score(0.914, 6.24).words == "Predicted IoU 0.91 (good), in the picture (object score 6.2)"
    assert "(fair)" in Score(0.75, 1).words
    assert "(weak)" in WEAK.words
    assert "not seen" in UNSEEN.words
    assert FILLED_IN.words == "Filled in, no predicted IoU"


def test_what_was_filled_in_is_known_and_needs_no_look() -> None:
    confidence = Confidence(4)
    confidence.update({1: {1: Score(None, 10.0)}, 2: {1: GOOD}})
    assert confidence.known_frames() == confidence.known_frames([1]) == {1, 2}
    assert confidence.at(1, 1).words == FILLED_IN.words
    assert confidence.weak_frames() == []


# The strip ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def strip(qtbot: Any) -> ConfidenceStrip:
    made = ConfidenceStrip()
    qtbot.addWidget(made)
    made.resize(500, 60)
    made.show()
    return made


def colour_at(strip: ConfidenceStrip, row: int, frame: int, edge: bool = False) -> tuple[int, ...]:
    column, plot = np.searchsorted(strip._starts, frame, side="right") - 0.5, strip._plot()
    x = int(plot.left() + column * plot.width() / (len(strip._starts) - 1))
    y = strip._top(row) + (-2 if edge else ROW_PX // 2)
    return QColor(strip.grab().toImage().pixel(x, y)).getRgb()[:3]


ROWS = {1: ("lumen", colour_of(1)), 2: ("wall", colour_of(2))}


def test_each_cell_has_the_colour_of_its_score(strip: ConfidenceStrip) -> None:
    confidence = Confidence(20)
    confidence.update({0: {1: GOOD, 2: WEAK}, 1: {1: UNSEEN}, 2: {1: FILLED_IN}})
    strip.show_loop(confidence, ROWS)
    strip.show_frame(15)
    good, weak = heat_colours(np.array([0.95, WEAK.predicted_iou]), np.ones(2)).tolist()
    assert colour_at(strip, 0, 0) == tuple(good)
    assert colour_at(strip, 1, 0) == tuple(weak)
    assert colour_at(strip, 0, 1) == NOT_SEEN
    assert colour_at(strip, 0, 2) == FILLED
    empty = colour_at(strip, 1, 1)
    assert empty not in (tuple(good), tuple(weak), NOT_SEEN, FILLED)
    # What needs a look has an edge, and nothing else has.
    assert colour_at(strip, 1, 0, edge=True) == colour_at(strip, 0, 1, edge=True) == WEAK_EDGE
    assert colour_at(strip, 0, 0, edge=True) != WEAK_EDGE
    # Later scores show where they belong, and go again.
    confidence.update({1: {2: GOOD}})
    strip.show_scores({1})
    assert colour_at(strip, 1, 1) == tuple(good)
    assert colour_at(strip, 0, 1) == empty
    strip.show_scores(confidence.update({}, everything=True))
    assert colour_at(strip, 0, 0) == empty


def test_a_single_weak_frame_of_thousands_is_seen_and_drawing_stays_fast(strip: ConfidenceStrip) -> None:
    confidence = Confidence(6000)
    confidence.update({frame: {1: GOOD, 2: GOOD} for frame in range(6000)})
    confidence.update({4321: {1: GOOD, 2: WEAK}})
    strip.show_loop(confidence, ROWS)
    weak = tuple(heat_colours(np.array([WEAK.predicted_iou]), np.ones(1))[0].tolist())
    assert colour_at(strip, 1, 4321) == weak
    assert strip.frame_at(strip._edge(4321)) == pytest.approx(4321, abs=6000 / strip._plot().width() + 1)
    began = time.process_time()
    for frame in range(200):
        strip.show_scores({frame})
        strip.repaint()
    assert (time.process_time() - began) / 200 < 0.01  # a frame; a few tenths of a millisecond are usual


def test_colours_differ_for_people_who_do_not_tell_red_from_green() -> None:
    # Vienot, Brettel and Mollon (1999): what a deuteranope sees, in linear RGB.
    deuteranope = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    scores = np.array([0.3, WEAK_IOU - 0.01, WEAK_IOU, 0.95, 0.95, np.inf])
    seen = (heat_colours(scores, np.array([1, 1, 1, 1, -1, 1])) / 255.0) ** 2.2 @ deuteranope.T
    seen = np.clip(seen, 0, 1) ** (1 / 2.2)
    for one in range(len(seen)):
        for other in range(one):
            assert np.abs(seen[one] - seen[other]).max() > 0.15


def test_words_and_clicks_on_the_strip(strip: ConfidenceStrip, qtbot: Any) -> None:
    confidence = Confidence(20)
    confidence.update({3: {1: GOOD}})
    strip.show_loop(confidence, ROWS)
    strip.show_marks(prompted={(1, 3)}, accepted={(1, 3), (1, 4), (2, 9)})
    at = QPoint(strip._edge(3) + 3, strip._top(0) + 4)
    assert strip.words_at(at).splitlines() == ["Frame 3, lumen", GOOD.words, "Marked by you", "Accepted"]
    assert "Not segmented yet" in strip.words_at(QPoint(strip._edge(9) + 3, strip._top(1) + 4))
    assert strip.words_at(QPoint(2, 8)) == ""
    gone: list[int] = []
    strip.frame_chosen.connect(gone.append)
    QTest.mouseClick(strip, Qt.MouseButton.LeftButton, pos=at)
    place = QPointF(strip._edge(12) + 3.0, 9.0)
    held = Qt.MouseButton.LeftButton
    move = QMouseEvent(QMouseEvent.Type.MouseMove, place, place, held, held, Qt.KeyboardModifier.NoModifier)
    strip.mouseMoveEvent(move)
    assert gone == [3, 12]


# In the window --------------------------------------------------------------------------------------------------------


def scores_of(window: Window) -> dict[tuple[int, int], float]:
    confidence = window.panel.controller.work.confidence
    ious = {o: confidence.predicted_iou(o) for o in window.panel.controller.snapshot.names}
    return {(o, int(f)): float(iou[f]) for o, iou in ious.items() for f in np.flatnonzero(~np.isnan(iou))}


@pytest.mark.gui
def test_the_strip_follows_the_session(window: Window) -> None:
    control, strip = window.panel.controller, window.panel.confidence.strip
    window.open(loop())
    window.draw_box(frame=2)
    settle(window)
    assert scores_of(window).keys() == {(1, 2)}
    prompted = scores_of(window)
    painted: list[Any] = []
    control.scores_changed.connect(painted.append)
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert painted == [frozenset({frame}) for frame in range(2, 8)]  # frame by frame, not all each time
    tracked = scores_of(window)
    assert tracked.keys() == {(1, frame) for frame in range(2, 8)}
    session = control.host._session
    assert tracked == {(1, f): pytest.approx(session.step(f).predicted_iou[1]) for f in range(2, 8)}
    window.panel.review_box.undo_button.click()
    settle(window)
    assert scores_of(window) == prompted
    window.panel.review_box.redo_button.click()
    settle(window)
    assert scores_of(window) == tracked
    # A second object gets a row of its own, and loses it.
    control.objects.add()
    window.draw_box(frame=4, corners=CORNERS // 2)
    settle(window)
    assert list(strip._rows) == [1, 2]
    assert (2, 4) in scores_of(window)
    control.objects.remove(1)
    settle(window)
    assert list(strip._rows) == [2]
    assert scores_of(window).keys() == {(2, 4)}
    # Another loop is empty; back at the first, all is there.
    first = window.panel.image_box.currentText()
    window.open(loop()[:, ::-1].copy(), name="second")
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText("second"))
    settle(window)
    assert scores_of(window) == {}
    assert not strip._cells[..., 3].any()
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText(first))
    settle(window)
    assert scores_of(window).keys() == {(2, 4)}
    assert strip._cells[..., 3].any()


@pytest.mark.gui
def test_saved_work_brings_its_scores(window: Window) -> None:
    data = loop()
    window.open(data)
    window.draw_box()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    before = scores_of(window)
    window.viewer.layers.clear()
    settle(window)
    window.open(data)
    settle(window)
    assert scores_of(window) == {}
    window.panel.restore_button.click()
    settle(window)
    assert scores_of(window) == before


@pytest.mark.gui
def test_keys_go_to_weak_frames_which_a_click_mends_at_once(window: Window) -> None:
    control, strip = window.panel.controller, window.panel.confidence.strip
    press = window.viewer.window._qt_viewer._key_map_handler.press_key
    image = window.open(loop(frames=12))
    press("9")
    assert "Nothing was segmented" in window.panel.status.text()
    window.draw_box()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    known = {frame: {1: GOOD} for frame in range(12)}
    control.scores_changed.emit(control.work.confidence.update(known))
    press("9")
    assert "No frame needs a look" in window.panel.status.text()
    control.scores_changed.emit(control.work.confidence.update({4: {1: WEAK}, 9: {1: UNSEEN}}))
    window.viewer.dims.set_point(0, 0)
    visited = []
    for key in ("9", "9", "9", "8", "8"):
        window.viewer.layers.selection.active = image
        press(key)
        visited.append(control.frame)
    assert visited == [4, 9, 4, 9, 4]
    assert "Frame 4, Object 1" in window.panel.status.text()
    # A click on the strip, then a click into the picture: the frame is mended, and the strip says so.
    QTest.mouseClick(strip, Qt.MouseButton.LeftButton, pos=QPoint(strip._edge(9) + 2, 8))
    assert control.frame == 9
    before = window.masks()[9].copy()
    window.click("add", (9, 40, 50), (9, 30, 30))
    settle(window)
    assert not np.array_equal(window.masks()[9], before)
    assert control.work.confidence.at(1, 9) == pytest.approx(tuple(control.host._session.scores(9)[1]), rel=1e-5)
    assert strip._prompted[1] == [0, 9]
    # Accepted frames, and painted ones, are the user's: they are no longer asked about.
    control.scores_changed.emit(control.work.confidence.update({9: {1: GOOD}}))
    window.viewer.dims.set_point(0, 4)
    control.review.accept_frame()
    settle(window)
    assert (1, 4) in strip._accepted_keys
    control.scores_changed.emit(control.work.confidence.update({4: {1: WEAK}}))
    press("9")
    assert "No frame needs a look" in window.panel.status.text()


@pytest.mark.gui
def test_a_prompt_while_tracking_shows_on_the_strip_before_tracking_ends(window: Window) -> None:
    control = window.panel.controller
    window.open(loop(frames=30))
    window.draw_box()
    settle(window)
    window.panel.tracking_box.forward_button.click()
    until(window, lambda: window.panel.tracking_box.progress.value() >= 3)
    tracked = control.work.confidence.at(1, 1)
    window.draw_box(frame=1, corners=CORNERS + 4)
    until(window, lambda: (1, 1) in control.snapshot.prompts)
    assert control.tracker.running
    assert control.work.confidence.at(1, 1) != tracked
    assert 1 in window.panel.confidence.strip._prompted[1]
    settle(window)
    assert control.work.confidence.known_frames([1]) == set(range(30))


@pytest.mark.gui
def test_each_window_has_a_strip_of_its_own_which_goes_with_the_panel(
    window: Window, make_napari_viewer: Callable[..., Any]
) -> None:
    other = make_napari_viewer()
    _, second = other.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
    assert "Confidence" in window.viewer.window.dock_widgets
    assert "Confidence" in other.window.dock_widgets
    assert second.confidence is not window.panel.confidence
    dock = next(own for own in other.window._wrapped_dock_widgets.values() if own.widget() is second)
    dock.destroyOnClose()  # what the cross in its corner does
    until(window, lambda: "Confidence" not in other.window.dock_widgets)
    assert "Confidence" in window.viewer.window.dock_widgets
    other.add_image(loop(), name="afterwards")
    other.dims.set_point(0, 3)
    # A strip that was closed by itself leaves the panel working.
    window.viewer.window._wrapped_dock_widgets["Confidence"].destroyOnClose()
    window.open(loop())
    window.draw_box()
    settle(window)
    assert window.masks().any()


def test_a_painted_or_accepted_frame_is_settled(window: Window) -> None:
    control = window.panel.controller
    window.open(loop())
    mask = np.zeros((72, 96), bool)
    mask[20:40, 20:40] = True
    window.draw_box()
    settle(window)
    control.submit(
        control.host.answer, control.show, with_model=True, first=lambda: control.host.ask({(1, 3): Prompt(mask=mask)})
    )
    settle(window)
    control.scores_changed.emit(control.work.confidence.update({3: {1: WEAK}, 5: {1: WEAK}}))
    control.navigator.next_weak()
    assert control.frame == 5


def test_names_are_written_out(strip: ConfidenceStrip) -> None:
    for name in ("Object 1", "wall", "Left atrium", "ili"):
        strip.show_loop(Confidence(20), {1: (name, colour_of(1))})
        room = strip._plot().left() - 3 * 6 - 10  # margins and the square of the object's colour
        assert strip.fontMetrics().elidedText(name, Qt.TextElideMode.ElideRight, room) == name
