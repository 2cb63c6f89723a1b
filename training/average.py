"""The mean of runs' averaged weights, as a run of its own: steadier in tracking than any of them.

Usage: ``python -m napari_uniultra.training.average RUN RUN [RUN ...] OUTPUT``. A run named twice counts twice.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from napari_uniultra.errors import CheckpointError
from napari_uniultra.training.checkpoints import CHECKPOINT, load_training_checkpoint, save_training_checkpoint
from napari_uniultra.training.tool import run_tool


def average_runs(runs: Sequence[str | Path], output: str | Path) -> None:
    """Write a run folder whose averaged weights are the mean of those of runs of the same network.

    All else in it is the last run's.

    Raises
    ------
    CheckpointError, WriteError
    """
    states = [load_training_checkpoint(Path(run) / CHECKPOINT) for run in runs]
    weights = [state["average"] for state in states]
    if any({k: v.shape for k, v in own.items()} != {k: v.shape for k, v in weights[0].items()} for own in weights):
        raise CheckpointError("The runs trained different networks", fix="Average runs of the same preset series")
    mean = {
        name: sum(own[name] for own in weights) / len(weights) if value.is_floating_point() else value
        for name, value in weights[0].items()
    }
    save_training_checkpoint(Path(output) / CHECKPOINT, {**states[-1], "average": mean})


def main(arguments: list[str]) -> int:
    """The exit code of `run_tool`."""
    usage = "average RUN RUN [RUN ...] OUTPUT"
    return run_tool(usage, len(arguments) >= 3, lambda: average_runs(arguments[:-1], arguments[-1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
