"""Where the user's own things live on this computer; ``NAPARI_UNIULTRA_HOME``, where set, names one folder for all."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_NAME, _HOME = "napari-uniultra", "NAPARI_UNIULTRA_HOME"


def data_folder() -> Path:
    """Models that were added, runs of training, and work that is kept until it is saved, for the case of a crash."""
    return _place(platformdirs.user_data_dir)


def cache_folder() -> Path:
    """What can be made again; systems may clear it away."""
    return _place(platformdirs.user_cache_dir)


def config_folder() -> Path:
    """What the user chose once and for all."""
    return _place(platformdirs.user_config_dir)


def chosen_folder() -> dict[str, str]:
    """The variable of the environment, where it is set, for a process that starts in another folder."""
    return {_HOME: str(data_folder())} if os.environ.get(_HOME) else {}


def _place(usual: object) -> Path:
    return Path(os.environ.get(_HOME) or usual(_NAME, appauthor=False)).absolute()
