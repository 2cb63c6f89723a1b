"""Frames around the one that is looked at are embedded while nothing else is to be done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from panel_window import Window, loop, settle, until

from napari_uniultra.core.types import Cine
from napari_uniultra.model.load import load_model
from napari_uniultra.segment import engine as engine_module
from napari_uniultra.segment.session import CineSession
from napari_uniultra.widgets.worker import InferenceThread


@pytest.fixture(scope="module")
def model(checkpoint: Any) -> Any:
    return load_model(checkpoint, device="cpu")


def embedded(session: CineSession) -> set[int]:
    return {frame for frame in range(len(session.cine)) if (frame, session._engine.memories.whole) in kept(session)}


def kept(session: CineSession) -> Any:
    return session._engine.embeddings


# Which frames


@pytest.mark.parametrize(
    ("frame", "expected"),
    [(6, [6, 7, 5, 8, 4, 9, 3, 10, 2]), (1, [1, 2, 0, 3, 4, 5]), (11, [11, 10, 9, 8, 7])],
)
def test_the_nearest_frames_come_first_and_none_beyond_the_loop(model: Any, frame: int, expected: list[int]) -> None:
    session = CineSession(Cine(loop(12)), model)
    assert list(session.embed_around(frame)) == expected
    assert embedded(session) == set(expected)


def test_what_is_computed_ahead_leaves_half_of_the_room(model: Any) -> None:
    one = CineSession(Cine(loop()), model)
    one.embed(0)
    size = kept(one).nbytes
    session = CineSession(Cine(loop()), model, cache_bytes=6 * size)
    assert list(session.embed_around(4)) == [4, 5, 3]


def test_a_slow_model_keeps_no_prompt_waiting(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_LONG_AHEAD_S", 0.0)
    assert list(CineSession(Cine(loop()), model).embed_around(4)) == [4]


# When


def test_what_keeps_the_users_work_is_done_in_its_order_and_before_the_end(qtbot: Any) -> None:
    worker, go, done = InferenceThread(), threading.Event(), []

    def submit(name: str, **keywords: Any) -> None:
        worker.submit(lambda: done.append(name), lambda _: None, pytest.fail, **keywords)

    worker.submit(lambda: go.wait(60), lambda _: None, pytest.fail)
    submit("look", key="look")
    submit("box", key="marks", lasting=True)
    submit("moved", key="marks", lasting=True)  # takes the place of the one before
    submit("undo", lasting=True)
    submit("another", key="marks", lasting=True)  # but not of one before something else
    submit("look again", key="look")
    threading.Timer(0.2, go.set).start()
    assert worker.stop()
    assert done == ["moved", "undo", "another"]


def test_jobs_and_streams_go_first_and_errors_are_quiet(qtbot: Any) -> None:
    worker, order, gate = InferenceThread(), [], threading.Event()

    def ahead(last: Exception | None = None) -> Iterator[None]:
        for step in range(3):
            order.append(f"ahead {step}")
            if step == 0:
                gate.wait(10)
            yield
        if last is not None:
            raise last

    def job() -> None:
        order.append("job")

    worker.ahead(lambda: ahead(RuntimeError("no frame")))
    qtbot.waitUntil(lambda: order == ["ahead 0"])
    assert not worker.busy  # nobody waits for it
    worker.submit(job, lambda _: None, pytest.fail)
    worker.stream(lambda: iter([job()]), lambda _: None, lambda _: None, pytest.fail)
    gate.set()
    qtbot.waitUntil(lambda: order == ["ahead 0", "job", "job", "ahead 1", "ahead 2"])
    gate.clear()
    order.clear()
    worker.ahead(ahead)
    qtbot.waitUntil(lambda: order == ["ahead 0"])
    worker.ahead(None)
    worker.submit(job, lambda _: None, pytest.fail)
    gate.set()
    qtbot.waitUntil(lambda: order == ["ahead 0", "job"])
    assert worker.stop()
    assert order == ["ahead 0", "job"]


def test_neighbours_are_ready_when_a_frame_was_looked_at(window: Window) -> None:
    window.open(loop())
    window.viewer.dims.set_point(0, 3)
    window.qtbot.wait(300)
    host = window.panel.controller.host
    assert host._session is None  # no model is loaded for somebody who only looks
    window.panel.marks_box.tools["box"].click()
    until(window, lambda: host._session is not None and len(embedded(host._session)) == 8)
    settle(window)
    before = kept(host._session).get((5, host._session._engine.memories.whole))
    window.viewer.dims.set_point(0, 5)
    window.draw_box(5)
    settle(window)
    assert kept(host._session).get((5, host._session._engine.memories.whole)) is before
    assert np.flatnonzero(window.masks().any(axis=(1, 2))).tolist() == [5]


def test_a_loop_that_is_scrolled_is_not_embedded(window: Window) -> None:
    window.open(loop(40))
    window.viewer.dims.set_point(0, 0)
    window.panel.marks_box.tools["box"].click()
    host = window.panel.controller.host
    until(window, lambda: host._session is not None and embedded(host._session) == {0, 1, 2, 3, 4})
    for frame in range(20, 30):
        window.viewer.dims.set_point(0, frame)
        window.qtbot.wait(20)
    assert embedded(host._session) == {0, 1, 2, 3, 4}
    until(window, lambda: embedded(host._session) >= {25, 29, 33})
