"""The data that flows through the package: a loop of frames, what the user asked of it, and what came back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from napari_uniultra.core.frames import as_frames
from napari_uniultra.core.words import counted
from napari_uniultra.errors import PromptError, ReadError

Box = tuple[float, float, float, float]
Direction = Literal["forward", "backward", "both"]
Spacing = tuple[float, float]  # size of a pixel, (row, column), in mm

PIXELS: Spacing = (1.0, 1.0)  # in place of a spacing that is not known: lengths are in px then
MAX_OBJECT_ID = 65535  # label images are uint16
WEAK_IOU = 0.7  # a predicted IoU below needs a look: at a Dice of 0.82 nearly a fifth of the two outlines differs
_KEY_FRAMES = 8  # frames in a loop's content key: enough to tell loops apart, few enough to open a long one fast


@dataclass(frozen=True)
class Cine:
    """One ultrasound loop, or a still as a loop of one frame.

    Parameters
    ----------
    frames : array-like
        (T, H, W) or (T, H, W, 3). NumPy, or anything with ``shape``, ``dtype`` and ``frames[t]``: it is read one
        frame at a time. (H, W) and (H, W, 3) are taken as one frame. Anything but uint8 is mapped to 0-255 by its
        range over the loop; NaN and infinities count as black.
    spacing_mm : (float, float), optional
        Size of a pixel in mm, (row, column). None when unknown; never guessed.
    frame_times_s : array-like, optional
        (T,) seconds from the first frame. None when unknown.
    sector : ndarray, optional
        (H, W) bool, the scan area. None when unknown.
    source : str
        The file or folder the loop came from, for messages and for finding it again. Never written into results.
    details : mapping
        What else the reader knows and a user may want to see (for example ``{"transfer_syntax": "JPEG 2000"}``).

    Raises
    ------
    ReadError
        When the array has no frames, or a shape, spacing or times that do not describe a loop.
    """

    frames: Any
    spacing_mm: tuple[float, float] | None = None
    frame_times_s: Any = None
    sector: np.ndarray | None = None
    source: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "frames", as_frames(self.frames))
        if self.spacing_mm is not None:
            set_(self, "spacing_mm", checked_spacing(self.spacing_mm))
        if self.frame_times_s is not None:
            set_(self, "frame_times_s", _checked_times(self.frame_times_s, len(self)))
        if self.sector is not None:
            sector = np.asarray(self.sector, dtype=bool)
            if sector.shape != self.shape_hw:
                raise ReadError(
                    f"The scan area has shape {sector.shape} but the frames are {self.shape_hw}",
                    fix="Give one (H, W) boolean mask for the whole loop",
                )
            set_(self, "sector", sector)

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.frames.shape[1:3]

    def frame(self, index: int) -> np.ndarray:
        """Frame ``index`` as uint8, (H, W) or (H, W, 3)."""
        self.check_frame(index)
        return np.asarray(self.frames[index])

    def check_frame(self, index: int) -> None:
        """Raise PromptError if there is no frame ``index``."""
        if not 0 <= index < len(self):
            raise PromptError(f"Frame {index} does not exist", f"the loop has frames 0 to {len(self) - 1}")

    def read_ahead(self, index: int) -> None:
        """Say that a frame will be wanted soon, so that loops on a disk start to decode it in the background."""
        start = getattr(self.frames, "read_ahead", None)
        if start is not None:
            start(index)

    @cached_property
    def key(self) -> str:
        """A name for the loop's content, without patient data: the hex SHA-256 of its shape and some of its frames."""
        digest = hashlib.sha256(repr(self.frames.shape).encode())
        for index in np.unique(np.linspace(0, len(self) - 1, _KEY_FRAMES).round().astype(int)):
            digest.update(np.ascontiguousarray(self.frames[int(index)]).tobytes())
        return digest.hexdigest()

    def with_(self, **changes: Any) -> Cine:
        """A copy with some fields changed."""
        return replace(self, **changes)


def default_name(object_id: int) -> str:
    """The name of an object that was given none."""
    return f"Object {object_id}"


def checked_spacing(spacing_mm: Any) -> tuple[float, float]:
    """A spacing (row, column) in mm as two floats. Raises ReadError if it is none."""
    try:
        row, column = (float(v) for v in spacing_mm)
    except (TypeError, ValueError):
        row = column = np.nan
    if not (np.isfinite([row, column]).all() and row > 0 and column > 0):
        raise ReadError(
            f"A pixel spacing of {spacing_mm!r} mm is not a size",
            fix="Give (row, column) in mm, both above zero, or None when it is unknown",
        )
    return row, column


