"""A session file that is dragged onto napari, or opened from its menu: it goes into the panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from napari import current_viewer

from napari_uniultra.errors import ReadError
from napari_uniultra.segment.session_file import SUFFIX
from napari_uniultra.widgets.docks import open_panel


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[tuple[None]]] | None:
    """The function that opens a session file, or None for anything else."""
    paths = [path] if isinstance(path, (str, PathLike)) else list(path)
    return _open if len(paths) == 1 and Path(paths[0]).suffix.lower() == SUFFIX else None


def _open(path: str | Sequence[str]) -> list[tuple[None]]:
    """Open it in the panel of the viewer in use; the layers are the panel's to make."""
    path = path if isinstance(path, (str, PathLike)) else path[0]
    viewer = current_viewer()
    if viewer is None:
        raise ReadError(f"{Path(path).name} is a session", fix="Open it in napari, beside its loop")
    open_panel(viewer, "Segment loop").controller.files.open(path)
    return [(None,)]
