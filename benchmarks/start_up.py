"""`uniultra bench --start-up`: what the panel adds to the time that napari takes to open."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from napari_uniultra.benchmarks.report import JUDGED_COLUMNS, judged, machine, row, table
from napari_uniultra.errors import ResourceError

PANEL = "Segment loop"
_REPEATS = 5


def run_start_up(quick: bool = False) -> str:
    """Start napari alone and with the panel, in turn, and return a table in Markdown.

    Settings are new ones in a temporary folder, so that the user's windows decide nothing and stay as they are.

    Parameters
    ----------
    quick : bool
        Two starts of each instead of five.

    Raises
    ------
    ResourceError
        When there is no screen, or napari does not start.
    """
    _check_screen()
    times: dict[str, list[float]] = {"": [], PANEL: []}
    with tempfile.TemporaryDirectory() as folder:
        for panel in times:
            _seconds(panel, Path(folder))  # files come from the disk the first time
        for _ in range(2 if quick else _REPEATS):
            for panel, own in times.items():
                own.append(_seconds(panel, Path(folder)))
    alone, with_panel = (statistics.median(own) for own in times.values())
    added = [panel - napari for napari, panel in zip(*times.values(), strict=True)]
    rows = [
        row("napari alone", f"{alone:.2f} s", "", ""),
        row(f"napari with the panel '{PANEL}'", f"{with_panel:.2f} s", "", ""),
        judged(f"what the panel adds ({min(added):.2f}-{max(added):.2f} s)", statistics.median(added), 1.5, "s"),
    ]
    what = f"from the start of the process to the first idle moment of its window, medians of {len(added)}"
    return table(f"{what}; {machine('napari')}, {_qt()}", JUDGED_COLUMNS, rows)


def _seconds(panel: str, folder: Path) -> float:
    """From the start of a process to its first idle moment."""
    command = [sys.executable, "-m", "napari_uniultra.benchmarks.viewer", *([panel] if panel else [])]
    own = {"NAPARI_CONFIG": str(folder / "settings.yaml"), "NAPARI_UNIULTRA_HOME": str(folder)}
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **own}
    ) as process:
        lines = iter(process.stdout.readline, "")
        if next((line for line in lines if line.strip() == "idle"), None) is None:
            raise ResourceError("napari did not start", process.stderr.read().strip()[-500:])
        return time.perf_counter() - start


def _check_screen() -> None:
    if not sys.platform.startswith("linux") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        return
    raise ResourceError(
        "There is no screen to open napari on",
        "neither DISPLAY nor WAYLAND_DISPLAY is set",
        "Run it on a desktop, or from a checkout on a virtual screen: .ci/with-display.sh uniultra bench --start-up",
    )


def _qt() -> str:
    for name in ("PyQt6", "PySide6"):
        try:
            return f"{name} {version(name)}"
        except ModuleNotFoundError:
            continue
    return "Qt unknown"
