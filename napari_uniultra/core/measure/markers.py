"""What a person set by hand for measuring: the frames of heart cycles, and long axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_uniultra.core.measure.cardiac import Axis, Cycle


@dataclass(frozen=True)
class Markers:
    """Cycles and axes that take the place of those that are found.

    Attributes
    ----------
    cycles : dict of int to tuple of Cycle
        By object id.
    axes : dict of (object id, frame) to Axis
        Two ends (x, y) in pixels, at pixel edges.
    """

    cycles: Mapping[int, tuple[Cycle, ...]] = field(default_factory=dict)
    axes: Mapping[tuple[int, int], Axis] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.cycles or self.axes)

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {
            "cycles": [[number, [[c.ed, c.es] for c in cycles]] for number, cycles in sorted(self.cycles.items())],
            "axes": [[*key, [list(map(float, end)) for end in axis]] for key, axis in sorted(self.axes.items())],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Markers:
        """What `as_dict` gave. Raises ValueError, KeyError or TypeError for anything else."""
        cycles = {int(number): tuple(Cycle(int(ed), int(es)) for ed, es in pairs) for number, pairs in data["cycles"]}
        axes = {(int(number), int(frame)): _axis(ends) for number, frame, ends in data["axes"]}
        return cls(cycles, axes)


def _axis(ends: Any) -> Axis:
    (x0, y0), (x1, y1) = ends
    return (float(x0), float(y0)), (float(x1), float(y1))
