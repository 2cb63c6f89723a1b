"""The models of this computer: adding, downloading and removing them."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from napari_uniultra.core.atomic import atomic_dir, write_error
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.about import INDEX_NAME, is_torch_file
from napari_uniultra.model.catalogue import INFO_NAME, ModelInfo, check_new_name, find_model, list_models, models_folder
from napari_uniultra.model.download import DOWNLOADS, Download, fetch, received


def add_model(path: str | os.PathLike[str], name: str | None = None) -> ModelInfo:
    """Copy a checkpoint into the user's models, after a full check, so that it can be loaded by name.

    Parameters
    ----------
    path : path
        A safetensors file, a folder of shards, or an official SAM2 PyTorch file.
    name : str, optional
        Small letters, digits, '.', '_' and '-'; by default made from the file's name.

    Raises
    ------
    CheckpointError
        When the checkpoint cannot be loaded, or the name cannot be used or is taken.
    WriteError
        When it cannot be copied.
    """
    path = Path(path)
    name = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._") if name is None else name
    check_new_name(name)
    pack_model(path, models_folder() / name)
    return find_model(name)


def pack_model(path: str | os.PathLike[str], folder: Path, *, move: bool = False) -> None:
    """Check a checkpoint and put it, with what `list_models` tells of it, into a new folder.

    Parameters
    ----------
    path : path
    folder : Path
        Must not exist yet. Its name is the model's name.
    move : bool
        Move the file instead of copying it.

    Raises
    ------
    CheckpointError, WriteError
        As `add_model`.
    """
    path = Path(path)
    from napari_uniultra.model.load import open_checkpoint  # imports torch, which nothing else here needs

    opened = open_checkpoint(folder.name, path, look_beside=False)
    with atomic_dir(folder) as new:
        for source, target in _files_of(path):
            (shutil.move if move else shutil.copyfile)(source, new / target)
        size = sum(file.stat().st_size for file in new.iterdir())
        info = {
            "architecture": opened.config.architecture,
            "image_size": opened.config.image_size,
            "size_bytes": size,
            "licence": str(opened.card.get("licence", "unknown")),
            "description": str(opened.card.get("description", "")),
            "sha256": opened.sha256,
            "parameters": sum(parameter.numel() for parameter in opened.network.parameters()),
        }
        (new / INFO_NAME).write_text(json.dumps(info, indent=1), encoding="utf-8")


def remove_model(name: str) -> None:
    """Delete an added or downloaded model from the user's models.

    Raises
    ------
    CheckpointError
        When no such model was added.
    WriteError
        When it cannot be deleted.
    """
    if name not in [info.name for info in list_models() if info.origin == "added"]:
        raise CheckpointError(f"No model called {name!r} was added", fix="See `uniultra weights list`")
    folder = models_folder() / name
    doomed = folder.with_name(f".{uuid.uuid4().hex[:12]}.partial")  # gone at once, however long deleting takes
    try:
        os.replace(folder, doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise write_error(folder, error) from error


def download_model(
    name: str, progress: Callable[[int, int], None] | None = None, source: Download | None = None
) -> ModelInfo:
    """Download official SAM2 weights (by Meta, Apache-2.0), check them and add them.

    A download that was cut short goes on where it stopped when it is asked for again.

    Parameters
    ----------
    name : str
        One of the eight official sizes, such as "sam2.1-tiny".
    progress : callable, optional
        Called with the bytes there are and the bytes in all. What it raises stops the download.
    source : Download, optional
        Another place to get the same model from, such as a mirror.

    Raises
    ------
    ResourceError
        When there is no network, the server does not answer, or the disk is full.
    CheckpointError
        When there is no such download, or what came is not what was expected.
    WriteError
        When it cannot be written.
    """
    if name not in DOWNLOADS:
        raise CheckpointError(f"{name!r} cannot be downloaded", fix=f"Choose one of {', '.join(DOWNLOADS)}")
    check_new_name(name, is_download=True)
    file = fetch(source or DOWNLOADS[name], _download_target(name), progress)
    try:
        pack_model(file, models_folder() / name, move=True)
    except CheckpointError:  # it is another model; whatever else went wrong, the file need not come again
        file.unlink(missing_ok=True)
        raise
    finally:
        with suppress(OSError):
            file.parent.rmdir()  # unless it is still there
    return find_model(name)


def bytes_received(name: str) -> int:
    """How much of a download is there already, from an earlier try that was cut short; it goes on from there."""
    return received(_download_target(name))


def _download_target(name: str) -> Path:
    return models_folder().parent / "downloads" / name / "model.pt"


def _files_of(path: Path) -> list[tuple[Path, str]]:
    """What to copy of a checkpoint that has been read: the files, and their names in the model's folder."""
    if not path.is_dir():
        return [(path, "model.pt" if is_torch_file(path) else "model.safetensors")]
    index = json.loads((path / INDEX_NAME).read_bytes())
    return [(path / name, name) for name in (INDEX_NAME, *(shard["file"] for shard in index["shards"]))]
