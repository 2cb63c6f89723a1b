"""What is imported when: the package, the command's help and napari itself must start without the heavy libraries.

Each test measures `sys.modules` in an interpreter of its own, since this one has imported everything long ago.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    "segment",
    "demo",
    "measure",
    "export",
    "anonymise",
    "batch",
    "data",
    "train",
    "distill",
    "evaluate",
    "ablate",
    "weights",
    "doctor",
    "bench",
]
REPORT = "\nimport json, sys\nprint('MODULES ' + json.dumps(sorted(sys.modules)))\n"


def modules_after(code: str, cwd: Path) -> set[str]:
    """Runs `code` in a new interpreter and returns the names of all modules that it has imported by the end."""
    # What this run has set for itself must not decide what another program imports.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    command = [sys.executable, "-c", code + REPORT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("MODULES "))
    return set(json.loads(line.removeprefix("MODULES ")))


def test_measuring_sees_an_import(tmp_path: Path) -> None:
    assert "tifffile" in modules_after("import tifffile", tmp_path)
    assert "tifffile" not in modules_after("", tmp_path)


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    loaded = modules_after("import napari_uniultra; napari_uniultra.__version__; dir(napari_uniultra)", tmp_path)
    assert not loaded & {"torch", "sam2", "napari", "qtpy", "numpy"}


def test_every_public_name_loads(tmp_path: Path) -> None:
    modules_after("import napari_uniultra as n\nfor name in n.__all__: getattr(n, name)", tmp_path)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import napari_uniultra

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = napari_uniultra.nonsense


def test_looking_at_models_is_light(tmp_path: Path) -> None:
    code = """
import napari_uniultra.model.zoo
from napari_uniultra.model.catalogue import list_models, model_card, model_sha256

info = list_models()[0]
assert model_card(info) and model_sha256(info.name) == model_sha256(info.path)
"""
    assert not modules_after(code, tmp_path) & {"torch", "sam2", "numpy"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([name, "--help"] for name in COMMANDS)],
    ids=" ".join,
)
def test_help_is_light(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="uniultra")
sys.argv = ["uniultra", *{arguments!r}]
try:
    command.load()()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert not modules_after(code, tmp_path) & {"torch", "sam2", "napari", "qtpy", "numpy"}


OPEN_NAPARI = """
import napari
from npe2 import PluginManager

viewer = napari.Viewer(show=False)
manager = PluginManager.instance()
assert "napari-uniultra" in {manifest.name for manifest in manager.iter_manifests()}
# Building the menus and asking who can open a file is all that napari does before somebody uses the plugin.
window = viewer.window._qt_window
for menu in (viewer.window.file_menu, viewer.window.plugins_menu):
    menu.aboutToShow.emit()
assert any(reader.plugin_name == "napari-uniultra" for reader in manager.iter_compatible_readers(["loop.dcm"]))
assert "Segment loop" in {widget.display_name for widget in manager.iter_widgets()}
viewer.close()
"""


@pytest.mark.gui
def test_opening_napari_imports_neither_torch_nor_sam2(tmp_path: Path) -> None:
    loaded = modules_after(OPEN_NAPARI, tmp_path)
    assert "napari._qt.qt_main_window" in loaded, "no window was made: this measures nothing"
    assert not loaded & {"torch", "sam2"}
    ours = {name for name in loaded if name.startswith("napari_uniultra.")}
    assert not ours, "discovering the plugin runs none of its code"
