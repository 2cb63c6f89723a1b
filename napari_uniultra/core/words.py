"""Numbers in words for people."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """A number of things: "1 loop", "2 loops"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
