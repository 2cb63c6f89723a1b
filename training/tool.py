"""What the small programs beside ``uniultra`` have in common: usage, and errors as a line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from napari_uniultra.errors import UniUltraError


def run_tool(usage: str, is_used_so: bool, work: Callable[[], None]) -> int:
    """0, or 2 for a usage error or something that cannot be read or written."""
    if not is_used_so:
        sys.stderr.write(f"usage: python -m napari_uniultra.training.{usage}\n")
        return 2
    try:
        work()
    except (UniUltraError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0
