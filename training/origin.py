"""What a run begins with: settings, cases and processes. It goes on only with the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_uniultra.core.settings import ConfigError, flat, to_dict
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.importers import open_manifests
from napari_uniultra.training.places import PLACES, leads_to
from napari_uniultra.training.task import TaskConfig

# What may differ when a run goes on: it changes what is written when, or how far the run goes, but no step done so far.
_HARMLESS = (
    "output",
    "data.workers",
    "run.steps",
    "run.device",
    "run.threads",
    "run.activation_checkpointing",
    "run.log_every",
    "run.save_every",
    "run.validate_every",
    "run.validation_cases",
    "run.validation_frames",
    "run.overlays",
    "run.monitor",
    "run.keep",
    "run.early_stopping",
    "run.max_minutes",
    "run.bad_steps",
)
_MANIFESTS = "data.manifests"
_FIX = "Put them back, begin anew with --restart, or choose another output"


def origin_of(config: TaskConfig, processes: int) -> dict[str, Any]:
    """What a run begins with, as its checkpoint keeps it.

    ``config`` has paths as they were given, relative to ``working_folder``; ``cases`` is a digest of the train and val
    parts.

    Raises
    ------
    ReadError
        When a manifest cannot be used.
    """
    cases = [case for case in open_manifests(config.data.manifests).cases if case.part in ("train", "val")]
    return {
        "config": to_dict(config),
        "processes": processes,
        "working_folder": os.getcwd(),
        "cases": _digest(cases),
    }


def check_origin(before: Mapping[str, Any], now: Mapping[str, Any], folder: str | Path) -> None:
    """Refuse to go on with a run under other settings, or with other cases.

    Parameters
    ----------
    before, now : mapping
        As of `origin_of`. Older checkpoints have no ``cases``: then the manifests have to be the same files.
    folder : path
        The run's.

    Raises
    ------
    ConfigError
        Naming every setting that differs and matters.
    """
    knows_cases = "cases" in before
    old, new = ({"processes": origin["processes"], **flat(origin["config"])} for origin in (before, now))
    names = (old.keys() | new.keys()) - {*_HARMLESS, *([_MANIFESTS] if knows_cases else [])}
    folders = before.get("working_folder", now["working_folder"]), now["working_folder"]
    changed = [name for name in sorted(names) if _differ(name, (old.get(name), new.get(name)), folders)]
    if changed:
        listed = "; ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in changed)
        raise ConfigError(f"The run in {folder} began with other settings", listed, _FIX)
    if knows_cases and before["cases"] != now["cases"]:
        why = f"what {_MANIFESTS} list in the parts train and val has changed"
        raise ConfigError(f"The run in {folder} began with other cases", why, _FIX)


def _differ(name: str, values: tuple[Any, Any], folders: tuple[str, str]) -> bool:
    """Whether two values of a setting do; paths may be written in two ways, and a project may be moved."""
    if values[0] == values[1] or name.rpartition(".")[2] not in PLACES:
        return values[0] != values[1]
    return leads_to(values[0], folders[0]) != leads_to(values[1], folders[1])


def _digest(cases: Sequence[Case]) -> str:
    """Hex SHA-256 of what is said of cases, wherever the folder lies that holds them all."""
    folder = _common_folder([os.path.abspath(path) for case in cases for path in (case.frames, *case.masks)])
    told = [_told(case, folder) for case in cases]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _told(case: Case, folder: str) -> list[Any]:
    paths = [Path(os.path.abspath(path)).as_posix().removeprefix(folder) for path in (case.frames, *case.masks)]
    labels = sorted(case.labels.items())
    return [case.name, case.subject, case.source, case.part, case.spacing_mm, labels, case.separate, *paths]


def _common_folder(paths: Sequence[str]) -> str:
    try:
        return Path(os.path.commonpath(paths)).as_posix() if paths else ""
    except ValueError:  # several drives
        return ""
