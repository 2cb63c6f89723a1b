"""Tables in Markdown, and the line above each that says on what they were measured."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def machine(*packages: str, device: str = "cpu") -> str:
    """The machine, the versions of what matters, and today's date.

    Parameters
    ----------
    *packages : str
        Distributions to name besides Python and torch.
    device : str
        As `choose_device` takes it.
    """
    from napari_uniultra.model.device import choose_device, describe_device

    versions = [f"{name} {version(name)}" for name in ("torch", *packages)]
    parts = [_processor(), describe_device(choose_device(device)), f"Python {platform.python_version()}", *versions]
    return ", ".join([*parts, f"{datetime.now(UTC):%Y-%m-%d}"])


def _processor() -> str:
    """The processor's name where Linux tells it, or its family."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(heading: str, columns: Sequence[str], rows: Sequence[str]) -> str:
    """A heading and a table, of rows that are in Markdown already."""
    return "\n".join([heading, "", row(*columns), "|" + "---|" * len(columns), *rows]) + "\n"


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def judged(case: str, value: float, target: float, unit: str) -> str:
    """A row of a measured value that should be at most ``target``, and whether it is."""
    met = "met" if value <= target else "missed"
    return row(case, f"{value:.3g} {unit}", f"at most {target:g} {unit}", met)


JUDGED_COLUMNS = ("case", "measured", "target", "")
