"""Which parameters a fine-tuning trains, as settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from napari_uniultra.core.settings import setting


@dataclass(frozen=True)
class MethodSettings:
    """A fine-tuning method by name, with its own options."""

    name: str = setting("ch_adapter", help="Fine-tuning method; `uniultra train --methods` lists them.")
    options: Mapping[str, Any] = setting(
        factory=dict, help="The method's own options; anything left out keeps its default."
    )
    memory: str = setting(
        "frozen", choices=("frozen", "trained"), help="Whether the memory's parameters are trained; clips need them."
    )
