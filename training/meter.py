"""How a run is doing between two lines of progress: losses, Dice, speed, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from napari_uniultra.training.task import Outcome

_RECENT = 0.9  # weight of the past in the mean duration of a step


class Meter:
    """Gathers what steps report until the next line of progress.

    Attributes
    ----------
    started : float
        Monotonic seconds, of the run's start in this process.
    """

    def __init__(self) -> None:
        self.started = self._since = time.monotonic()
        self.seconds_a_step = 0.0
        self._waited = 0.0
        self._last_step = self.started
        self._clear()

    def _clear(self) -> None:
        self._since, self._waited = time.monotonic(), 0.0
        self._samples, self._losses, self._norms, self._skipped = 0, [], [], 0
        self._outcomes: list[Outcome] = []

    def start(self) -> None:
        """Begin to measure."""
        self.started = self._last_step = time.monotonic()
        self._clear()

    def waited(self, seconds: float) -> None:
        """Note how long a step's data took to come."""
        self._waited += seconds

    def add(self, outcomes: Sequence[Outcome], samples: int, loss: float, norm: float, skipped: bool) -> None:
        """Note a step: of how many frames, with which loss and norm of the gradient."""
        now = time.monotonic()
        took, self._last_step = now - self._last_step, now
        weight = _RECENT if self.seconds_a_step else 0.0
        self.seconds_a_step = weight * self.seconds_a_step + (1 - weight) * took
        self._samples += samples
        self._skipped += skipped
        if not skipped:
            self._losses.append(loss)
            self._norms.append(norm)
            self._outcomes.extend(outcomes)

    def pause(self) -> None:
        """What happened since the last step, such as a validation, is part neither of the next one nor of its line."""
        now = time.monotonic()
        self._since += now - max(self._last_step, self._since)
        self._last_step = now

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def report(self, steps_left: int, processes: int) -> dict[str, Any]:
        """The line of progress since the last one."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        line = {
            "loss": _mean(self._losses),
            "terms": _means(self._outcomes),
            "dice": _dice(self._outcomes),
            "iou_error": _mean([error for outcome in self._outcomes for error in outcome.iou_error]),
            "gradient_norm": _mean(self._norms),
            "skipped": self._skipped,
            "samples_per_second": self._samples * processes / seconds,
            "data_wait": self._waited / seconds,
            "seconds": self.elapsed(),
            "seconds_left": steps_left * self.seconds_a_step,
        }
        self._clear()
        return line


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _means(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.terms)
    return {name: _mean([float(o.terms[name]) for o in outcomes if name in o.terms]) for name in names}


def _dice(outcomes: Sequence[Outcome]) -> dict[str, tuple[float, int]]:
    """Mean and number, by the kind of prompt."""
    by_kind: dict[str, list[float]] = {}
    for outcome in outcomes:
        for name, values in outcome.dice.items():
            by_kind.setdefault(name, []).extend(values)
    return {name: (sum(values) / len(values), len(values)) for name, values in sorted(by_kind.items()) if values}
