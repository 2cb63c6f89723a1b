"""The training itself: in a run's own process, or in each of several that torchrun starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_uniultra.errors import UniUltraError
from napari_uniultra.runner.run import FINE_TUNE, Run
from napari_uniultra.training.ending import Ending

FAILED = "uniultra: "  # what the log's line begins with that says why a process gave up


def train(run: Run) -> Ending:
    """Train by the run's settings, from its checkpoint where there is one.

    Returns
    -------
    Ending
        Why it ended.

    Raises
    ------
    UniUltraError
    """
    config = run.config()
    if run.info.kind == FINE_TUNE:
        from napari_uniultra.training.finetune import FineTune
        from napari_uniultra.training.trainer import Trainer

        return Trainer(config, FineTune(config), listeners=[say]).fit()
    from napari_uniultra.training.distillation.run import distil

    return distil(config, [say]).reason


def say(event: Mapping[str, Any]) -> None:
    """An event as a line of the log. A log that cannot be written stops nothing."""
    with suppress(OSError, ValueError):
        moment = datetime.fromisoformat(event["time"]).astimezone()
        sys.stdout.write(f"{moment:%H:%M:%S}  {_words(event)}\n")
        sys.stdout.flush()


def _words(event: Mapping[str, Any]) -> str:
    kind, step = event["event"], event["step"]
    if kind == "start":
        where = f"{event['device']}, {event['precision']}"
        return f"start on {event['time'][:10]} at step {step} of {event['steps']}, {where}"
    if kind == "step":
        loss, rate = event.get("loss"), event.get("samples_per_second")
        return f"step {step}: loss {_number(loss)}, {_number(rate)} samples/s"
    if kind == "validation":
        metrics = ", ".join(f"{name} {_number(value)}" for name, value in event["metrics"].items())
        return f"step {step}: validation: {metrics}{' (best so far)' if event.get('best') else ''}"
    if kind == "checkpoint":
        return f"step {step}: saved {', '.join(Path(path).name for path in event['paths'])}"
    return f"step {step}: {kind}: {event.get('text') or event.get('reason', '')}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def main(folder: str) -> int:
    """One of several processes that torchrun started."""
    try:
        train(Run(Path(folder)))
    except UniUltraError as error:
        sys.stderr.write(f"{FAILED}{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
