"""How far a batch is, as plain events: for a bar, for scripts, and for the log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from napari_uniultra.batch.worker import DONE, FAILED, UNCHANGED, Outcome


@dataclass
class Progress:
    """Counts loops and frames as they end.

    Parameters
    ----------
    loops : int
        In all.
    """

    loops: int
    done: int = 0
    unchanged: int = 0
    failed: int = 0
    frames: int = 0
    started: float = field(default_factory=time.perf_counter)

    def add(self, outcome: Outcome) -> dict[str, Any]:
        """Count a loop; returns the event that tells of it."""
        self.done += outcome.status == DONE
        self.unchanged += outcome.status == UNCHANGED
        self.failed += outcome.status == FAILED
        self.frames += outcome.frames
        return {"event": "loop", **asdict(outcome), "progress": self.as_dict()}

    def as_dict(self) -> Mapping[str, Any]:
        """Loops by what became of them, frames per second, and seconds left (None until it can be told)."""
        ended = self.done + self.unchanged + self.failed
        seconds = time.perf_counter() - self.started
        worked = ended - self.unchanged
        left = None if not worked else round((self.loops - ended) * seconds / worked, 1)
        return {
            "loops": self.loops,
            "done": self.done,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "frames_per_s": round(self.frames / seconds, 2) if seconds > 0 else 0.0,
            "seconds_left": left,
        }
