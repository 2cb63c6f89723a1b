"""A napari window with the panel, as tests of it drive it; the fixtures `window` and `checkpoint` are in conftest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks

from napari_uniultra.widgets.segment_panel import SegmentPanel

FRAMES, HEIGHT, WIDTH = 8, 72, 96
CORNERS = np.array([[18, 20], [18, 62], [60, 62], [60, 20]])  # (row, column)
BOX = (20.5, 18.5, 62.5, 60.5)  # the same, x and y at pixel edges
WAIT_MS = 60_000


def loop(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Speckle with a dark disc that moves."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    stack = rng.gamma(2.0, 25.0, (frames, height, width))
    for t, frame in enumerate(stack):
        frame[(y - height / 2 - t) ** 2 + (x - width / 2) ** 2 < height * width / 12] *= 0.2
    return stack.clip(0, 255).astype(np.uint8)


class Window(SimpleNamespace):
    """A viewer with the panel docked, and what the user is told."""

    viewer: Any
    panel: SegmentPanel
    told: list[str]

    def open(self, data: np.ndarray, **keywords: Any) -> Any:
        return self.viewer.add_image(data, **{"name": "loop", **keywords})

    def draw_box(self, frame: int | None = 0, corners: np.ndarray = CORNERS) -> Any:
        if self.panel.controller.marks.tool != "box":
            self.panel.marks_box.tools["box"].click()
        boxes = self.viewer.layers["UniUltra boxes"]
        shape = corners if frame is None else np.insert(np.asarray(corners, float), 0, frame, axis=1)
        boxes.add(shape, shape_type="rectangle")
        return boxes

    def click(self, tool: str, *positions: tuple[float, ...]) -> Any:
        button = self.panel.marks_box.tools[tool]
        if self.panel.controller.marks.tool != tool:
            button.click()
        points = self.viewer.layers["UniUltra points"]
        for position in positions:
            points.add(position)
        return points

    def masks(self) -> np.ndarray:
        return np.asarray(self.viewer.layers["UniUltra masks"].data)


def open_from_menu(viewer: Any, name: str) -> Any:
    """What the user finds under Plugins > UniUltra; a panel that is open is hidden, or shown again."""
    menu = viewer.window._qt_window.menuBar()
    for words in ("Plugins", "UniUltra"):
        menu = next(action.menu() for action in menu.actions() if action.text().replace("&", "") == words)
        menu.aboutToShow.emit()
    next(action for action in menu.actions() if action.text() == name).trigger()
    return viewer.window.dock_widgets[f"{name} (UniUltra)"]


def close_dock(panel: Any) -> None:
    """What the cross in the corner of a dock does."""
    panel.parentWidget().destroyOnClose()


def docks(viewer: Any, name: str) -> list[str]:
    """The docks that show a panel."""
    return [title for title in viewer.window.dock_widgets if title.startswith(name)]


def mouse_event(kind: str, position: tuple[float, ...]) -> ReadOnlyWrapper:
    """What napari hands to a layer when the mouse does something over the canvas at a position in the world."""
    values = SimpleNamespace(
        type=kind,
        position=position,
        pos=np.asarray(position[-2:]),
        modifiers=[],
        button=1,
        is_dragging=kind == "mouse_move",
        view_direction=None,
        up_direction=None,
        dims_displayed=[1, 2],
        handled=False,
    )
    return ReadOnlyWrapper(values, exceptions=("handled",))


def drag(layer: Any, start: tuple[float, ...], end: tuple[float, ...]) -> None:
    """Press, move and let go with the mouse over the canvas, positions in the world, as napari delivers it."""
    mouse_press_callbacks(layer, mouse_event("mouse_press", start))
    for share in (0.3, 0.7, 1.0):
        between = np.asarray(start) + share * (np.asarray(end) - start)
        mouse_move_callbacks(layer, mouse_event("mouse_move", tuple(between)))
    mouse_release_callbacks(layer, mouse_event("mouse_release", end))


@contextmanager
def thread_held(window: Window) -> Iterator[None]:
    """The inference thread is busy with something else: what is asked for in the meantime waits."""
    go = threading.Event()
    window.panel.thread_.submit(lambda: go.wait(60), lambda _: None, lambda _: None)
    try:
        yield
    finally:
        go.set()


def until(window: Window, condition: Callable[[], bool]) -> None:
    window.qtbot.waitUntil(condition, timeout=WAIT_MS)


def settle(window: Window) -> None:
    """Wait until everything that was asked for has been answered."""
    control = window.panel.controller
    window.qtbot.wait(80)
    until(window, lambda: not control.busy)
