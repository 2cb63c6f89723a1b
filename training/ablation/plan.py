"""From a table's rows to models to make: complete settings, each with a fingerprint that tells when it was made."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import ceil
from typing import Any

from napari_uniultra import __version__
from napari_uniultra.core.settings import ConfigError, read_settings, to_dict
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.catalogue import model_sha256
from napari_uniultra.training.ablation.presets import (
    Recipe,
    RowSettings,
    TableSettings,
    read_data_sets,
    read_quick,
    read_recipes,
)
from napari_uniultra.training.config import FineTuneConfig
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.manifest import Manifest
from napari_uniultra.training.distillation.config import DistillConfig

Settings = FineTuneConfig | DistillConfig
_CLASSES: dict[str, type] = {"base": FineTuneConfig, "finetune": FineTuneConfig, "distil": DistillConfig}
_PLACE = "."  # stands for the output folder, the manifest and the teacher's file until they are known


@dataclass(frozen=True)
class Asked:
    """What a user asks of all tables.

    Attributes
    ----------
    manifest : Manifest
        All cases; see `training_cases`.
    part : str
        The part of the data to score.
    start : str or None
        A checkpoint that stands for every model to start from, as `quick.quick_start` gives it, which makes this a
        quick run; None for the presets' own.
    device : str
    changes : mapping
        Settings, by dotted name, that replace those of the presets.
    """

    manifest: Manifest
    part: str = "test"
    start: str | None = None
    device: str = "auto"
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_quick(self) -> bool:
        """Whether the numbers mean nothing."""
        return self.start is not None


@dataclass(frozen=True)
class Plan:
    """A model to make.

    Attributes
    ----------
    recipe : str
    kind : {"base", "finetune", "distil"}
    settings : FineTuneConfig or DistillConfig
        Complete but for the output folder and the teacher's file.
    teacher : Plan or None
    fingerprint : str
        Hex; of all that decides the result: settings, data, teacher, version.
    """

    recipe: str
    kind: str
    settings: Settings
    teacher: Plan | None
    fingerprint: str

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.recipe}-{self.fingerprint[:12]}"


def plan_row(row: RowSettings, asked: Asked) -> Plan | None:
    """The model of a row; None where it is another tool's.

    Raises
    ------
    ConfigError
        When the changes name a setting that there is not.
    """
    return None if row.model is None else _plan(row.model, row.change, asked)


def plans_of(table: TableSettings, asked: Asked) -> list[Plan]:
    """Every model that a table needs, teachers before their students, each once."""
    found: dict[str, Plan] = {}
    for row in table.rows:
        plan = plan_row(row, asked)
        for needed in (plan and plan.teacher, plan):
            if needed is not None:
                found.setdefault(needed.fingerprint, needed)
    return list(found.values())


def training_cases(manifest: Manifest, *parts: str) -> list[Case]:
    """What is trained and validated on: of the paper's internal data sets, or of all where the data hold none of them.

    Parameters
    ----------
    *parts : str
        Train and val when there are none.
    """
    internal = {own.source for own in read_data_sets().values() if not own.external}
    cases = [case for case in manifest.cases if case.part in (parts or ("train", "val"))]
    return [case for case in cases if case.source in internal] or cases


def _plan(name: str, change: Mapping[str, Any], asked: Asked) -> Plan:
    recipe = read_recipes()[name]
    teacher = _plan(recipe.teacher, {}, asked) if recipe.teacher else None
    settings = _settings(recipe, change, asked)
    return Plan(name, recipe.kind, settings, teacher, _fingerprint(recipe.kind, settings, teacher, asked))


def _settings(recipe: Recipe, change: Mapping[str, Any], asked: Asked) -> Settings:
    kind = _CLASSES[recipe.kind]
    values: dict[str, Any] = copy.deepcopy(dict(recipe.config))
    values["output"] = _PLACE
    quick = read_quick()[recipe.kind] if asked.is_quick else {}
    own = {"data.manifests": [_PLACE], "run.device": asked.device}
    for name, value in {**own, **quick, **change, **_fitting(asked.changes, kind)}.items():
        _set(values, name, value)
    if kind is DistillConfig:
        _set(values, "teacher.checkpoint", _PLACE)
    elif asked.start is not None:
        values["model"] = {"base": asked.start}
    if recipe.epochs:
        _set_length(values, recipe.epochs, len(training_cases(asked.manifest, "train")))
    return read_settings(kind, values)


def _set(values: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[last] = value


def _fitting(changes: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The changes whose group this kind of run has; the user means every run that has it."""
    groups = {own: {item.name for item in fields(own)} for own in _CLASSES.values()}
    for name in changes:
        if not any(name.split(".")[0] in known for known in groups.values()):
            listed = ", ".join(sorted(set.union(*groups.values())))
            raise ConfigError(f"There is no setting called {name!r}", fix=f"Its first part is one of {listed}")
    return {name: value for name, value in changes.items() if name.split(".")[0] in groups[kind]}


def _set_length(values: dict[str, Any], epochs: int, cases: int) -> None:
    """Steps from epochs; the learning rate falls, and the run is validated, by the epoch. What is given stays."""
    run, data, optimiser = (values.setdefault(name, {}) for name in ("run", "data", "optimiser"))
    an_epoch = max(ceil(cases / (data.get("batch", 8) * run.get("accumulate", 1))), 1)
    run.setdefault("steps", epochs * an_epoch)
    run.setdefault("validate_every", an_epoch)
    run.setdefault("save_every", an_epoch)
    optimiser.setdefault("decay_every", an_epoch)


def _fingerprint(kind: str, settings: Settings, teacher: Plan | None, asked: Asked) -> str:
    values = to_dict(settings)
    for name in ("device", "threads"):
        values["run"].pop(name)
    values["data"].pop("manifests")
    cases = [repr(case) for case in training_cases(asked.manifest)] if kind != "base" else []
    if teacher is None:
        values["model"]["base"] = _weights(values["model"]["base"])
    parts = [__version__, kind, values, cases, teacher.fingerprint if teacher else None]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _weights(base: str | None) -> str | None:
    """What tells weights apart: their SHA-256, or a name where they are not on this machine yet."""
    try:
        return None if base is None else model_sha256(base)
    except CheckpointError:
        return base
