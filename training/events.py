"""Progress of a run: one JSON object a line in ``events.jsonl``, a console bar, and TensorBoard where it is installed.

Every line has ``event`` (start, step, validation, checkpoint, notice, end or error), ``time`` (ISO 8601, UTC) and
``step``, the number of steps done; the other fields belong to the kind of event.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from napari_uniultra.core.atomic import write_error
from napari_uniultra.training.layout import EVENTS, TENSORBOARD

Listener = Callable[[Mapping[str, Any]], None]

_NOTABLE_WAIT = 0.05  # share of the time; from there on, more data processes would help


class Events:
    """Writes what happens to the file, and tells the listeners.

    Parameters
    ----------
    folder : path
        Of the run; lines are added to what is there.
    listeners : sequence of callable
        Each is called with every event. The console bar and TensorBoard are such.
    """

    def __init__(self, folder: str | Path, listeners: Sequence[Listener] = ()) -> None:
        self.path = Path(folder) / EVENTS
        self.listeners = tuple(listeners)

    def emit(self, event: str, step: int, **values: Any) -> None:
        """Add one event.

        Raises
        ------
        WriteError
            When the line cannot be written.
        """
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "step": step, **values}
        line = _rounded(line)
        try:
            with open(self.path, "ab+") as file:
                # A process that was killed may have left half a line.
                beginning = b"" if _ends_a_line(file) else b"\n"
                file.write(beginning + json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise write_error(self.path, error) from error
        for listener in self.listeners:
            listener(line)


def _ends_a_line(file: IO[bytes]) -> bool:
    if not file.seek(0, os.SEEK_END):
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def read_events(folder: str | Path) -> list[dict[str, Any]]:
    """The events of a run so far; a line that is being written is left out."""
    try:
        lines = (Path(folder) / EVENTS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return list(_parsed(lines))


def _parsed(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _rounded(value: Any) -> Any:
    """Numbers to 6 digits, since more are noise; what is not a number becomes null, which every JSON reader takes."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


class ConsoleBar:
    """A progress bar on the standard error stream; what happens besides steps is a line above it."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        from tqdm import tqdm

        if event["event"] == "start":
            self._bar = tqdm(
                total=event["steps"], initial=event["step"], unit="step", desc="Training", dynamic_ncols=True
            )
        if self._bar is None:
            return
        self._bar.update(event["step"] - self._bar.n)
        if event["event"] == "step":
            self._bar.set_postfix_str(_short(event))
        elif event["event"] in ("validation", "notice"):
            self._bar.write(_sentence(event), file=sys.stderr)
        elif event["event"] in ("end", "error"):
            self._bar.close()


def _short(event: Mapping[str, Any]) -> str:
    shown = {"loss": event.get("loss"), **{name: pair[0] for name, pair in event.get("dice", {}).items()}}
    parts = [f"{name} {value:.3g}" for name, value in list(shown.items())[:4] if value is not None]
    if event.get("data_wait", 0) >= _NOTABLE_WAIT:
        parts.append(f"waiting for data {event['data_wait']:.0%}")
    return ", ".join(parts)


def _sentence(event: Mapping[str, Any]) -> str:
    if event["event"] == "notice":
        return f"step {event['step']}: {event['text']}"
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in event["metrics"].items() if value is not None)
    return f"step {event['step']}: validation: {metrics}{' (best so far)' if event.get('best') else ''}"


def tensorboard(folder: str | Path) -> Listener | None:
    """A listener that draws curves for TensorBoard in ``folder``/tensorboard, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer = SummaryWriter(str(Path(folder) / TENSORBOARD))

    def listen(event: Mapping[str, Any]) -> None:
        for name, value in _scalars(event):
            writer.add_scalar(name, value, event["step"])
        if event["event"] in ("end", "error"):
            writer.close()

    return listen


def _scalars(event: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if event["event"] == "step":
        for name in ("loss", "learning_rate", "samples_per_second", "data_wait", "gradient_norm"):
            if event.get(name) is not None:
                yield f"train/{name}", event[name]
        yield from ((f"terms/{name}", value) for name, value in event.get("terms", {}).items() if value is not None)
        yield from ((f"dice/{name}", pair[0]) for name, pair in event.get("dice", {}).items())
    elif event["event"] == "validation":
        yield from ((f"validation/{name}", value) for name, value in event["metrics"].items() if value is not None)
