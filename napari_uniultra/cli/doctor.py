"""`uniultra doctor`: what this computer has, and what is missing."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from napari_uniultra import __version__
from napari_uniultra.errors import UniUltraError

_PACKAGES = ("torch", "sam2", "safetensors", "numpy", "napari", "qtpy", "pydicom", "SimpleITK", "tifffile", "av")
_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
_OPEN_QT = "from qtpy.QtWidgets import QApplication; app = QApplication([]); print(app.platformName())"
_QT_LIMIT_S = 60
_LOW_MEMORY, _LOW_DISK = 2 << 30, 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a "note" limits what can be done, a "problem" stops segmentation."""

    what: str
    state: Literal["ok", "note", "problem"]
    detail: str
    fix: str = ""


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="what this computer has, and what is missing",
        description="Looks at versions, devices, memory, disk, models, video and Qt. Exits with 1 on a problem.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look at everything and report."""
    findings = list(examine())
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            fix = f" -> {finding.fix}" if finding.fix else ""
            print(f"{finding.state.upper():<8}{finding.what:<{width}}  {finding.detail}{fix}")
    return 1 if any(finding.state == "problem" for finding in findings) else 0


def examine() -> Iterator[Finding]:
    """Every finding; one that fails is a finding too."""
    yield Finding("napari-uniultra", "ok", __version__)
    yield Finding("Python", "ok", f"{platform.python_version()} on {platform.platform()}")
    for package in _PACKAGES:
        yield _package(package)
    for what, look in (
        ("Devices", _devices),
        ("Memory", _memory),
        ("Disk", _disk),
        ("Models", _models),
        ("Video", _video),
        ("Qt", _qt),
    ):
        yield from _looked(what, look)


def _looked(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except UniUltraError as error:
        yield Finding(what, "problem", error.what, error.fix)
    except Exception as error:  # a broken installation fails in any way, and saying so is the job here
        yield Finding(
            what, "problem", f"{type(error).__name__}: {error}".partition("\n")[0], "Install the package again"
        )


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "problem", "is not installed", "Install the package again")


def _devices() -> Iterator[Finding]:
    from napari_uniultra.model.device import available_devices, choose_device, describe_device, unfit_gpu

    for name in available_devices():
        yield Finding(f"Device {name}", "ok", describe_device(choose_device(name)))
    if unfit := unfit_gpu():
        yield Finding("Device cuda", "note", f"this PyTorch has no code for {unfit}", "Install a PyTorch built for it")


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    is_low = memory.available < _LOW_MEMORY
    detail = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    yield Finding("Memory", "note" if is_low else "ok", detail, "Close other programs" if is_low else "")


def _disk() -> Iterator[Finding]:
    from napari_uniultra.model.catalogue import models_folder

    folder = models_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    is_low = free < _LOW_DISK
    fix = "Free some space, or set NAPARI_UNIULTRA_HOME to a folder on another disk" if is_low else ""
    yield Finding("Disk", "note" if is_low else "ok", f"{free / 2**30:.1f} GiB free for {folder}", fix)


def _models() -> Iterator[Finding]:
    from napari_uniultra.model.catalogue import list_models
    from napari_uniultra.model.choices import DEFAULT_MODEL
    from napari_uniultra.model.load import load_model

    present = [info for info in list_models() if info.path is not None]
    if DEFAULT_MODEL not in [info.name for info in present]:
        yield Finding(f"Model {DEFAULT_MODEL}", "problem", "is not there", "Install the package again")
    for info in present:
        try:
            model = load_model(info.name, device="cpu")
        except UniUltraError as error:
            yield Finding(f"Model {info.name}", "problem", f"{error.what}: {error.why}", error.fix)
        else:
            yield Finding(f"Model {info.name}", "ok", f"{info.origin}, SHA-256 {model.sha256[:12]}...")


def _video() -> Iterator[Finding]:
    import av

    has_h264 = "libx264" in av.codecs_available
    yield Finding(
        "Video",
        "ok" if has_h264 else "note",
        f"FFmpeg in av {av.__version__}" + ("" if has_h264 else ", without libx264: overlay videos cannot be written"),
        "" if has_h264 else "Install av from its own wheels",
    )


def _qt() -> Iterator[Finding]:
    """Qt in a process of its own: where a system library or the display is missing it ends the process."""
    bindings = [f"{name} {_version(name)}" for name in _BINDINGS if _version(name)]
    if not bindings:
        yield Finding("Qt", "note", "no Qt binding: the viewer cannot open", "pip install 'napari-uniultra[pyqt6]'")
        return
    command = [sys.executable, "-c", _OPEN_QT]
    display = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY") or "none"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QT_LIMIT_S, cwd=Path(sys.prefix))
    except subprocess.TimeoutExpired:
        yield Finding("Qt", "note", f"{', '.join(bindings)} does not answer (display: {display})")
        return
    if done.returncode == 0:
        yield Finding("Qt", "ok", f"{', '.join(bindings)} on {done.stdout.strip()} (display: {display})")
        return
    lines = done.stderr.strip().splitlines()
    why = next((line for line in lines if "qt.qpa" in line or "Error" in line), lines[-1] if lines else "")
    yield Finding(
        "Qt",
        "note",
        f"{', '.join(bindings)} cannot open a window (display: {display}): {why}",
        "Run it on a screen or under xvfb-run, and install Qt's system libraries (see the README)",
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
