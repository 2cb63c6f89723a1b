"""The outlines that were drawn, so that undo can bring back an ellipse as an ellipse."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

import numpy as np

from napari_uniultra.core.types import Prompt
from napari_uniultra.plugin.layers import Key

_KEPT = 20  # for each object and frame


@dataclass(frozen=True)
class Outline:
    """An ellipse or polygon as napari has it, and what it asked for."""

    prompt: Prompt
    vertices: np.ndarray
    shape_type: str


class Outlines:
    """Remembers outlines by what they asked for."""

    def __init__(self) -> None:
        self._kept: dict[Key, deque[Outline]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def remember(self, key: Key, outline: Outline) -> None:
        """Keep an outline, once."""
        if self.find(key, outline.prompt) is None:
            self._kept[key].append(outline)

    def find(self, key: Key, prompt: Prompt) -> Outline | None:
        """The outline that asked for this mask or box, or None."""
        return next((own for own in self._kept.get(key, ()) if same_area(own.prompt, prompt)), None)


def same_area(first: Prompt, second: Prompt) -> bool:
    """Whether two prompts ask for the same box and mask, up to rounding on the way through a layer."""
    if (first.mask is None) != (second.mask is None) or (first.box is None) != (second.box is None):
        return False
    if first.mask is not None:
        return np.array_equal(first.mask, second.mask)
    return first.box is None or np.allclose(first.box, second.box, atol=1e-3)


def same_request(first: Prompt | None, second: Prompt | None) -> bool:
    """Whether two prompts ask for the same, up to rounding on the way through a layer."""
    if first is None or second is None:
        return first is second
    if not same_area(first, second):
        return False
    return first.mask is not None or same_clicks(first, second)


def same_clicks(first: Prompt, second: Prompt) -> bool:
    """Whether two prompts have the same clicks, up to rounding on the way through a layer."""
    return first.labels == second.labels and np.allclose(first.points, second.points, atol=1e-3)
