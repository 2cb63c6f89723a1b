"""From a training run to a model in the package: averaged weights as fp16 shards, with their card.

``python -m napari_uniultra.training.export RUN CARD.yaml FOLDER [INPUT_SIZE [SCORES.csv]]``
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from napari_uniultra.errors import ConfigError, ReadError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.fit import load_into
from napari_uniultra.model.preprocess import MEAN, STD
from napari_uniultra.model.zoo import pack_model
from napari_uniultra.training.calibrate import calibrate
from napari_uniultra.training.checkpoints import CHECKPOINT, load_training_checkpoint
from napari_uniultra.training.tool import run_tool

MAX_SHARD_BYTES = 14_500_000


def export_model(
    run: str | Path,
    card: Mapping[str, Any],
    folder: str | Path,
    image_size: int | None = None,
    scores: str | Path | None = None,
) -> None:
    """Write a run's averaged weights into a model folder, replacing the weights there; other files in it stay.

    Parameters
    ----------
    run : path
        A training run's folder.
    card : mapping
        Description, data, licence, intended use.
    folder : path
    image_size : int, optional
        The input size to ship with, if not the size of training.
    scores : path, optional
        The ``scores.csv`` of an evaluation of what was exported without it, on cases that nothing is reported of:
        the predicted IoU is calibrated to it.

    Raises
    ------
    CheckpointError, ReadError, WriteError
    """
    state = load_training_checkpoint(Path(run) / CHECKPOINT)
    config = ModelConfig.from_dict(state["model_config"]).with_(**({"image_size": image_size} if image_size else {}))
    if scores is not None:
        calibration = calibrate(scores)
        config = config.with_(prompted_iou=calibration.prompted, tracked_iou=calibration.tracked)
    load_into(build_network(config), state["average"])  # refuses a run whose method added parts to the network
    card = {**card, "normalisation": {"mean": list(MEAN), "std": list(STD)}}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        shards, packed = Path(scratch) / "shards", Path(scratch) / folder.name
        save_checkpoint(shards, state["average"], config, card, dtype="fp16", max_shard_bytes=MAX_SHARD_BYTES)
        pack_model(shards, packed)
        for file in packed.iterdir():
            os.replace(file, folder / file.name)


def main(arguments: list[str]) -> int:
    """The exit code of `run_tool`."""
    usage = "export RUN CARD.yaml FOLDER [INPUT_SIZE [SCORES.csv]]"
    return run_tool(usage, len(arguments) in (3, 4, 5), lambda: _export(*arguments))


def _export(run: str, card: str, folder: str, image_size: str | None = None, scores: str | None = None) -> None:
    export_model(run, _read_card(card), folder, None if image_size is None else _read_size(image_size), scores)


def _read_card(path: str) -> Any:
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReadError(f"The card {path} cannot be read", str(error), "Name a YAML file") from error


def _read_size(words: str) -> int:
    if not words.isdecimal():
        raise ConfigError(f"The input size is {words!r}", fix="Give a number of pixels, such as 512")
    return int(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
