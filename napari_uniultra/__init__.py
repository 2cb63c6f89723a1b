"""Interactive ultrasound segmentation: prompts to masks to tracked loops, with UniUltra and SAM2.

The names below load on first use, so that importing the package imports neither torch nor napari.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("napari-uniultra")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "Cine": "napari_uniultra.core.types",
    "Prompt": "napari_uniultra.core.types",
    "Step": "napari_uniultra.core.types",
    "CineSession": "napari_uniultra.segment.session",
    "load_model": "napari_uniultra.model.load",
    "read_cine": "napari_uniultra.io.readers",
    "UniUltraError": "napari_uniultra.errors",
}

__all__ = ["Cine", "CineSession", "Prompt", "Step", "UniUltraError", "__version__", "load_model", "read_cine"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
