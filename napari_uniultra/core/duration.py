"""Times in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time to the unit that matters: seconds, minutes, hours or days."""
    for unit, size, digits in (("days", 86_400, 0), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"
