"""What a run has said of itself so far: its events, read as they come, thinned out when there are many."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_uniultra.training.layout import EVENTS, JOINT

_MOST_POINTS = 4000  # of a curve; a screen shows no more
_MOST_NOTES = 200
_TAIL_BYTES = 1 << 14

Event = dict[str, Any]


class EventTail:
    """The lines that were added to an events file since the last look.

    Parameters
    ----------
    path : path
        May not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._offset = 0

    def read(self) -> tuple[list[Event], bool]:
        """New events, and whether the file begins anew: then they are all there are.

        A line that is still being written waits for the next look; one that is no event is left out.
        """
        try:
            with open(self.path, "rb") as file:
                began_anew = file.seek(0, 2) < self._offset
                file.seek(0 if began_anew else self._offset)
                text = file.read()
        except OSError:  # not there yet, or on a disk that does not answer
            return [], False
        whole = text[: text.rfind(b"\n") + 1]
        self._offset = (0 if began_anew else self._offset) + len(whole)
        return list(_events(whole.splitlines())), began_anew


def last_events(folder: Path) -> list[Event]:
    """The newest events of a run's folder, some of them, the last at the end."""
    try:
        with open(folder / EVENTS, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - _TAIL_BYTES, 0))
            return list(_events(file.read().splitlines()))
    except OSError:
        return []


def _events(lines: Iterable[bytes]) -> Iterable[Event]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str) and isinstance(event.get("step"), int):
            yield event


@dataclass
class Curve:
    """Values over steps, the steps increasing."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, step: int, value: Any) -> None:
        """Add a point; what is no number is left out."""
        if isinstance(value, (int, float)):
            self.steps.append(step)
            self.values.append(float(value))
        if len(self.steps) > _MOST_POINTS:
            self.steps, self.values = self.steps[::2], self.values[::2]

    def copy(self) -> Curve:
        """One that stays as it is."""
        return Curve(list(self.steps), list(self.values))

    def forget_after(self, step: int) -> None:
        """Drop what came after a step: the run went back to it."""
        while self.steps and self.steps[-1] > step:
            self.steps.pop()
            self.values.pop()


@dataclass
class History:
    """The curves and facts of a run.

    Attributes
    ----------
    curves : dict of str to Curve
        ``loss``, ``learning_rate``, ``samples_per_second``, and each metric of the validations by its name.
    step, steps : int
        Done, and in all.
    device : str
        In words; "" before the first start.
    notes : list of str
        What is worth telling, the latest last.
    seconds_left : float or None
        By how long the steps since the last start took, validations included. Those of a second stage count alike
        until it begins.
    exported : int or None
        The step whose weights are in the model's file.
    later_steps : int
        Of a second stage that has not begun.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    device: str = ""
    notes: list[str] = field(default_factory=list)
    seconds_left: float | None = None
    exported: int | None = None
    later_steps: int = 0
    _began: tuple[int, datetime] | None = None
    _validations: dict[int, Mapping[str, Any]] = field(default_factory=dict)  # by step, of trained weights

    def add(self, event: Mapping[str, Any], offset: int = 0) -> None:
        """Take an event in; ``offset`` steps came before those that it counts."""
        kind, step = event["event"], event["step"] + offset
        self.step = step
        if kind == "start":
            self._start(event, step, offset)
        elif kind == "step":
            for name in ("loss", "learning_rate", "samples_per_second"):
                self._add(name, step, event.get(name))
            self._reckon(event, step)
        elif kind == "validation":
            self._validated(event.get("metrics") or {}, step, is_trained=event["step"] > 0)
        elif kind == "checkpoint" and event.get("kind") == "model":
            self.exported = step
        elif kind in ("notice", "error"):
            self.notes = [*self.notes[-_MOST_NOTES:], f"Step {step}: {event.get('text', '')}"]
        elif kind == "end":
            self.seconds_left = None

    def copy(self) -> History:
        """One that stays as it is, for another thread."""
        curves = {name: curve.copy() for name, curve in self.curves.items()}
        return replace(self, curves=curves, _validations=dict(self._validations))

    def _start(self, event: Mapping[str, Any], step: int, offset: int) -> None:
        self.later_steps = 0 if offset else self.later_steps
        self.steps = offset + int(event.get("steps") or 0) + self.later_steps
        self.device = str(event.get("device", ""))
        self.seconds_left, began = None, _time(event)
        self._began = None if began is None else (step, began)
        for curve in self.curves.values():
            curve.forget_after(step)

    def _validated(self, metrics: Mapping[str, Any], step: int, is_trained: bool) -> None:
        for name, value in metrics.items():
            self._add(name, step, value)
        if is_trained:
            self._validations[step] = metrics

    def _add(self, name: str, step: int, value: Any) -> None:
        self.curves.setdefault(name, Curve()).add(step, value)

    def _reckon(self, event: Mapping[str, Any], step: int) -> None:
        now = _time(event)
        if self._began is not None and now is not None and step > self._began[0]:
            seconds = (now - self._began[1]).total_seconds()
            self.seconds_left = seconds / (step - self._began[0]) * (self.steps - step)

    def last(self, name: str) -> float | None:
        """The newest value of a curve."""
        curve = self.curves.get(name)
        return curve.values[-1] if curve and curve.values else None

    def best(self, name: str = "dice") -> float | None:
        """The highest value of a metric in validations; that before the first step is of no training."""
        values = [found[name] for found in self._validations.values() if isinstance(found.get(name), (int, float))]
        return max(values, default=None)

    def validated_export(self) -> tuple[int, Mapping[str, Any]] | None:
        """Step and metrics of the validation that is of the model's file, or else of the last before it."""
        steps = [step for step in self._validations if self.exported is None or step <= self.exported]
        return (max(steps), self._validations[max(steps)]) if steps else None


def _time(event: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(event["time"])
    except (KeyError, TypeError, ValueError):
        return None


class Follower:
    """Keeps the history of a run up to date; a distillation's second stage goes on where its first ended.

    A second stage that is resumed makes the first one say again that it started and ended. All is then read anew, so
    that what was followed is what somebody finds who comes later.

    Parameters
    ----------
    folder : path
        The run's.
    later_steps : int
        Of the second stage.
    """

    def __init__(self, folder: str | Path, later_steps: int = 0) -> None:
        self.folder, self._later_steps = Path(folder), later_steps
        self._begin()

    def _begin(self) -> None:
        self.history = History(later_steps=self._later_steps)
        self._tails = [EventTail(self.folder / EVENTS), EventTail(self.folder / JOINT / EVENTS)]
        self._first_steps = 0  # done in the first stage
        self._second_began = False

    def update(self) -> bool:
        """Read what is new; returns whether there was anything."""
        (new, began_anew), (later, later_began_anew) = (tail.read() for tail in self._tails)
        if began_anew or later_began_anew or (new and self._second_began):
            self._begin()
            (new, _), (later, _) = (tail.read() for tail in self._tails)
        for event in new:
            self.history.add(event)
        if new:
            self._first_steps = self.history.step
        for event in later:
            self.history.add(event, self._first_steps)
        self._second_began = self._second_began or bool(later)
        return bool(new or later)
