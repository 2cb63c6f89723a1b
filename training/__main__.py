"""``python -m napari_uniultra.training CONFIG.yaml``: run, or go on with, one stage."""

from __future__ import annotations

import sys

import torch

from napari_uniultra.errors import UniUltraError
from napari_uniultra.training.config import TrainConfig
from napari_uniultra.training.trainer import Trainer


def main(arguments: list[str]) -> int:
    """0 when the stage is done or was stopped, 2 for a usage or configuration error."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m napari_uniultra.training CONFIG.yaml\n")
        return 2
    torch.set_num_threads(1)  # measured: two threads are no faster at these sizes
    try:
        Trainer(TrainConfig.from_yaml(arguments[0])).run(on_step=_show)
    except UniUltraError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _show(line: dict[str, object]) -> None:
    sys.stdout.write(f"step {line['step']}: loss {line['loss']}, {line['seconds']:.0f} s, Dice {line['dice']}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
