"""All that a user made in a session, as plain data: what undo brings back and what is saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np

from napari_uniultra.core.measure.cardiac import Axis, Cycle
from napari_uniultra.core.palette import Colour
from napari_uniultra.core.types import Prompt, Step, default_name
from napari_uniultra.segment.results import Result
from napari_uniultra.segment.session_about import ModelName

Key = tuple[int, int]  # (object id, frame)


@dataclass(frozen=True)
class SessionState:
    """Objects, prompts and what came of them. The collections belong to the state: copy before changing.

    Attributes
    ----------
    names : dict of int to str
        Object id to its name.
    colours : dict of int to Colour
        Object id to (red, green, blue), 0 to 255, where one was chosen.
    locked_objects : set of int
        Objects that nothing may change.
    hidden_objects : set of int
        Objects that are not shown; all else about them goes on.
    prompts : dict of Key to Prompt
    prompted : dict of Key to Result
        The answers to the prompts.
    waiting : dict of Key to Prompt
        What was asked for in place of the prompts there and not answered yet, as without a model; an empty one takes
        them away. Undo leaves it alone, unless its object was removed.
    tracked : dict of Key to Result
        What propagation found, also where a prompt has since corrected it.
    locked : dict of Key to Result
        Accepted results; they stand above all others.
    cycles : dict of int to tuple of Cycle
        Heart cycles that were set by hand, by object id.
    axes : dict of Key to Axis
        Long axes that were set by hand.
    spacing_mm : (float, float) or None
        Size of a pixel (row, column) in mm, where it was set by hand; None for what the loop itself says.
    made_with : ModelName or None
        The model of the latest results.
    """

    names: dict[int, str] = field(default_factory=dict)
    colours: dict[int, Colour] = field(default_factory=dict)
    locked_objects: set[int] = field(default_factory=set)
    hidden_objects: set[int] = field(default_factory=set)
    prompts: dict[Key, Prompt] = field(default_factory=dict)
    prompted: dict[Key, Result] = field(default_factory=dict)
    waiting: dict[Key, Prompt] = field(default_factory=dict)
    tracked: dict[Key, Result] = field(default_factory=dict)
    locked: dict[Key, Result] = field(default_factory=dict)
    cycles: dict[int, tuple[Cycle, ...]] = field(default_factory=dict)
    axes: dict[Key, Axis] = field(default_factory=dict)
    spacing_mm: tuple[float, float] | None = None
    made_with: ModelName | None = None

    def copy(self) -> SessionState:
        """A state that can be changed without changing this one; the results themselves are shared."""
        return replace(self, **{name: copy(getattr(self, name)) for name in self.__dataclass_fields__})

    def set_object(
        self, object_id: int, name: str | None, colour: Colour | None, locked: bool | None, hidden: bool | None
    ) -> None:
        """Give an object, new or known, what is not None."""
        self.names[object_id] = name or self.names.get(object_id) or default_name(object_id)
        if colour is not None:
            self.colours[object_id] = colour
        for group, wanted in ((self.locked_objects, locked), (self.hidden_objects, hidden)):
            if wanted is not None:
                (group.add if wanted else group.discard)(object_id)

    def remove_object(self, object_id: int) -> None:
        """Take away an object with all that belongs to it."""
        for own in (self.names, self.colours, self.cycles):
            own.pop(object_id, None)
        self.hidden_objects.discard(object_id)
        for own in (self.prompts, self.prompted, self.waiting, self.tracked, self.locked, self.axes):
            for key in [key for key in own if key[0] == object_id]:
                del own[key]

    def lock(self, keys: Iterable[Key]) -> None:
        """Accept the results that there are."""
        for key in keys:
            result = self.result(key)
            if result is not None:
                self.locked[key] = result

    def unlock(self, keys: Iterable[Key]) -> None:
        """Accept them no more; they stay as if they had been tracked, where no prompt gave them."""
        for key in keys:
            result = self.locked.pop(key, None)
            if result is not None and key not in self.prompted:
                self.tracked[key] = result

    def result(self, key: Key) -> Result | None:
        """The result that counts for an object on a frame, or None where nothing is known."""
        return self.locked.get(key) or self.prompted.get(key) or self.tracked.get(key)

    def is_conditioning(self, key: Key) -> bool:
        """Whether other frames take this one as given: it has a prompt or was accepted."""
        return key in self.prompted or key in self.locked

    def conditioning_frames(self, object_id: int) -> set[int]:
        """Frames of an object that have a prompt or were accepted."""
        return {frame for own in (self.prompted, self.locked) for other, frame in list(own) if other == object_id}

    def may_be_tracked(self, key: Key) -> bool:
        """Whether propagation may write here: nothing was given, and the object is not locked."""
        return key[0] not in self.locked_objects and not self.is_conditioning(key)

    def seen_objects(self) -> set[int]:
        """Objects that were marked or accepted: one that was only said to be absent gives nothing to look for."""
        marked = {object_id for (object_id, _), prompt in list(self.prompts.items()) if not prompt.absent}
        return marked | {object_id for (object_id, _), result in list(self.locked.items()) if result.mask}

    def tracked_among(self, object_id: int, frames: Iterable[int]) -> set[int]:
        """Those of some frames of an object whose result comes from propagation alone."""
        keys = ((object_id, frame) for frame in frames)
        return {key[1] for key in keys if key in self.tracked and not self.is_conditioning(key)}

    def results(self) -> Iterator[tuple[Key, Result]]:
        """Every (key, result) that counts."""
        for key in {**self.tracked, **self.prompted, **self.locked}:
            yield key, self.result(key)

    def known_frames(self) -> tuple[int, ...]:
        """Frames of which anything is known, in order."""
        return tuple(sorted({frame for (_, frame), _ in self.results()}))

    def labels(self, shape: tuple[int, int, int]) -> np.ndarray:
        """All masks as (T, H, W) uint16 labels of that shape; 0 where nothing is known. Overlaps are as in `paint`."""
        labels = np.zeros(shape, np.uint16)
        for frame in self.known_frames():
            labels[frame] = paint(self.step(frame), shape[1:])
        return labels

    def step(self, frame: int) -> Step:
        """What is known of a frame."""
        found = {object_id: self.result((object_id, frame)) for object_id in sorted(self.names)}
        found = {object_id: result for object_id, result in found.items() if result is not None}
        return Step(
            frame=frame,
            masks={object_id: result.mask.unpack() for object_id, result in found.items()},
            predicted_iou={
                key: result.predicted_iou for key, result in found.items() if result.predicted_iou is not None
            },
            object_score={object_id: result.object_score for object_id, result in found.items()},
        )

    def differing_frames(self, other: SessionState) -> frozenset[int]:
        """Frames on which the two states hold different prompts, answered or not, results or locks."""
        changed = set()
        for name in ("prompts", "waiting", "prompted", "tracked", "locked"):
            mine, theirs = getattr(self, name), getattr(other, name)
            changed |= {key[1] for key in mine.keys() | theirs.keys() if mine.get(key) is not theirs.get(key)}
        return frozenset(changed)


def paint(step: Step, shape_hw: tuple[int, int]) -> np.ndarray:
    """A step as one label image (H, W) uint16; where objects overlap, the one with the higher id is on top."""
    labels = np.zeros(shape_hw, np.uint16)
    for object_id in sorted(step.masks):
        labels[step.masks[object_id]] = object_id
    return labels
