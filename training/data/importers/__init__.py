"""Importers of public data sets and of plain folders: each makes a manifest of what a user has. Nothing is fetched.

An importer is a module with ``TITLE``, ``WHERE`` (a user gets the data), ``LICENCE`` and ``read(folder, out)``, which
returns a `found.Found`; annotations that are no masks yet are converted to masks under ``out``. A further one is a file
here and a line in `IMPORTERS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from napari_uniultra.errors import ConfigError, ReadError
from napari_uniultra.training.data.importers import (
    annotated,
    busi,
    camus,
    ddti,
    folders,
    fugc,
    hc18,
    jnu_ifm,
    tn3k,
    udiat,
    usgra,
)
from napari_uniultra.training.data.importers.found import Found
from napari_uniultra.training.data.manifest import Manifest, merge_manifests, read_manifest

IMPORTERS = {
    "busi": busi,
    "ddti": ddti,
    "tn3k": tn3k,
    "udiat": udiat,
    "fugc": fugc,
    "jnu_ifm": jnu_ifm,
    "hc18": hc18,
    "camus": camus,
    "usgra": usgra,
    "annotated": annotated,
    "folders": folders,
}


def import_data(name: str, folder: str | Path, out: str | Path | None = None) -> Found:
    """What an importer finds in a folder.

    Parameters
    ----------
    name : str
        One of `IMPORTERS`.
    folder : path
        Where the user unpacked the data.
    out : path, optional
        Folder for masks that have to be made of other annotations.

    Raises
    ------
    ConfigError
        For an unknown name.
    ReadError
        For a folder that does not look as expected.
    """
    if name not in IMPORTERS:
        near = difflib.get_close_matches(name, IMPORTERS, n=1)
        fix = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(IMPORTERS)}"
        raise ConfigError(f"There is no importer {name!r}", fix=fix)
    if not Path(folder).is_dir():
        raise ReadError(f"{folder} is not a folder", fix="Name the folder that the data were unpacked into")
    found = IMPORTERS[name].read(Path(folder), Path(out) if out else None)
    if not found.cases:
        why = "; ".join(": ".join(item) for item in found.left_out[:3])
        raise ReadError(f"{folder} holds no annotated case", why, "Check the folder and the importer")
    return found


def open_manifest(path: str | Path) -> Manifest:
    """A manifest by its file, or a folder in the layout of `annotated`.

    Raises
    ------
    ReadError
    """
    path = Path(path)
    return Manifest(annotated.read(path).cases) if path.is_dir() else read_manifest(path)


def open_manifests(paths: Iterable[str | Path]) -> Manifest:
    """Several as one; no part of one may overlap with another part of another."""
    return merge_manifests(open_manifest(path) for path in paths)
