"""The runs that a user has: those in the folder of runs, and further folders that were added to the list."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from napari_uniultra.core.atomic import write_error
from napari_uniultra.core.process import is_running, this_process
from napari_uniultra.errors import ReadError, WriteError
from napari_uniultra.runner.place import runs_folder
from napari_uniultra.runner.run import INFO, Run, RunInfo, State, now, read_json, write_json
from napari_uniultra.training.layout import CHECKPOINT, EVENTS

_ADDED, _MAKER = "folders.json", "draft.json"


def list_runs() -> list[Run]:
    """All runs but drafts, the newest first."""
    own = runs_folder()
    folders = [path for path in own.iterdir() if os.path.isfile(path / INFO)] if own.is_dir() else []
    added = [path for path in _added() if os.path.isdir(path)]  # a disk that is not there may come back
    runs = [Run(path) for path in (*folders, *added)]
    return sorted((run for run in runs if not run.info.is_draft), key=lambda run: run.info.created, reverse=True)


def new_run(info: RunInfo) -> Run:
    """A folder for a run, which is a draft until it is started.

    Its name tells the time and nothing else.

    Raises
    ------
    WriteError
    """
    parent, stamp = runs_folder(), datetime.now().strftime("run-%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise write_error(folder, error) from error
        run = Run(folder)
        run.write_info(replace(info, created=now(), is_draft=True))
        write_json(folder / _MAKER, this_process())
        return run
    raise WriteError(f"{parent} takes no further run")


def keep_draft(run: Run) -> None:
    """Make a draft a run.

    Raises
    ------
    WriteError
    """
    run.write_info(replace(run.info, is_draft=False))
    (run.folder / _MAKER).unlink(missing_ok=True)


def remove_draft(run: Run) -> None:
    """Delete a draft; a run that was started meanwhile stays."""
    if run.info.is_draft:
        shutil.rmtree(run.folder, ignore_errors=True)


def remove_drafts() -> None:
    """Delete drafts whose makers are gone."""
    parent = runs_folder()
    for folder in parent.iterdir() if parent.is_dir() else ():
        maker = read_json(folder / _MAKER)
        if maker and not is_running(maker):
            remove_draft(Run(folder))


def add_folder(folder: str | Path) -> Run:
    """Put a run that lies elsewhere on the list.

    Raises
    ------
    ReadError
        When the folder holds no run.
    WriteError
    """
    folder = Path(folder).absolute()
    if not any(os.path.exists(folder / name) for name in (INFO, EVENTS, CHECKPOINT)):
        raise ReadError(f"{folder} is no folder of a run", f"it has no {EVENTS}", "Choose the output folder of a run")
    if folder not in _added() and folder.parent != runs_folder():
        _write_added([*_added(), folder])
    return Run(folder)


def delete_run(run: Run) -> None:
    """Delete a run of this computer with all that it made; one that was added only leaves the list.

    Raises
    ------
    WriteError
        When it is running or cannot be read, another run needs its data or its model, or cannot be read, or the system
        refuses.
    """
    if run.folder in _added():
        _write_added([path for path in _added() if path != run.folder])
        return
    status = run.status()
    if status.state.is_active:
        raise WriteError(f"{run.info.title} is running", fix="Stop it first")
    if status.state is State.UNREADABLE:
        raise WriteError(f"{run.info.title} cannot be deleted", status.words, "It may be running: check its folder")
    for other in list_runs():
        why = "" if other == run else _needs(other, run.folder)
        if why:
            raise WriteError(f"{run.info.title} cannot be deleted", f"{other.info.title} {why}", "Delete that first")
    try:
        shutil.rmtree(run.folder)
    except OSError as error:
        raise write_error(run.folder, error) from error


def _needs(run: Run, folder: Path) -> str:
    """What a run needs of a folder, in words; "" for nothing."""
    if run.status().state is State.UNREADABLE:
        return "cannot be read, and may need it"
    values = run.settings_values()
    data, model, teacher = (values.get(group) or {} for group in ("data", "model", "teacher"))
    needs = {
        "learns from its data": data.get("manifests") or (),
        "starts from its model": [model.get("base")],
        "learns from its model": [teacher.get("checkpoint")],
    }
    return next((why for why, paths in needs.items() if any(_lies_in(path, folder) for path in paths)), "")


def _lies_in(path: object, folder: Path) -> bool:
    return isinstance(path, str) and Path(path).is_relative_to(folder)


def _added() -> list[Path]:
    return [Path(path) for path in read_json(runs_folder() / _ADDED).get("folders", [])]


def _write_added(folders: list[Path]) -> None:
    write_json(runs_folder() / _ADDED, {"folders": [str(path) for path in folders]})
