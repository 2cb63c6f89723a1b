"""Importers of public data sets: each makes a manifest of what a user has downloaded. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from napari_uniultra.training.data.importers import annotated
from napari_uniultra.training.data.manifest import Manifest, merge_manifests, read_manifest


def open_manifest(path: str | Path) -> Manifest:
    """A manifest by its file, or a folder in the layout of `annotated`.

    Raises
    ------
    ReadError
    """
    path = Path(path)
    return Manifest(tuple(annotated.read(path))) if path.is_dir() else read_manifest(path)


def open_manifests(paths: Iterable[str | Path]) -> Manifest:
    """Several as one; no part of one may overlap with another part of another."""
    return merge_manifests({str(path): open_manifest(path) for path in paths})
