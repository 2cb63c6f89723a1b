"""A viewer that is killed while it tracks: the next one offers what was done, and brings it back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from panel_window import CORNERS, Window, loop, settle

pytestmark = pytest.mark.gui

FRAMES = 600
ENOUGH = 12  # frames tracked before the end comes
LATE_S = 1.5  # what was found so long before the end must be there

VIEWER = """
import sys, time
import napari, numpy as np

loop, checkpoint, corners = np.load(sys.argv[1]), sys.argv[2], np.load(sys.argv[3])
viewer = napari.Viewer(show=True)
_, panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
panel.add_model_file(checkpoint)
viewer.add_image(loop, name="DOE^JANE")
control = panel.controller
control.objects.rename(1, "lumen")
control.marks.use("box")
viewer.layers["UniUltra boxes"].add(corners, shape_type="rectangle")
control.marks.sync()

def tell(progress):
    if progress is not None:
        print(progress.done, time.monotonic(), flush=True)

control.tracker.progressed.connect(tell)
control.tracker.track("forward")
napari.run()
"""


def test_a_killed_viewer_loses_moments_of_tracking(
    window: Window, checkpoint: Path, isolated_home: Path, tmp_path: Path
) -> None:
    data = loop(frames=FRAMES)
    np.save(tmp_path / "loop.npy", data)
    np.save(tmp_path / "corners.npy", np.insert(CORNERS.astype(float), 0, 0, axis=1))
    arguments = [str(tmp_path / "loop.npy"), str(checkpoint), str(tmp_path / "corners.npy")]
    viewer = subprocess.Popen(
        [sys.executable, "-c", VIEWER, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "NAPARI_CONFIG": str(tmp_path / "settings.yaml")},
    )
    seen: list[tuple[int, float]] = []
    try:
        for line in viewer.stdout:
            done, moment = line.split()
            seen.append((int(done), float(moment)))
            if int(done) >= ENOUGH and seen[-1][1] - seen[0][1] > 2 * LATE_S:
                break
    finally:
        viewer.send_signal(signal.SIGKILL)
        viewer.wait(30)
    last, end = seen[-1]
    assert ENOUGH <= last < FRAMES, "it was killed while it tracked"
    kept = [path.name for path in isolated_home.rglob("*") if path.is_file() and path.suffix in (".npz", ".uniultra")]
    assert len([name for name in kept if not name.endswith(".partial.npz")]) == 1
    assert not any("DOE" in name for name in kept)

    window.open(data)
    settle(window)
    assert window.panel.restore_button.isVisibleTo(window.panel)
    window.panel.restore_button.click()
    settle(window)
    control = window.panel.controller
    assert control.objects.names == {1: "lumen"}
    assert set(control.snapshot.prompts) == {(1, 0)}
    filled = window.masks().any(axis=(1, 2))
    count = int(filled.sum())
    assert filled[:count].all(), "without a gap"
    in_time = max(done for done, moment in seen if moment <= end - LATE_S)
    assert in_time <= count
    assert window.told == []
