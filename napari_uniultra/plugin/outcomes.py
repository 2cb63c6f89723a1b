"""What the inference thread hands back to the viewer, and object edits on their way there: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_uniultra.core.measure import Markers
from napari_uniultra.core.palette import Colour
from napari_uniultra.core.types import Prompt
from napari_uniultra.errors import UniUltraError
from napari_uniultra.plugin.confidence import Score
from napari_uniultra.plugin.layers import Key

if TYPE_CHECKING:
    from napari_uniultra.segment.session_about import ModelName


@dataclass(frozen=True)
class Snapshot:
    """What the viewer needs to know of a session, as it was when a job ended.

    Attributes
    ----------
    prompts, waiting : dict of (object id, frame) to Prompt
        Those in force, and those to take their place that were not answered yet.
    locked : frozenset of (object id, frame)
    names : dict of int to str
    colours : dict of int to Colour
        Of the objects for which one was chosen.
    locked_objects, hidden_objects : frozenset of int
    object_edits, mark_edits : int
        How many changes of objects, and of what is drawn, the session has heard of.
    markers : Markers
    spacing_mm : (float, float) or None
        The scale that was set by hand.
    can_undo, can_redo : bool
    """

    prompts: dict[Key, Prompt] = field(default_factory=dict)
    waiting: dict[Key, Prompt] = field(default_factory=dict)
    locked: frozenset[Key] = frozenset()
    names: dict[int, str] = field(default_factory=dict)
    colours: dict[int, Colour] = field(default_factory=dict)
    locked_objects: frozenset[int] = frozenset()
    hidden_objects: frozenset[int] = frozenset()
    object_edits: int = 0
    mark_edits: int = 0
    markers: Markers = field(default_factory=Markers)
    spacing_mm: tuple[float, float] | None = None
    can_undo: bool = False
    can_redo: bool = False

    @property
    def asked(self) -> dict[Key, Prompt]:
        """All that is asked for, answered or not: what the drawings are to say."""
        return {key: prompt for key, prompt in {**self.prompts, **self.waiting}.items() if not prompt.empty}


@dataclass(frozen=True)
class ObjectEdit:
    """A change of an object, which is added if it is not there; None leaves what it has."""

    object_id: int
    name: str | None = None
    colour: Colour | None = None
    locked: bool | None = None
    hidden: bool | None = None
    removed: bool = False

    @property
    def changes(self) -> dict[str, Any]:
        """What the object is given, by the names of these fields."""
        given = {"name": self.name, "colour": self.colour, "locked": self.locked, "hidden": self.hidden}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Outcome:
    """What a job changed.

    Attributes
    ----------
    snapshot : Snapshot
    labels : dict of int to ndarray
        Frame to its new label image (H, W) uint16.
    everything : bool
        Whether frames that are not in ``labels`` are now empty.
    errors : dict of (object id, frame) to UniUltraError
        Prompts that were refused; the others took effect.
    scores : dict of int to dict of int to Score
        The frames of ``labels`` to how sure the model is of each object there.
    """

    snapshot: Snapshot
    labels: dict[int, np.ndarray] = field(default_factory=dict)
    everything: bool = False
    errors: dict[Key, UniUltraError] = field(default_factory=dict)
    scores: dict[int, dict[int, Score]] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedModel:
    """The model in use, in words for the panel."""

    name: str
    where: str  # such as "on the processor (2 cores)"
    image_size: int
    close_views: bool  # whether it was trained to look closely


@dataclass(frozen=True)
class OpenedSession:
    """A session file that was opened.

    Attributes
    ----------
    outcome : Outcome
        All masks there are.
    made_with : ModelName or None
        The model that they came from.
    model : str
        Its name among the models of this machine; empty when it is not there, or in use already.
    is_here : bool
    """

    outcome: Outcome
    made_with: ModelName | None
    model: str
    is_here: bool


@dataclass(frozen=True)
class OpenedLoop:
    """A loop that was taken.

    Attributes
    ----------
    outcome : Outcome or None
        All masks of the session that there was on it; None where nothing was done yet.
    has_saved_work : bool
        Whether there is work of an earlier session on this loop, which can be restored.
    """

    outcome: Outcome | None
    has_saved_work: bool
