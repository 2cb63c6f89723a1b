"""A run is a folder. What it is and how it stands is read from what lies there, by whoever looks.

=============== =================================================================================================
``run.json``    what it is (`RunInfo`)
``config.yaml`` its settings, as ``uniultra train`` and ``uniultra distill`` read them
``data/``       manifest, images and masks, where they were made for it
``job.json``    the process that waits for its turn and then trains
``result.json`` how that process ended
``log.txt``     what it said
=============== =================================================================================================

Beside these lie the trainer's own files (`training.layout`). A folder that holds these alone is a run that was started
from a shell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from napari_uniultra.core.atomic import atomic_path, write_error
from napari_uniultra.core.lock import LOCK, owner
from napari_uniultra.core.process import Process, is_here, is_of, is_running
from napari_uniultra.core.settings import read_settings
from napari_uniultra.core.stop_file import STOP
from napari_uniultra.errors import ConfigError
from napari_uniultra.runner.history import Follower, last_events
from napari_uniultra.runner.place import slot_folder
from napari_uniultra.training.config import FineTuneConfig
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.training.ending import Ending
from napari_uniultra.training.layout import ADAPTER, CHECKPOINT, EVENTS, JOINT, MODEL, SETTINGS, STUDENT
from napari_uniultra.training.places import absolute

INFO, CONFIG, DATA, JOB, RESULT, LOG = "run.json", "config.yaml", "data", "job.json", "result.json", "log.txt"
FINE_TUNE, DISTIL = "train", "distill"  # as the commands are called
KINDS: dict[str, type] = {FINE_TUNE: FineTuneConfig, DISTIL: DistillConfig}
_RESERVED = 8192  # bytes for the result, taken while there is space: the disk may be full when it is wanted
_SILENT = (
    "The training process ended without a word: it was ended from outside, often because memory ran out, or the "
    "computer was switched off. Resume goes on from the last checkpoint."
)


class State(Enum):
    """How a run stands, in words for a list."""

    NEW = "not started"
    QUEUED = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"
    UNREADABLE = "cannot be read"

    @property
    def is_active(self) -> bool:
        """Whether a process belongs to it."""
        return self in (State.QUEUED, State.STARTING, State.RUNNING, State.STOPPING)

    @property
    def may_change(self) -> bool:
        """Whether it may become another one while no file of the run changes."""
        return self.is_active or self is State.UNREADABLE


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Attributes
    ----------
    state : State
    words : str
        The reason for it, where there is something to say.
    step : int
        Done in the stage that runs or ran last.
    host : str
        The computer that its process runs on, where that is another one.
    """

    state: State
    words: str = ""
    step: int = 0
    host: str = ""

    @property
    def is_active_here(self) -> bool:
        """Whether a process of this computer belongs to the run."""
        return self.state.is_active and not self.host


