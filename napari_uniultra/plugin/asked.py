"""All that a session is asked for, answered or not, as its viewer shows it. No Qt, no napari."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from napari_uniultra.core.types import Prompt
from napari_uniultra.plugin.drawing import Drawn
from napari_uniultra.plugin.layers import Key
from napari_uniultra.plugin.outlines import same_area, same_clicks
from napari_uniultra.plugin.painting import Painted, prompts_of_painted
from napari_uniultra.segment.state import paint


def prompts_of_drawn(session: Any, drawn: Mapping[Key, Drawn]) -> dict[Key, Prompt | None]:
    """The prompts that drawings ask a `CineSession` for; None where there are to be none."""
    known = {**session.prompts, **session.waiting}
    return {key: own.over(known.get(key)) for key, own in drawn.items()}


def new_prompts(session: Any, prompts: Mapping[Key, Prompt]) -> dict[Key, Prompt]:
    """What drawings ask a `CineSession` for, where that is not asked for already."""
    asked = {**session.prompts, **session.waiting}
    found = prompts_of_drawn(session, {key: Drawn(prompt) for key, prompt in prompts.items()})
    return {key: prompt for key, prompt in found.items() if not _is_same(asked.get(key, Prompt()), prompt)}


def _is_same(one: Prompt, other: Prompt) -> bool:
    return same_area(one, other) and same_clicks(one, other)


def prompts_of_frame(session: Any, frame: int, painted: Painted) -> dict[Key, Prompt]:
    """The prompts that painting on a frame asks a `CineSession` for. A click that waits there refines it."""
    masks = _masks(session, frame)
    given = prompts_of_painted(painted, _labels(session, frame, masks), masks)
    keys = {object_id: (object_id, frame) for object_id in given}
    return {keys[object_id]: _beside(session.waiting.get(keys[object_id]), own) for object_id, own in given.items()}


def _beside(waiting: Prompt | None, painted: Prompt) -> Prompt:
    is_kept = waiting is not None and waiting.mask is None and not painted.absent
    return replace(waiting, mask=painted.mask) if is_kept else painted


def frames_shown(session: Any) -> set[int]:
    """The frames of a `CineSession` that have masks to show."""
    waiting = {frame for (_, frame), prompt in session.waiting.items() if prompt.mask is not None}
    return waiting.union(session.frames_with_results)


def labels_shown(session: Any, frame: int) -> np.ndarray:
    """A frame's labels (H, W) uint16, with the masks that were painted and wait for a model."""
    return _labels(session, frame, _masks(session, frame))


def _labels(session: Any, frame: int, masks: Mapping[int, np.ndarray]) -> np.ndarray:
    return paint(replace(session.step(frame), masks=masks), session.cine.shape_hw)


def _masks(session: Any, frame: int) -> dict[int, np.ndarray]:
    waiting = {key: prompt.mask for key, prompt in session.waiting.items() if prompt.mask is not None}
    return session.step(frame).masks | {own: mask for (own, other), mask in waiting.items() if other == frame}
