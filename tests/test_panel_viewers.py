"""The panel among others: two viewers at once, layers renamed, moved and deleted, and changed by other plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.settings import get_settings
from panel_window import BOX, CORNERS, Window, docks, loop, open_from_menu, settle, until
from qtpy.QtWidgets import QScrollArea

from napari_uniultra.core.types import Cine
from napari_uniultra.model.load import load_model
from napari_uniultra.segment.session import CineSession
from napari_uniultra.widgets.keys import KEYS, Shortcuts

pytestmark = pytest.mark.gui


@pytest.fixture
def second(make_napari_viewer: Callable[..., Any], window: Window, checkpoint: Path, qtbot: Any) -> Iterator[Window]:
    """Another viewer with a panel of its own."""
    viewer = make_napari_viewer()
    _, panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
    panel.add_model_file(str(checkpoint))
    yield Window(viewer=viewer, panel=panel, told=window.told, qtbot=qtbot)
    panel.thread_.stop()


@pytest.fixture(scope="module")
def reference_model(checkpoint: Path) -> Any:
    return load_model(checkpoint, device="cpu")


def found(window: Window) -> int:
    """On how many frames there are masks."""
    layer = window.panel.controller.work.result.layer
    return 0 if layer is None else int(np.any(layer.data, axis=(1, 2)).sum())


def tracked(data: np.ndarray, model: Any, frame: int) -> np.ndarray:
    """The masks that a script gets of the same box."""
    session = CineSession(Cine(data), model)
    session.add_box(1, frame, BOX)
    list(session.propagate("both"))
    return session.masks


def test_two_viewers_work_at_the_same_time(window: Window, second: Window, reference_model: Any) -> None:
    assert second.panel is not window.panel
    loops = loop(frames=20), loop(frames=16)[:, ::-1].copy()
    for one, data, frame in zip((window, second), loops, (3, 5), strict=True):
        one.open(data)
        one.draw_box(frame=frame)
    for one in (window, second):
        one.panel.controller.tracker.track("both")
    until(window, lambda: window.panel.controller.tracker.running and second.panel.controller.tracker.running)
    window.panel.controller.objects.rename(1, "left")
    for one in (window, second):
        settle(one)
    assert np.array_equal(window.masks(), tracked(loops[0], reference_model, 3))
    assert np.array_equal(second.masks(), tracked(loops[1], reference_model, 5))
    assert window.panel.controller.objects.names == {1: "left"}
    assert second.panel.controller.objects.names == {1: "Object 1"}
    # Undo in one is none of the other's business.
    before = window.masks().copy()
    second.panel.controller.review.undo()
    settle(second)
    assert second.masks().any(axis=(1, 2)).sum() == 1
    assert np.array_equal(window.masks(), before)
    assert window.told == []


def test_two_viewers_on_one_loop_lose_nothing_and_say_so(window: Window, second: Window, isolated_home: Path) -> None:
    def draws(one: Window, frame: int) -> None:
        one.draw_box(frame=frame)
        settle(one)

    window.open(loop())
    draws(window, 0)
    second.open(loop())
    draws(second, 4)
    assert window.told == []
    draws(window, 1)
    assert len(window.told) == 1
    assert "This loop is worked on in another window too" in window.told[0]
    for frame in (5, 6):
        draws(second, frame)
    draws(window, 2)
    assert len(window.told) == 1
    cine = Cine(loop())
    kept = {file: set(CineSession.restore(file, cine, None).prompts) for file in (isolated_home / "autosave").glob("*")}
    assert {(1, 0), (1, 1), (1, 2)} in kept.values()
    assert kept[isolated_home / "autosave" / f"{cine.key}.npz"] == {(1, 4), (1, 5), (1, 6)}
    (own,) = (file for file, prompts in kept.items() if (1, 2) in prompts)
    assert str(own) in window.told[0]


def test_closing_one_viewer_leaves_the_other_at_work(window: Window, second: Window, reference_model: Any) -> None:
    data = loop(frames=30)
    for one in (window, second):
        one.open(data if one is window else data[:, ::-1].copy())
        one.draw_box()
        one.panel.controller.tracker.track("forward")
    until(window, lambda: found(second) >= 3)
    second.viewer.close()
    assert not second.panel.thread_.running
    settle(window)
    assert np.array_equal(window.masks(), tracked(data, reference_model, 0))


def test_layers_are_renamed_and_moved_while_it_tracks(window: Window, reference_model: Any) -> None:
    data = loop(frames=24)
    image = window.open(data)
    window.viewer.add_points(np.zeros((1, 3)), name="somebody else's")
    window.draw_box()
    settle(window)
    window.panel.controller.tracker.track("forward")
    until(window, lambda: found(window) >= 3)
    masks = window.viewer.layers["UniUltra masks"]
    image.name, masks.name = "UniUltra masks", "loop"  # each other's names, of all things
    window.viewer.layers.move(0, len(window.viewer.layers))
    window.viewer.layers.reverse()
    window.viewer.layers.remove("somebody else's")
    settle(window)
    assert np.array_equal(masks.data, tracked(data, reference_model, 0))
    assert np.array_equal(image.data, data)
    assert window.panel.controller.image == image
    assert window.told == []


def test_another_plugin_gives_the_loop_new_pixels_while_it_tracks(window: Window, reference_model: Any) -> None:
    data = loop(frames=30)
    image = window.open(data)
    window.draw_box()
    settle(window)
    window.panel.controller.tracker.track("forward")
    until(window, lambda: found(window) >= 3)
    other = loop(frames=12)[:, :, ::-1].copy()
    image.data = other
    settle(window)
    control = window.panel.controller
    assert not control.tracker.running
    assert control.snapshot.prompts == {}
    control.marks.use("box")
    control.layers[0].add(np.insert(CORNERS.astype(float), 0, 2, axis=1), shape_type="rectangle")
    control.tracker.track("both")
    settle(window)
    assert np.array_equal(control.work.result.layer.data, tracked(other, reference_model, 2))
    # The old pixels come back, and with them what was done on them.
    image.data = data
    settle(window)
    assert control.restorable
    control.review.restore()
    settle(window)
    assert (1, 0) in control.snapshot.prompts
    assert window.told == []


def test_another_plugin_changes_the_scale_while_it_tracks(window: Window, reference_model: Any) -> None:
    data = loop(frames=24)
    image = window.open(data)
    window.draw_box()
    settle(window)
    window.panel.controller.tracker.track("forward")
    until(window, lambda: found(window) >= 3)
    image.scale, image.translate = (1, 0.25, 0.5), (0, 3, -4)
    settle(window)
    for layer in window.panel.controller.layers:
        assert np.array_equal(layer.scale, image.scale)
        assert np.array_equal(layer.translate, image.translate)
    assert np.array_equal(window.masks(), tracked(data, reference_model, 0))
    assert np.allclose(window.panel.controller.snapshot.prompts[1, 0].box, BOX)
    assert window.told == []


def test_another_plugin_gives_the_masks_layer_other_masks(window: Window) -> None:
    window.open(loop())
    window.draw_box()
    window.panel.controller.tracker.track("forward")
    settle(window)
    layer = window.viewer.layers["UniUltra masks"]
    smoothed = layer.data.copy()
    smoothed[4] = 0
    smoothed[4, 10:20, 10:20] = 1
    layer.data = smoothed
    settle(window)
    assert np.array_equal(window.panel.controller.snapshot.prompts[1, 4].mask, smoothed[4] == 1)
    window.panel.controller.tracker.track("backward")
    settle(window)
    assert np.array_equal(window.masks()[4], smoothed[4]), "it stays as the other plugin made it"


def test_a_loop_that_is_deleted_and_brought_back(window: Window) -> None:
    data = loop()
    image = window.open(data)
    window.draw_box()
    settle(window)
    masks = window.masks().copy()
    window.viewer.layers.remove(image)
    settle(window)
    assert window.panel.image_box.count() == 0
    window.viewer.layers.append(image)
    settle(window)
    assert window.panel.controller.restorable
    window.panel.restore_button.click()
    settle(window)
    control = window.panel.controller
    assert np.array_equal(control.work.result.layer.data, masks)
    assert window.told == []


def test_panels_of_the_menu_share_the_side_as_tabs(make_napari_viewer: Callable[..., Any], qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    main = viewer.window._qt_window
    main.resize(1200, 800)
    panels = []
    for name in ("Segment loop", "Measure", "Compare"):
        panels.append(open_from_menu(viewer, name))
        qtbot.wait(50)
    first, *others = (panel.parentWidget() for panel in panels)
    qtbot.waitUntil(lambda: set(main.tabifiedDockWidgets(first)) == set(others), timeout=5000)
    assert main.height() == 800, "stacked, they would not fit into the window"
    assert not others[-1].visibleRegion().isEmpty()
    panels[0].thread_.stop()


def test_a_window_has_one_panel_however_it_is_opened(
    make_napari_viewer: Callable[..., Any], qtbot: Any, checkpoint: Path
) -> None:
    viewer = make_napari_viewer(show=True)
    firsts = []
    for name in ("Segment loop", "Measure", "Compare", "Batch", "Train"):
        _, panel = viewer.window.add_plugin_dock_widget("napari-uniultra", name)  # as `napari -w` does
        qtbot.wait(50)
        open_from_menu(viewer, name)
        qtbot.waitUntil(lambda name=name: docks(viewer, name) == [f"{name} (napari-uniultra)"], timeout=5000)
        assert not panel.visibleRegion().isEmpty()
        firsts.append(panel)
    segment = firsts[0]
    segment.add_model_file(str(checkpoint))
    window = Window(viewer=viewer, panel=segment, told=[], qtbot=qtbot)
    window.open(loop())
    window.draw_box()
    settle(window)
    assert window.masks().any()
    assert not segment.restore_button.isVisible()
    for panel in firsts:
        panel.end()


def test_keys_that_another_panel_has_taken_stay_its(make_napari_viewer: Callable[..., Any]) -> None:
    viewer = make_napari_viewer()
    pressed: list[str] = []
    first = Shortcuts(viewer, {name: lambda: pressed.append("first") for name in KEYS})
    second = Shortcuts(viewer, {name: lambda: pressed.append("second") for name in KEYS})
    first.release()
    assert len(viewer.keymap) >= len(KEYS)
    for callback in list(viewer.keymap.values()):
        callback(viewer)
    assert set(pressed) == {"second"}
    second.release()
    assert not viewer.keymap


@pytest.mark.parametrize("name", ["Segment loop", "Measure"])
def test_in_a_larger_font_all_of_a_panel_can_be_seen(
    make_napari_viewer: Callable[..., Any], qtbot: Any, name: str
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1300, 800)
    panel = open_from_menu(viewer, name)
    viewer.add_image(loop(), name="the name of a loop that is a good deal longer than there is room for in a panel")
    scroll = panel.findChild(QScrollArea)

    def shows_all() -> bool:
        return scroll.widget().minimumSizeHint().width() <= scroll.viewport().width()

    appearance = get_settings().appearance
    usual = appearance.font_size
    try:
        for size in (usual, 12, 14):
            appearance.font_size = size
            qtbot.wait(50)
            qtbot.waitUntil(shows_all, timeout=5000)
            assert panel.minimumSizeHint().width() < 500
    finally:
        appearance.font_size = usual
    panel.thread_.stop()
