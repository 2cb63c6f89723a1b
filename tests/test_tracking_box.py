"""Tracking from the panel: over a range, for one object, stopped and gone on with, followed by the slider."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from panel_window import BOX, CORNERS, Window, loop, settle, until

from napari_uniultra.core.types import Cine
from napari_uniultra.model.load import load_model
from napari_uniultra.plugin.track_plan import TrackPlan, TrackRequest
from napari_uniultra.segment.passes import Pass, after, count_frames, only, plan_passes
from napari_uniultra.segment.session import CineSession
from napari_uniultra.widgets.tracking_box import TrackingBox


@pytest.fixture(scope="module")
def reference_model(checkpoint: Any) -> Any:
    return load_model(checkpoint, device="cpu")


def filled(window: Window, object_id: int | None = None) -> list[int]:
    masks = window.masks() > 0 if object_id is None else window.masks() == object_id
    return np.flatnonzero(masks.any(axis=(1, 2))).tolist()


def results(window: Window) -> dict[tuple[int, int], Any]:
    """What the session holds, to be compared by identity: what is computed anew is another object."""
    return dict(window.panel.controller.host._session._state.results())


# Plans ----------------------------------------------------------------------------------------------------------------


def test_what_is_left_of_passes_goes_on_where_they_were_stopped() -> None:
    passes = plan_passes("both", 2, 9, seeds=[5], num_frames=20)
    visited = [(reverse, frame) for reverse, frames in passes for frame in frames]
    assert visited == [*((False, f) for f in range(5, 10)), *((True, f) for f in (4, 3, 2))]
    for done in range(len(visited) + 2):
        left = after(passes, done)
        assert [(reverse, frame) for reverse, frames in left for frame in frames] == visited[done:]
        assert count_frames(left) == TrackPlan(tuple(passes)).after(done).steps == len(visited[done:])
    assert only(passes, {9, 3}) == (Pass(False, [9]), Pass(True, [3]))
    assert only(passes, {0}) == ()


@pytest.mark.parametrize(
    ("direction", "shown", "said", "expected"),
    [
        ("forward", 7, {3, 6, 12}, (6, 10)),  # from the nearest before the frame shown
        ("forward", 6, {6}, (6, 10)),
        ("forward", 2, {4, 6}, (4, 10)),  # nothing before it: from the first there is
        ("forward", 7, {0}, (2, 10)),  # said outside the range: all of the range
        ("forward", 7, {0, 8}, (2, 10)),
        ("forward", 7, {15}, (2, 10)),
        ("backward", 5, {3, 6, 12}, (6, 2)),
        ("backward", 9, {4, 6}, (6, 2)),
        ("backward", 5, {15}, (10, 2)),
        ("backward", 5, {0}, (10, 2)),
    ],
)
def test_where_tracking_begins_and_ends(direction: Any, shown: int, said: set[int], expected: tuple[int, int]) -> None:
    assert TrackRequest(direction, shown, 2, 10).ends(said) == expected


# The box --------------------------------------------------------------------------------------------------------------


def test_the_box_says_what_was_chosen_and_repeats_nothing(qtbot: Any) -> None:
    box = TrackingBox()
    qtbot.addWidget(box)
    said: list[Any] = []
    box.range_changed.connect(lambda *ends: said.append(ends))
    box.only_current_changed.connect(said.append)
    box.follow_changed.connect(said.append)
    box.refresh(has_image=True, tracking=False, can_go_on=False, num_frames=40, ends=(0, 39))
    assert said == []
    assert not box.continue_button.isEnabled()
    box.range_slider.setValue((5, 20))
    box.objects_box.setCurrentIndex(1)
    box.follow_box.click()
    assert said == [(5, 20), True, True]
    box.refresh(has_image=True, tracking=True, can_go_on=False, num_frames=12, ends=(0, 11))
    assert tuple(box.range_slider.value()) == (0, 11)
    assert not box.range_slider.isEnabled()
    assert box.cancel_button.isEnabled()
    assert len(said) == 3
    for still in (1, 2):
        box.refresh(has_image=True, tracking=False, can_go_on=True, num_frames=still, ends=(0, still - 1))
    assert box.continue_button.isEnabled()


# In the window --------------------------------------------------------------------------------------------------------


@pytest.mark.gui
def test_tracking_stays_within_the_range(window: Window, reference_model: Any) -> None:
    data = loop(frames=14)
    window.open(data)
    window.draw_box(frame=5)
    settle(window)
    window.panel.tracking_box.range_slider.setValue((3, 9))
    window.viewer.dims.set_point(0, 7)
    for button, expected in (("forward_button", range(5, 10)), ("both_button", range(3, 10))):
        getattr(window.panel.tracking_box, button).click()
        settle(window)
        assert filled(window) == list(expected)
    reference = CineSession(Cine(data), reference_model)
    reference.add_box(1, 5, BOX)
    for _ in reference.propagate("both", start=3, stop=9):
        pass
    assert np.array_equal(window.masks(), reference.masks)
    # Keys take the frame that is shown as an end of the range, whatever layer is chosen.
    press = window.viewer.window._qt_viewer._key_map_handler.press_key
    slider = window.panel.tracking_box.range_slider
    for key, frame, expected in (
        ("Shift-J", 6, (6, 9)),
        ("Shift-K", 8, (6, 8)),
        ("Shift-J", 11, (11, 13)),
        ("Shift-K", 2, (0, 2)),
    ):
        window.viewer.dims.set_point(0, frame)
        press(key)
        assert tuple(slider.value()) == window.panel.controller.tracker.range == expected
    # Each loop has its own range.
    window.open(loop(frames=4), name="short")
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText("short"))
    assert tuple(slider.value()) == (0, 3)
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText("loop"))
    settle(window)
    assert tuple(slider.value()) == (0, 2)


@pytest.mark.gui
def test_one_object_is_tracked_alone(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    window.panel.controller.objects.add()
    window.draw_box(corners=CORNERS // 2)
    settle(window)
    window.panel.tracking_box.objects_box.setCurrentIndex(1)
    window.panel.tracking_box.forward_button.click()
    settle(window)
    known = results(window)
    assert {key for key in known if key[0] == 1} == {(1, 0)}
    assert {key for key in known if key[0] == 2} == {(2, frame) for frame in range(8)}
    window.panel.tracking_box.objects_box.setCurrentIndex(0)
    assert window.panel.tracking_box.continue_button.isEnabled()
    window.panel.tracking_box.continue_button.click()
    settle(window)
    assert results(window).keys() == {(o, frame) for o in (1, 2) for frame in range(8)}


@pytest.mark.gui
def test_tracking_goes_on_where_it_was_stopped_and_redoes_nothing(window: Window, reference_model: Any) -> None:
    data = loop(frames=24)
    window.open(data)
    window.draw_box(frame=14)
    settle(window)
    box = window.panel.tracking_box
    box.both_button.click()
    until(window, lambda: box.progress.value() >= 3)
    box.cancel_button.click()
    until(window, lambda: not window.panel.controller.tracker.running)
    before, masks = results(window), window.masks().copy()
    assert 3 <= len(before) < 24
    assert box.continue_button.isEnabled()
    box.continue_button.click()
    settle(window)
    assert results(window).keys() == {(1, frame) for frame in range(24)}
    assert all(results(window)[key] is result for key, result in before.items())
    assert np.array_equal(window.masks()[masks.any(axis=(1, 2))], masks[masks.any(axis=(1, 2))])
    assert not box.continue_button.isEnabled()
    reference = CineSession(Cine(data), reference_model)
    reference.add_box(1, 14, BOX)
    for _ in reference.propagate("both"):
        pass
    assert np.array_equal(window.masks(), reference.masks)
    # Of a second tracking, too, only what was left is done, although every frame has a result.
    first = results(window)
    box.both_button.click()
    until(window, lambda: box.progress.value() >= 3)
    box.cancel_button.click()
    settle(window)
    half = results(window)
    box.continue_button.click()
    settle(window)
    anew = {key for key in first if results(window)[key] is not first[key]}
    assert anew == set(first) - {(1, 14)}  # the prompt's own answer stays
    done = {key for key in first if half[key] is not first[key]}
    assert done
    assert all(results(window)[key] is half[key] for key in done)


@pytest.mark.gui
def test_restored_work_goes_on_with_the_frames_that_are_missing(window: Window) -> None:
    data = loop(frames=20)
    window.open(data)
    window.draw_box(frame=6)
    settle(window)
    window.panel.tracking_box.both_button.click()
    until(window, lambda: window.panel.tracking_box.progress.value() >= 4)
    window.viewer.layers.clear()
    settle(window)
    window.open(data)
    settle(window)
    window.panel.restore_button.click()
    settle(window)
    before = results(window)
    assert 4 <= len(before) < 20
    window.panel.tracking_box.continue_button.click()
    settle(window)
    assert filled(window) == list(range(20))
    assert all(results(window)[key] is result for key, result in before.items())


@pytest.mark.gui
def test_undoing_a_stopped_tracking_leaves_nothing_to_go_on_with(window: Window) -> None:
    window.open(loop(frames=20))
    window.draw_box()
    settle(window)
    window.panel.tracking_box.forward_button.click()
    until(window, lambda: window.panel.tracking_box.progress.value() >= 2)
    window.panel.review_box.undo_button.click()
    settle(window)
    assert filled(window) == [0]
    assert window.panel.controller.work.unfinished is None
    window.panel.tracking_box.continue_button.click()  # what is missing, then
    settle(window)
    assert filled(window) == list(range(20))
    window.panel.tracking_box.forward_button.click()
    settle(window)
    window.panel.controller.tracker.go_on()
    settle(window)
    assert "nothing left to track" in window.panel.status.text()


@pytest.mark.gui
def test_the_slider_follows_if_asked_to(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    window.viewer.dims.set_point(0, 0)
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert window.panel.controller.frame == 0  # off by default
    shown: list[int] = []
    window.viewer.dims.events.current_step.connect(lambda: shown.append(window.panel.controller.frame))
    window.panel.tracking_box.follow_box.click()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert shown == list(range(1, 8))


@pytest.mark.gui
def test_accepted_frames_are_passed_over(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    window.panel.tracking_box.forward_button.click()
    settle(window)
    window.viewer.dims.set_point(0, 4)
    window.panel.controller.review.accept_frame()
    settle(window)
    accepted = results(window)[1, 4]
    window.click("add", (0, 10, 10))  # the guide changes
    settle(window)
    before = results(window)
    window.viewer.dims.set_point(0, 0)
    window.panel.tracking_box.forward_button.click()
    settle(window)
    assert results(window)[1, 4] is accepted
    assert all(results(window)[1, frame] is not before[1, frame] for frame in (1, 2, 3, 5, 6, 7))


def test_close_ups_are_tracked_where_they_are_ticked(window: Window) -> None:
    window.open(loop())
    small = np.array([[20, 24], [20, 31], [27, 31], [27, 24]])
    window.draw_box(corners=small)
    settle(window)
    box, host = window.panel.tracking_box, window.panel.controller.host
    disc = np.zeros((8, *window.masks().shape[1:]), bool)
    disc[0, 20:27, 24:31] = True
    host._session.add_mask(1, 0, disc[0])  # random weights find anything: the structure is given
    box.zoom_box.click()
    box.forward_button.click()
    settle(window)
    assert host._session.zoom
    assert results(window)[1, 1].view is not None
    box.zoom_box.click()
    box.forward_button.click()
    settle(window)
    assert not host._session.zoom
    assert results(window)[1, 1].view is None


def test_close_ups_are_ticked_by_models_that_were_trained_so(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    settle(window)
    box = window.panel.tracking_box.zoom_box
    assert not box.isChecked()  # the window's random model knows nothing of them
    window.panel.model_box.choose("uniultra-mini")
    window.draw_box(corners=np.array([[20, 24], [20, 31], [27, 31], [27, 24]]))
    settle(window)
    assert box.isChecked()
    assert window.panel.controller.tracker.zoom is None  # nobody chose
    box.click()
    assert window.panel.controller.tracker.zoom is False
