"""The paper's tables and the models that they are about, as presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from napari_uniultra.core.settings import ConfigError, read_settings, setting

TABLES = (*(f"table{number}" for number in range(1, 11)), "fig5", "fig6")
METRICS = ("dice", "iou", "hd")
COLUMNS = (
    "trainable",
    "ratio",
    "encoder_parameters",
    "operations",
    "encoder_multiplications",
    "frames_per_second",
    "memory",
)
KINDS = ("base", "finetune", "distil")


@dataclass(frozen=True)
class RowSettings:
    """One row of a table: a model, how it differs from its recipe, and what the paper has for it."""

    label: str = setting(help="As the paper names it.")
    model: str | None = setting(None, help="A recipe of models.yaml; none for another tool, scored from its masks.")
    change: Mapping[str, Any] = setting(factory=dict, help="Settings, by dotted name, that differ from the recipe's.")
    prompt: str = setting("box", help="Kind of prompt to score with, as `uniultra evaluate` names it.")
    paper: Mapping[str, Any] = setting(
        factory=dict, help="The paper's numbers: by data set, or 'mean', Dice and mIoU in % and HD; by column, one."
    )


@dataclass(frozen=True)
class TableSettings:
    """A table or figure of the paper."""

    title: str = setting(help="For the result.")
    rows: tuple[RowSettings, ...] = setting(help="In the paper's order.")
    data_sets: tuple[str, ...] = setting((), help="The paper's data sets, by the source that a manifest names.")
    metrics: tuple[str, ...] = setting(METRICS, choices=METRICS, help="Metrics for every data set; none to skip them.")
    show: str = setting(
        "data sets", choices=("data sets", "mean"), help="Metrics of each data set, or their mean over all."
    )
    columns: tuple[str, ...] = setting((), choices=COLUMNS, help="Further columns.")
    notes: tuple[str, ...] = setting((), help="What a reader has to know.")


@dataclass(frozen=True)
class Recipe:
    """How a model of the paper is made."""

    kind: str = setting(choices=KINDS, help="A model as it is, a fine-tuned, or a distilled one.")
    config: Mapping[str, Any] = setting(help="As `uniultra train` or `uniultra distill` reads it, without the data.")
    teacher: str | None = setting(None, help="The recipe of a distilled model's teacher.")
    epochs: int = setting(0, low=0, help="Length of the training; the number of steps follows from the data.")


@dataclass(frozen=True)
class DataSet:
    """A data set of the paper."""

    source: str = setting(help="As a manifest names it.")
    object: str | None = setting(None, help="The structure that is scored; none for whole images.")
    external: bool = setting(False, help="Whether nothing is trained on it, and all of it scored.")


def read_table(name: str) -> TableSettings:
    """The preset of a table.

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    if name not in TABLES:
        raise ConfigError(f"There is no table {name!r}", fix=f"Choose one of {', '.join(TABLES)}")
    return read_settings(TableSettings, _read(name), f"{name}.")


def read_recipes() -> dict[str, Recipe]:
    """The models of the tables, by name."""
    return {name: read_settings(Recipe, values, f"{name}.") for name, values in _read("models").items()}


def read_data_sets() -> dict[str, DataSet]:
    """The paper's data sets, by its names for them."""
    return {name: read_settings(DataSet, values, f"{name}.") for name, values in _read("data_sets").items()}


def read_quick() -> dict[str, dict[str, Any]]:
    """What a quick run changes, by kind of recipe: dotted names to values."""
    return _read("quick")


def _read(name: str) -> Any:
    file = files("napari_uniultra.training") / "presets" / "tables" / f"{name}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))
