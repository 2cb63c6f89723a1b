"""A napari window with the panel, as tests of it drive it; the fixtures `window` and `checkpoint` are in conftest."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

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


def until(window: Window, condition: Callable[[], bool]) -> None:
    window.qtbot.waitUntil(condition, timeout=WAIT_MS)


def settle(window: Window) -> None:
    """Wait until everything that was asked for has been answered."""
    control = window.panel.controller
    window.qtbot.wait(80)
    until(window, lambda: not control.busy)
