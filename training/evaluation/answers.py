"""Masks on one frame, from a model, a baseline or another tool, waiting to be scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from napari_uniultra.core.types import Prompt

IMAGE = "image"  # the object's name of scores and masks of all objects of a frame together

# Why a mask could not be scored as it is. Dice, IoU and NSD are 0 then.
EMPTY = "empty"  # nothing was found where there is something
MISSING = "missing"  # another tool left no mask, or no object of it overlaps
SEVERAL = "several files"  # another tool left more than one mask that may be it
OTHER_SIZE = "other size"
UNREADABLE = "unreadable"
ERROR = "error"  # the model could not answer


@dataclass(frozen=True)
class FrameAnswer:
    """What one method found on one frame from one kind of prompt.

    Attributes
    ----------
    method : str
        "model", "ellipse", or the name of another tool.
    prompt : str
    index : int
        The frame's position in the case.
    masks : mapping of str to (H, W) bool
        By object; under `IMAGE` what was found of all objects together, where that is more than their union.
    predicted_iou : mapping of str to float
    drawn : mapping of str to Prompt
        What was drawn on this very frame.
    failures : mapping of str to str
        Objects without a mask, and why.
    jitter : float
        Of the boxes, in px at 1024; NaN without one.
    since_prompt : int or None
        Frames of the loop since the last prompt before, of whichever object; None for a single frame.
    """

    method: str
    prompt: str
    index: int
    masks: Mapping[str, np.ndarray]
    predicted_iou: Mapping[str, float] = field(default_factory=dict)
    drawn: Mapping[str, Prompt] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    jitter: float = float("nan")
    since_prompt: int | None = None
