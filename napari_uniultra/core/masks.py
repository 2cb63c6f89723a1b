"""The masks of a loop with what a file of them needs to know: names, size of a pixel, times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from napari_uniultra.core.palette import Colour, colour_of
from napari_uniultra.core.types import MAX_OBJECT_ID, Cine, default_name
from napari_uniultra.core.words import counted
from napari_uniultra.errors import WriteError


@dataclass(frozen=True)
class Masks:
    """Label images of a loop.

    Parameters
    ----------
    labels : array-like
        (T, H, W) bool or integer, 0 for nothing, at most 65535; held as uint8 where that is enough, else as uint16.
        (H, W) is taken as one frame.
    names : mapping of int to str
        Object id to name. Objects without a name are ``Object 3``; two may have the same.
    spacing_mm : (float, float), optional
        Size of a pixel in mm, (row, column).
    frame_times_s : ndarray, optional
        (T,) seconds from the first frame.
    cine : Cine, optional
        The loop that the masks belong to: pictures show it, and a DICOM segmentation refers to its file.
    colours : mapping of int to Colour
        Object id to the colour that was chosen for it; the others have that of the palette.

    Raises
    ------
    WriteError
        When the labels are no labels, or the times or the loop do not fit them.
    """

    labels: Any
    names: Mapping[int, str] = field(default_factory=dict)
    spacing_mm: tuple[float, float] | None = None
    frame_times_s: Any = None
    cine: Cine | None = None
    colours: Mapping[int, Colour] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "labels", checked_labels(self.labels))
        set_(self, "names", {int(key): str(name) for key, name in self.names.items() if int(key) > 0 and str(name)})
        if self.frame_times_s is not None:
            set_(self, "frame_times_s", np.asarray(self.frame_times_s, dtype=float))
            if self.frame_times_s.shape != (len(self),):
                times = counted(self.frame_times_s.size, "time")
                raise WriteError(f"{counted(len(self), 'frame')} of masks came with {times}")
        if self.cine is not None and (len(self.cine), *self.cine.shape_hw) != self.labels.shape:
            shape = (len(self.cine), *self.cine.shape_hw)
            raise WriteError(f"Masks of shape {self.labels.shape} do not fit the loop", f"it has shape {shape}")

    @classmethod
    def of_cine(
        cls,
        cine: Cine,
        labels: Any,
        names: Mapping[int, str] | None = None,
        colours: Mapping[int, Colour] | None = None,
    ) -> Masks:
        """Masks of a loop, with its spacing and times."""
        return cls(labels, names or {}, cine.spacing_mm, cine.frame_times_s, cine, colours or {})

    def with_loop(self, cine: Cine) -> Masks:
        """These masks and their loop, both with the masks' spacing and times, or the loop's where these are unknown."""
        fitting = replace(self, cine=cine)  # raises where they do not fit
        spacing_mm = cine.spacing_mm if self.spacing_mm is None else self.spacing_mm
        times = cine.frame_times_s if self.frame_times_s is None else self.frame_times_s
        cine = cine.with_(spacing_mm=spacing_mm, frame_times_s=times)
        return replace(fitting, spacing_mm=spacing_mm, frame_times_s=times, cine=cine)

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.labels.shape[1:]

    @property
    def ids(self) -> list[int]:
        """The objects that are in the labels or have a name, in order."""
        present = {int(value) for frame in self.labels for value in np.unique(frame)} - {0}
        return sorted(present | set(self.names))

    def name(self, object_id: int) -> str:
        """An object's name; ``Object 3`` where it has none."""
        return self.names.get(object_id) or default_name(object_id)

    def colour(self, object_id: int) -> Colour:
        """An object's colour."""
        return colour_of(object_id, self.colours)

    @property
    def frame_interval_s(self) -> float | None:
        """The time between two frames where all are equally far apart, else None."""
        if self.frame_times_s is None or len(self) < 2:
            return None
        steps = np.diff(self.frame_times_s)
        mean = float(steps.mean())
        return mean if mean > 0 and np.ptp(steps) <= _UNEVEN * mean else None


_UNEVEN = 1e-3  # relative; time steps that differ by more have no single frame interval


def stack_of(labels: Any) -> Any:
    """Labels of an array-like as (T, H, W); (H, W) is one frame."""
    return labels[None] if labels.ndim == 2 else labels


def checked_labels(labels: Any) -> np.ndarray:
    """Labels as (T, H, W) uint8, or uint16 above 255.

    Raises
    ------
    WriteError
        For another shape or type, or numbers below 0 or above 65535.
    """
    labels = stack_of(np.asarray(labels))
    if labels.ndim != 3 or not (labels.dtype == bool or np.issubdtype(labels.dtype, np.integer)):
        raise WriteError(
            f"An array of shape {labels.shape} and type {labels.dtype} is not a stack of masks",
            "masks are (T, H, W) whole numbers",
        )
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > MAX_OBJECT_ID:
        raise WriteError(
            f"Labels from {low} to {high} cannot be saved", f"a label is a number from 0 to {MAX_OBJECT_ID}"
        )
    return labels.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16, copy=False)
