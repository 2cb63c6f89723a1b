"""Makes the pictures of the viewer in docs/images anew: `make pictures`.

Drives the panels in a napari window as their user would, with the sample loop, the bundled model and a home of its own.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = Path(__file__).parent / "images"
VENTRICLE = (157, 56, 212, 127)  # x0, y0, x1, y1 on the last frame, as in the sample's own prompts
TRAINING = {
    "run.steps": "12",
    "run.validate_every": "4",
    "run.log_every": "1",
    "run.early_stopping": "0",
    "data.batch": "2",
}
WAIT_S = 1_800.0


class Stage:
    """A window with the sample loop and the main panel."""

    def __init__(self) -> None:
        import napari

        from napari_uniultra.widgets.docks import open_panel

        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 800)
        self.viewer.open_sample("napari-uniultra", "heart")
        self.panel = open_panel(self.viewer, "Segment loop")
        self.panel.first_steps.close_button.click()
        self.control = self.panel.controller
        self.settle()

    def until(self, is_so: Callable[[], bool]) -> None:
        """Let the window go on until something is so."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + WAIT_S
        while not is_so():
            if time.monotonic() > end:
                raise TimeoutError("The window did not get there")
            QApplication.instance().processEvents()
            time.sleep(0.02)

    def settle(self, seconds: float = 0.5) -> None:
        """Wait until everything that was asked for was answered and drawn."""
        drawn = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > drawn)
        self.until(lambda: not self.control.busy)
        drawn = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > drawn)

    def show(self, frame: int) -> None:
        """Go to a frame."""
        self.viewer.dims.set_current_step(0, frame)
        self.settle()

    def scroll_to(self, part: Any) -> None:
        """Bring a part of a panel into view."""
        from qtpy.QtWidgets import QScrollArea

        area = part.parentWidget()
        while not isinstance(area, QScrollArea):
            area = area.parentWidget()
        area.ensureWidgetVisible(part)
        self.settle()

    def keep(self, name: str) -> None:
        """Write what the window shows."""
        self.settle()
        self.viewer.window.screenshot(str(IMAGES / name), canvas_only=False, flash=False)


def box(stage: Stage) -> None:
    """A box, and the mask that comes of it."""
    last = stage.control.work.num_frames - 1
    stage.show(last)
    stage.panel.marks_box.tools["box"].click()
    x0, y0, x1, y1 = np.asarray(VENTRICLE) - 0.5
    corners = [[last, y, x] for y, x in ((y0, x0), (y0, x1), (y1, x1), (y1, x0))]
    stage.viewer.layers["UniUltra boxes"].add(np.asarray(corners), shape_type="rectangle")
    stage.settle()
    stage.panel.object_list.renamed.emit(stage.control.objects.current, "Left ventricle")
    stage.keep("box.png")


def track(stage: Stage) -> None:
    """Tracked through the loop."""
    stage.panel.tracking_box.both_button.click()
    stage.settle()
    stage.show(24)
    stage.keep("panel.png")


def correct(stage: Stage) -> None:
    """A click on what does not belong to the mask."""
    stage.show(20)
    stage.panel.marks_box.tools["remove"].click()
    stage.viewer.layers["UniUltra points"].add([20, 124, 165])
    stage.scroll_to(stage.panel.tracking_box)
    stage.keep("correct.png")


def tidy(stage: Stage) -> None:
    """The preview of smoother outlines."""
    stage.show(16)
    tidy_box = stage.panel.tidy_box
    tidy_box.expand(animate=False)
    tidy_box.smooth_box.setValue(2)
    tidy_box.preview_button.setChecked(True)
    stage.settle()
    stage.scroll_to(tidy_box.apply_button)
    stage.keep("tidy.png")
    tidy_box.preview_button.setChecked(False)


def measure(stage: Stage) -> None:
    """Areas and beats."""
    stage.panel.review_box.accept_all_button.click()
    stage.settle()
    stage.panel.review_box.measure_button.click()
    stage.settle(3)
    stage.keep("measure.png")


def keys(stage: Stage) -> None:
    """The list of keys."""
    stage.panel.keys_button.click()
    stage.settle()
    stage.panel.key_list.grab().save(str(IMAGES / "keys.png"))
    stage.panel.key_list.close()


def train(stage: Stage) -> None:
    """A fine-tuning on what was accepted."""
    from napari_uniultra.widgets.docks import open_panel

    open_panel(stage.viewer, "Measure").parentWidget().destroyOnClose()
    panel = open_panel(stage.viewer, "Train")
    stage.settle(2)
    new = panel.new
    for path, value in TRAINING.items():
        new.settings.form.controls[path].setText(value)
    new.settings.title.setText("Heart, first try")
    new.check_button.click()
    stage.until(new.start_button.isEnabled)
    new.start_button.click()
    stage.until(lambda: "done" in panel.view.title.text())
    stage.settle(2)
    stage.keep("train.png")


def main() -> None:
    """All of them, in the order in which they are met."""
    from qtpy.QtCore import QTimer

    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_UNIULTRA_HOME"] = home
        os.environ["NAPARI_CONFIG"] = f"{home}/napari.yaml"
        stage = Stage()
        for part in (box, track, correct, tidy, measure, keys, train):
            part(stage)
        QTimer.singleShot(0, stage.viewer.close)
        stage.settle()


if __name__ == "__main__":
    main()
