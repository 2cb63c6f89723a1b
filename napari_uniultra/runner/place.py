"""Where runs live on this computer."""

from __future__ import annotations

import re
from pathlib import Path

from napari_uniultra.core.places import data_folder
from napari_uniultra.core.process import this_boot


def runs_folder() -> Path:
    """The user's runs: beside the added models."""
    return data_folder() / "runs"


def slot_folder() -> Path:
    """Whose lock a run holds while it trains on this computer: one at a time. Others may share the folder of runs."""
    return runs_folder() / ".slot" / re.sub(r"[^\w.-]+", "-", this_boot())
