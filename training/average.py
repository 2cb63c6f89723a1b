"""The mean of two runs' averaged weights, as a run of its own: steadier in tracking than either.

Usage: ``python -m napari_uniultra.training.average RUN RUN OUTPUT``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from napari_uniultra.errors import CheckpointError, UniUltraError
from napari_uniultra.training.checkpoints import CHECKPOINT, load_training_checkpoint, save_training_checkpoint


def average_runs(first: str | Path, second: str | Path, output: str | Path) -> None:
    """Write a run folder whose averaged weights are the mean of those of two runs of the same network.

    Raises
    ------
    CheckpointError, WriteError
    """
    one, other = (load_training_checkpoint(Path(run) / CHECKPOINT) for run in (first, second))
    if {k: v.shape for k, v in one["average"].items()} != {k: v.shape for k, v in other["average"].items()}:
        raise CheckpointError("The two runs trained different networks", fix="Average runs of the same preset series")
    mean = {
        name: (value + other["average"][name]) / 2 if value.is_floating_point() else value
        for name, value in one["average"].items()
    }
    save_training_checkpoint(Path(output) / CHECKPOINT, {**other, "average": mean})


def main(arguments: list[str]) -> int:
    """0, or 2 for a usage error or something that cannot be read or written."""
    if len(arguments) != 3:
        sys.stderr.write("usage: python -m napari_uniultra.training.average RUN RUN OUTPUT\n")
        return 2
    try:
        average_runs(*arguments)
    except UniUltraError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
