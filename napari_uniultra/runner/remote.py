"""A run for another computer: a folder with settings, data and the command, whose events can be watched from here."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_uniultra.core.atomic import atomic_dir
from napari_uniultra.core.settings import write_file
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.catalogue import find_model
from napari_uniultra.runner.data import MANIFEST
from napari_uniultra.runner.registry import add_folder
from napari_uniultra.runner.run import CONFIG, DATA, FINE_TUNE, Run
from napari_uniultra.training.data.importers import open_manifests
from napari_uniultra.training.data.manifest import write_manifest

COMMAND, BASE = "train.sh", "base"
_README = """\
A training for another computer, written by napari-uniultra.

1. Copy this folder there, or keep it on a disk that both computers see.
2. There, in an environment with napari-uniultra: sh train.sh
   The same command goes on after a stop. A file called STOP in this folder stops it, with a checkpoint.
3. The result is {result}. Progress is in events.jsonl: the panel Train watches it where it sees this folder.
{more}
Research use only: not a medical device.
"""


def write_remote(run: Run, folder: str | Path) -> tuple[Run, tuple[str, ...]]:
    """Write a draft's settings, data and command into a new folder, and put that on the list of runs.

    Data that were made for the run are copied with it. Others are named where they are: the other computer has to see
    them under the same path.

    Returns
    -------
    Run
        The one in the new folder.
    warnings : tuple of str

    Raises
    ------
    CheckpointError, ConfigError, ReadError, WriteError
    """
    folder, config, info = Path(folder).absolute(), run.config(), run.info
    manifest = open_manifests(config.data.manifests)
    is_within = all(case.frames.is_relative_to(run.folder.resolve()) for case in manifest.cases)
    warnings = () if is_within else ("The images stay where they are: the other computer must see the same paths.",)
    with atomic_dir(folder) as new:
        if is_within:
            shutil.copytree(run.folder / DATA, new / DATA)
        else:
            write_manifest(manifest, new / DATA / MANIFEST)
        config = replace(config, output=".", data=replace(config.data, manifests=(f"{DATA}/{MANIFEST}",)))
        write_file(_with_base(config, info.kind, new), new / CONFIG)
        (new / COMMAND).write_text(_command(info.kind, info.processes), encoding="utf-8", newline="\n")
        result = "model.safetensors" if info.kind == FINE_TUNE else "student.safetensors"
        readme = _README.format(result=result, more="\n".join(warnings))
        (new / "README.txt").write_text(readme, encoding="utf-8")
        Run(new).write_info(replace(info, is_draft=False, is_remote=True))
    return add_folder(folder), warnings


def _command(kind: str, processes: int) -> str:
    torchrun = f"torchrun --standalone --nproc-per-node {processes} --no-python " if processes > 1 else ""
    return f'#!/bin/sh\ncd "$(dirname "$0")" && {torchrun}uniultra {kind} {CONFIG}\n'


def _with_base(config: Any, kind: str, folder: Path) -> Any:
    """The settings with the model to start from beside them, where it is a file of this computer."""
    group, name = ("model", "base") if kind == FINE_TUNE else ("teacher", "checkpoint")
    settings = getattr(config, group)
    path = _own_file(getattr(settings, name))
    if path is None:
        return config
    target = folder / (BASE if path.is_dir() else f"{BASE}{path.suffix}")
    if path.is_dir():
        shutil.copytree(path, target, copy_function=shutil.copyfile)  # files of its own, which are not read-only
    else:
        shutil.copyfile(path, target)
    return replace(config, **{group: replace(settings, **{name: target.name})})


def _own_file(base: str | None) -> Path | None:
    """The file or folder of a model that only this computer has."""
    if base is None:
        return None
    if Path(base).exists():
        return Path(base)
    try:
        info = find_model(base)
    except CheckpointError:
        return None  # the other computer may know it
    return info.path if info.origin == "added" else None
