"""The image layer that a loop is shown in: where it lies, how many frames it has, and which one the viewer shows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

TRANSFORM = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")  # where a layer lies


def transform_of(image: Any) -> dict[str, Any]:
    """Keyword arguments that lay a new layer over an image."""
    return {"ndim": image.ndim, **{name: getattr(image, name) for name in TRANSFORM}}


def lay_over(layer: Any, image: Any) -> None:
    """Give a layer the scale, position and units of an image, as `transform_of` gives them to a new one."""
    for name in TRANSFORM:
        setattr(layer, name, getattr(image, name))


def frames_shape(image: Any) -> tuple[int, ...]:
    """An image layer's (T, H, W) or (H, W), without colour."""
    data = image.data[0] if image.multiscale else image.data
    return tuple(int(size) for size in data.shape[: image.ndim])


def shown_frame(viewer: Any, image: Any) -> int:
    """The frame of an image layer that the viewer shows; 0 for a still."""
    return int(np.clip(_frame_at(viewer, image), 0, num_frames(image) - 1))


def shows_loop(viewer: Any, image: Any) -> bool:
    """Whether the frame slider is within an image layer: another layer may go on before and after it."""
    return 0 <= _frame_at(viewer, image) < num_frames(image)


def num_frames(image: Any) -> int:
    """How many frames an image layer has; 1 for a still."""
    return frames_shape(image)[0] if image.ndim > 2 else 1


def _frame_at(viewer: Any, image: Any) -> int:
    """The frame at the viewer's position, which may lie beyond the loop."""
    return math.floor(float(image.world_to_data(viewer.dims.point)[0]) + 0.5) if image.ndim > 2 else 0


def shows_single_frames(viewer: Any, image: Any) -> bool:
    """Whether the viewer shows whole frames, one at a time: not in 3-D, and not with its axes in another order."""
    dims = viewer.dims
    return image.ndim < 3 or (dims.ndisplay == 2 and dims.ndim - image.ndim not in dims.displayed)