def _checked_times(frame_times_s: Any, frames: int) -> np.ndarray:
    times = np.asarray(frame_times_s, dtype=float)
    if times.shape != (frames,) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ReadError(
            f"The frame times do not fit the loop of {counted(frames, 'frame')}",
            f"they have shape {times.shape} and must be finite and never decrease",
            "Give one time in seconds per frame, or None when they are unknown",
        )
    times.setflags(write=False)
    return times


@dataclass(frozen=True)
class Prompt:
    """What the user drew for one object on one frame: a box, points, a mask, or several of them.

    Coordinates are pixels of the frame, x to the right, y down, measured at pixel edges: pixel (row r, column c)
    covers x from c to c + 1 and y from r to r + 1.

    Parameters
    ----------
    box : (x0, y0, x1, y1), optional
        x0 < x1 and y0 < y1 (``core.prompts.normalise_box`` sorts a box drawn in any direction).
    points : tuple of (x, y)
    labels : tuple of int
        One per point: 1 belongs to the object, 0 does not.
    mask : ndarray, optional
        (H, W) bool. Alone it is the answer and shows exactly as it is: an empty one says that the object is not in the
        frame. A box and points refine it.
    rounds : tuple of int
        How many points there were after each round of interaction, for example (0, 1, 3) for a box, then a click, then
        two clicks. Each round refines the one before. Empty for everything at once.
    """

    box: Box | None = None
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    mask: np.ndarray | None = None
    rounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.points) != len(self.labels):
            raise PromptError(
                f"{counted(len(self.points), 'point')} came with {counted(len(self.labels), 'label')}",
                fix="Give one label per point: 1 to add, 0 to remove",
            )
        if any(label not in (0, 1) for label in self.labels):
            raise PromptError(f"Point labels {self.labels} are not all 0 or 1", fix="Use 1 to add and 0 to remove")
        if self.rounds and (self.rounds[-1] != len(self.points) or list(self.rounds) != sorted(set(self.rounds))):
            raise PromptError(f"Rounds {self.rounds} do not add up to {counted(len(self.points), 'point')}")
        if self.rounds and self.rounds[0] == 0 and self.box is None and self.mask is None:
            raise PromptError("The first round of a prompt is empty", fix="Begin with a box or a point")

    def continues(self, before: Prompt) -> bool:
        """Whether this is another prompt with one more round."""
        if len(self.rounds) < 2 or self.mask is not before.mask:
            return False
        count = self.rounds[-2]
        earlier = (self.box, self.points[:count], self.labels[:count], self.rounds[:-1])
        return earlier == (before.box, before.points, before.labels, before.rounds or (len(before.points),))

    def extends(self, before: Prompt) -> bool:
        """Whether this is another prompt with no more than further points at its end, whatever the rounds."""
        count = len(before.points)
        beginning = (self.box, self.points[:count], self.labels[:count], self.mask)
        return not before.empty and Prompt(*beginning) == replace(before, rounds=())

    def with_round(self, points: tuple[tuple[float, float], ...], labels: tuple[int, ...]) -> Prompt:
        """With more points, as a round of their own after those that are there."""
        if not points:
            return self
        together = self.points + points
        rounds = () if self.empty else (*(self.rounds or (len(self.points),)), len(together))
        return replace(self, points=together, labels=self.labels + labels, rounds=rounds)

    @property
    def first_round(self) -> Prompt:
        """What was asked at first."""
        count = self.rounds[0] if self.rounds else len(self.points)
        return replace(self, points=self.points[:count], labels=self.labels[:count], rounds=())

    @property
    def empty(self) -> bool:
        """True when nothing is asked."""
        return self.box is None and not self.points and self.mask is None

    @property
    def mask_only(self) -> bool:
        """True when there is a mask and nothing refines it."""
        return self.mask is not None and self.box is None and not self.points

    @property
    def absent(self) -> bool:
        """True when the object is said not to be in the frame: a mask that is empty, and nothing else."""
        return self.mask_only and not self.mask.any()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prompt):
            return NotImplemented
        if (self.mask is None) != (other.mask is None):
            return False
        same_mask = self.mask is None or np.array_equal(self.mask, other.mask)
        mine, theirs = ((p.box, p.points, p.labels, p.rounds) for p in (self, other))
        return same_mask and mine == theirs

    __hash__ = None  # holds an array


@dataclass(frozen=True)
class Step:
    """The outcome on one frame.

    Attributes
    ----------
    frame : int
    masks : dict of int to ndarray
        Object id to (H, W) bool.
    predicted_iou : dict of int to float
        Object id to the model's own estimate of its mask's IoU, 0 to 1; without the objects that no model judged.
    object_score : dict of int to float
        Object id to a logit: above 0 when the model believes that the object is in the frame.
    """

    frame: int
    masks: dict[int, np.ndarray]
    predicted_iou: dict[int, float]
    object_score: dict[int, float]
