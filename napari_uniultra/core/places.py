"""Where the user's own things live on this computer; ``NAPARI_UNIULTRA_HOME``, where set, names one folder for all."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_NAME = "napari-uniultra"


def data_folder() -> Path:
    """Models that were added, runs of training."""
    return _place(platformdirs.user_data_dir)


def cache_folder() -> Path:
    """Work in progress that is kept for the case of a crash."""
    return _place(platformdirs.user_cache_dir)


def config_folder() -> Path:
    """What the user chose once and for all."""
    return _place(platformdirs.user_config_dir)


def _place(usual: object) -> Path:
    return Path(os.environ.get("NAPARI_UNIULTRA_HOME") or usual(_NAME, appauthor=False))
