"""The state of a run on disk: written whole or not at all, and read as data; and what else a run writes and deletes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch

from napari_uniultra.core.atomic import atomic_path, write_error
from napari_uniultra.core.settings import ConfigError
from napari_uniultra.errors import CheckpointError
from napari_uniultra.training.layout import (
    ADAPTER,
    CHECKPOINT,
    EVENTS,
    JOINT,
    MATCHED,
    MODEL,
    OVERLAYS,
    SETTINGS,
    STUDENT,
    TENSORBOARD,
)

_WRITTEN = (CHECKPOINT, SETTINGS, EVENTS, MODEL, ADAPTER, STUDENT, OVERLAYS, TENSORBOARD)
_OF_DISTILLATION = (JOINT, MATCHED)  # in this order: the second says that the first is no folder of somebody else's


def save_training_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a run's state in place of an older one.

    Raises
    ------
    WriteError
        When the disk is full or refuses; the older file is still there then.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        stream = _Remembering(file)
        try:
            torch.save(dict(state), stream)
        except RuntimeError as error:  # torch puts its own in place of the operating system's
            raise (stream.error or error) from error


def load_training_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `save_training_checkpoint` wrote, on the CPU.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or holds more than data.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no training checkpoint {path}") from error
    except (RuntimeError, EOFError, ValueError, UnpicklingError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"The training checkpoint {path} cannot be read", reason, "Begin anew with --restart"
        ) from error


def remove_run(folder: str | Path) -> None:
    """Delete a run's state, progress and exports; files that a run does not write stay.

    Raises
    ------
    WriteError
    """
    try:
        for path in _written(Path(folder)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def check_spared(sources: Iterable[str], folder: str | Path) -> None:
    """Refuse a run that would delete or replace a model that it begins with.

    Raises
    ------
    ConfigError
    """
    written = {path.resolve() for path in _written(Path(folder))}
    for source in sources:
        path = Path(source).resolve()
        if path == Path(folder).resolve() or not written.isdisjoint((path, *path.parents)):
            raise ConfigError(
                f"{source} lies in the output folder {folder}",
                "the run would replace it, or delete it with --restart",
                "Choose another output",
            )


def check_own(folder: str | Path) -> None:
    """Refuse a folder in which a run would replace files that no run made.

    Raises
    ------
    ConfigError
    """
    folder = Path(folder)
    if (folder / EVENTS).exists() or (folder / CHECKPOINT).exists():
        return
    foreign = [path.name for path in _written(folder) if path.exists()]
    if foreign:
        raise ConfigError(
            f"The output folder {folder} holds {', '.join(foreign)}",
            "no training made it there, and this one would replace it",
            "Choose another output, or move it away",
        )


def _written(folder: Path) -> list[Path]:
    """What a run in a folder has written, or may write."""
    more = _OF_DISTILLATION if (folder / MATCHED).is_file() else ()
    return [folder / name for name in (*_WRITTEN, *more)]


class _Remembering:
    """A file to write to that remembers why writing failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()