@dataclass(frozen=True)
class RunInfo:
    """What a run is.

    Attributes
    ----------
    title : str
        What its maker calls it.
    kind : str
        ``train`` or ``distill``.
    created : str
        ISO 8601, UTC.
    processes : int
        Graphics cards to train on, each in a process of its own.
    is_draft : bool
        Whether it was only looked at, and never started.
    is_remote : bool
        Whether it trains on another computer.
    warnings : tuple of str
        What its maker was told of its data.
    """

    title: str
    kind: str = FINE_TUNE
    created: str = ""
    processes: int = 1
    is_draft: bool = False
    is_remote: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A run by its folder; all else is read when it is asked for."""

    folder: Path

    @property
    def info(self) -> RunInfo:
        """What it is; of a run from a shell, what can be told."""
        values = read_json(self.folder / INFO)
        known = {name: values[name] for name in RunInfo.__dataclass_fields__ if name in values}
        if "title" in known:
            return RunInfo(**{**known, "warnings": tuple(known.get("warnings", ()))})
        kind = DISTIL if "teacher" in self.settings_values() else FINE_TUNE
        return RunInfo(self.folder.name, kind, _date_of(self.folder))

    def write_info(self, info: RunInfo) -> None:
        """
        Raises
        ------
        WriteError
        """
        write_json(self.folder / INFO, asdict(info))

    def config(self) -> FineTuneConfig | DistillConfig:
        """Its settings, with absolute paths; the output is its folder, from wherever it was started.

        Raises
        ------
        ConfigError
            When there are none, or they do not fit this version.
        """
        values = self.settings_values()
        if not values:
            raise ConfigError(f"The run {self.folder.name} has no settings file", fix="Start it with this version")
        config = read_settings(KINDS[self.info.kind], values)
        return replace(absolute(config, self.folder), output=str(self.folder))

    def settings_values(self) -> dict[str, Any]:
        """Its settings as they stand in the file, unchecked; empty where there are none."""
        for name in (CONFIG, SETTINGS):
            try:
                values = yaml.safe_load((self.folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError, yaml.YAMLError):
                continue
            if isinstance(values, dict):
                return values
        return {}

    @property
    def stages(self) -> tuple[Path, ...]:
        """The folders in which it trains, one after the other."""
        joint = self.folder / JOINT
        return (self.folder, joint) if os.path.isdir(joint) else (self.folder,)

    @property
    def model(self) -> Path | None:
        """The file that a user wants of it: the student, the whole model, or the adapter; None before there is one."""
        paths = (self.folder / name for name in (STUDENT, MODEL, ADAPTER))
        return next((path for path in paths if os.path.isfile(path)), None)

    @property
    def can_resume(self) -> bool:
        """Whether it can be started, or go on."""
        info = self.info
        begun = any(os.path.isfile(self.folder / name) for name in (CONFIG, CHECKPOINT))
        return begun and not info.is_remote and self.status().state in (State.NEW, State.STOPPED, State.FAILED)

    def follower(self) -> Follower:
        """What reads its history."""
        joint = self.settings_values().get("joint")
        return Follower(self.folder, int(joint.get("steps") or 0) if isinstance(joint, dict) else 0)

    def status(self) -> Status:
        """How it stands now, as far as its folder can be read."""
        try:
            return self._status()
        except OSError as error:
            return Status(State.UNREADABLE, f"{error.filename or self.folder} cannot be read: {error.strerror}")

    def _status(self) -> Status:
        events = last_events(self.stages[-1]) or last_events(self.folder)
        step = events[-1]["step"] if events else 0
        for path, process in self.processes():
            state = self._active(path, process)
            if is_here(process):
                return Status(state, step=step)
            host = str(process["host"])
            words = f"On {host}, as far as can be told; if it runs there no more, remove {path}"
            return Status(state, words, step, host)
        return self._ended(events, read_json(self.folder / JOB), step)

    def processes(self) -> Iterator[tuple[Path, Process]]:
        """The living processes of the run, as far as can be told: those that train, then the one that may still wait.

        Each comes with the file that names it.

        Raises
        ------
        OSError
            When such a file cannot be read.
        """
        for stage in self.stages:
            process = owner(stage)
            if process is not None:
                yield stage / LOCK, process
        job = read_json(self.folder / JOB)
        if "pid" in job and "host" in job and is_running(job):
            yield self.folder / JOB, job

    def _active(self, path: Path, process: Process) -> State:
        """What a run is at whose process is named by a file."""
        if any((stage / STOP).exists() for stage in self.stages):
            return State.STOPPING
        if path.name == LOCK:
            return State.RUNNING
        at_work = owner(slot_folder())
        return State.STARTING if at_work is not None and is_of(at_work, process) else State.QUEUED

    def reserve_result(self) -> None:
        """Take the space for `write_result`, and forget an earlier result.

        Raises
        ------
        WriteError
        """
        path = self.folder / RESULT
        try:
            path.write_bytes(b" " * _RESERVED)
        except OSError as error:
            raise write_error(path, error) from error

    def write_result(self, state: State, words: str) -> None:
        """Note how the run's process ended, where space for it was reserved."""
        text = json.dumps({"state": state.value, "words": words[: _RESERVED // 8], "time": now()}).encode()
        with suppress(OSError), open(self.folder / RESULT, "rb+") as file:
            file.write(text.ljust(_RESERVED))

    def _ended(self, events: list[dict[str, Any]], job: dict[str, Any], step: int) -> Status:
        """Of a run without a process: the newest of what its job and its events say."""
        result = read_json(self.folder / RESULT)
        latest = events[-1] if events else None
        said = next((event for event in reversed(events) if event["event"] in ("start", "end", "error")), latest)
        if result and (said is None or said.get("time", "") <= result.get("time", "")):
            return Status(State(result["state"]), result.get("words", ""), step)
        if job and (said is None or said.get("time", "") < job.get("queued", "")):
            return Status(State.FAILED, _SILENT, step)
        if said is None:
            return Status(State.NEW)
        if said["event"] == "error":
            return Status(State.FAILED, str(said.get("text", "")), step)
        if said["event"] == "end":
            return Status(*ending(str(said.get("reason", ""))), step)
        if self.info.is_remote:
            return Status(State.RUNNING, step=step, host="another computer")
        return Status(State.FAILED, _SILENT, step)


def ending(reason: str) -> tuple[State, str]:
    """What a trainer's reason to end means; one of a later version is told as it is."""
    try:
        known = Ending(reason)
    except ValueError:
        return State.STOPPED, reason
    return (State.DONE if known.is_complete else State.STOPPED), known.words


def now() -> str:
    """The time as events have it: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_json(path: Path, values: dict[str, Any]) -> None:
    """
    Raises
    ------
    WriteError
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _date_of(folder: Path) -> str:
    """When a folder's run last said something."""
    for path in (folder / EVENTS, folder):
        try:
            return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        except OSError:
            continue
    return ""
