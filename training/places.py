"""Settings that are paths, or may be: where they lead, whatever folder a command runs in. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from napari_uniultra.core.settings import read_settings, to_dict
from napari_uniultra.model.catalogue import list_models
from napari_uniultra.training.layout import CHECKPOINT

T = TypeVar("T")
_PATHS = ("output", "manifests", "simulated_pool")
_MODELS = ("base", "checkpoint", "start")  # paths, or names of models
PLACES = (*_PATHS, *_MODELS)


def absolute(config: T, folder: str | Path) -> T:
    """The settings of a run with absolute paths, where they are relative to a folder; names of models stay.

    Raises
    ------
    ConfigError
    """
    return read_settings(type(config), _absolute("", to_dict(config), folder))


def leads_to(value: Any, folder: str | Path) -> Any:
    """Where a path, or each of several, leads that is relative to a folder; what is no path stays."""
    if isinstance(value, (list, tuple)):
        return [leads_to(item, folder) for item in value]
    return os.path.abspath(os.path.join(folder, value)) if isinstance(value, str) else value


def _absolute(name: str, value: Any, folder: str | Path) -> Any:
    if isinstance(value, dict):
        return {key: _absolute(key, item, folder) for key, item in value.items()}
    is_path = name in _PATHS or (name in _MODELS and isinstance(value, str) and _leads_to_model(value, folder))
    return leads_to(value, folder) if is_path else value


def _leads_to_model(value: str, folder: str | Path) -> bool:
    """Whether a base or teacher is a path: the folder of a run is one, others are where no model has that name."""
    path = Path(folder) / value
    names = {"", *(info.name for info in list_models())}
    return (path / CHECKPOINT).is_file() or (path.exists() and value not in names)
