"""No key of the panel's is one that napari uses by itself, for its window or for any type of layer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from app_model.types import KeyBinding
from napari import layers
from napari._app_model import get_app_model
from napari.components import ViewerModel
from napari.utils.shortcuts import default_shortcuts

from napari_uniultra.widgets.keys import KEYS, WORDS


def binding(key: Any) -> KeyBinding:
    if isinstance(key, KeyBinding):
        return key
    return KeyBinding.from_str(key.replace("-", "+")) if isinstance(key, str) else KeyBinding.from_int(int(key))


OURS = {str(binding(key.replace("Control", "Ctrl"))): name for name, key in KEYS.items()}


def clashes(keys: Any) -> set[str]:
    return {OURS[key] for key in {str(binding(key)) for key in keys} & set(OURS)}


def test_every_key_is_ours_once_and_has_words() -> None:
    assert len(OURS) == len(KEYS)
    assert WORDS.keys() == KEYS.keys()


def test_no_key_takes_the_place_of_one_of_naparis_shortcuts() -> None:
    assert clashes(key for keys in default_shortcuts.values() for key in keys) == set()


LAYERS = (layers.Image, layers.Labels, layers.Points, layers.Shapes, layers.Surface, layers.Tracks, layers.Vectors)


@pytest.mark.parametrize("provider", (ViewerModel, *LAYERS), ids=lambda own: own.__name__)
def test_no_key_is_bound_by_a_class_of_naparis(provider: Any) -> None:
    keys = {key for cls in provider.__mro__ for key in cls.__dict__.get("class_keymap", {})}
    assert clashes(keys) == set()


@pytest.mark.gui
def test_no_key_is_that_of_an_entry_in_naparis_menus(make_napari_viewer: Callable[..., Any]) -> None:
    make_napari_viewer()  # which registers the entries
    taken = [own.keybinding for own in get_app_model().keybindings]
    assert str(binding("Ctrl+O")) in {str(key) for key in taken}  # they were found
    assert clashes(taken) == set()


# Qt calls a Mac's Command key Control, and that is what QTest presses.
MAC = """
import json, sys
import app_model.types._constants as constants
constants._CURRENT = constants.OperatingSystem.MACOS  # before napari and the panel bind their keys
import napari, numpy as np
import napari.utils.key_bindings
here, sys.platform = sys.platform, "darwin"
import napari_uniultra.widgets.keys
sys.platform = here
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLabel
from napari_uniultra.widgets.key_list import KeyList
from napari_uniultra.widgets.segment_panel import SegmentPanel

viewer = napari.Viewer(show=True)
panel = SegmentPanel(viewer)
panel.add_model_file(sys.argv[1])
viewer.window.add_dock_widget(panel)
viewer.add_image(np.random.default_rng(0).integers(0, 255, (4, 96, 96)).astype(np.uint8))
control = panel.controller
control.marks.use("paint")
layer = control.work.result.layer
seen = []

def settle():
    QTest.qWait(100)
    while control.busy:
        QTest.qWait(20)

def press(key, modifiers):
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    QTest.keyClick(canvas, key, modifiers)

def note():
    settle()
    seen.append([int(layer.data[0].sum()), int(control.host._session.labels(0).sum())])

layer.paint((0, 40, 40), 1)
note()
press(Qt.Key_Z, Qt.ControlModifier)
note()
press(Qt.Key_Z, Qt.ControlModifier | Qt.ShiftModifier)
note()
keys, tip = KeyList(), panel.session_buttons.save_button.toolTip()
words = [label.text() for label in keys.findChildren(QLabel)]
print("SEEN" + json.dumps({"seen": seen, "words": words, "tip": tip}), flush=True)
panel.thread_.stop()
viewer.close()
"""


@pytest.mark.gui
def test_on_a_mac_command_undoes_in_the_session_and_is_named_so(
    checkpoint: Path, isolated_home: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "NAPARI_CONFIG": str(tmp_path / "settings.yaml")}
    done = subprocess.run(
        [sys.executable, "-c", MAC, str(checkpoint)], capture_output=True, text=True, timeout=120, env=environment
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("SEEN")), None)
    assert line is not None, done.stderr
    found = json.loads(line.removeprefix("SEEN"))
    painted = found["seen"][0][0]
    assert painted > 0
    assert found["seen"] == [[painted] * 2, [0, 0], [painted] * 2]
    assert "(Cmd+Shift+E)" in found["tip"]
    words = " ".join(found["words"])
    assert "Cmd + Shift + E" in words
    assert "Cmd+Z" in words
    assert "Ctrl" not in words
    assert "Control" not in words
