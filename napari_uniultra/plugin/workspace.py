"""What belongs to one image layer while the panel works on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from napari_uniultra.core.types import Prompt
from napari_uniultra.plugin.layers import Key
from napari_uniultra.plugin.prompt_layers import PromptLayers
from napari_uniultra.plugin.result_layer import ResultLayer
from napari_uniultra.plugin.session_host import Snapshot

FIRST_OBJECT = {1: "Object 1"}


@dataclass
class Workspace:
    """An image layer's own layers and objects, and what is known of its session."""

    image: Any
    prompts: PromptLayers
    result: ResultLayer
    objects: dict[int, str] = field(default_factory=FIRST_OBJECT.copy)
    current: int = 1
    snapshot: Snapshot = field(default_factory=Snapshot)
    last_read: dict[Key, Prompt] = field(default_factory=dict)
