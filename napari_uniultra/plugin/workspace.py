"""What belongs to one image layer while the panel works on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from napari_uniultra.core.palette import Colour, colour_of
from napari_uniultra.core.types import Prompt
from napari_uniultra.plugin.confidence import Confidence
from napari_uniultra.plugin.drawing import Drawn
from napari_uniultra.plugin.image_layer import num_frames
from napari_uniultra.plugin.layers import Key
from napari_uniultra.plugin.loop_scale import LoopScale
from napari_uniultra.plugin.loop_session import LoopSession
from napari_uniultra.plugin.outcomes import Snapshot
from napari_uniultra.plugin.painting import Painted
from napari_uniultra.plugin.pending import Pending
from napari_uniultra.plugin.prompt_layers import PromptLayers
from napari_uniultra.plugin.result_layer import ResultLayer
from napari_uniultra.plugin.track_plan import TrackPlan

_AT_REST = ("pan_zoom", "transform")


@dataclass(frozen=True)
class Structure:
    """An object as it is shown.

    Attributes
    ----------
    object_id : int
    name : str
    colour : Colour
        (red, green, blue), 0 to 255.
    locked, hidden : bool
    """

    object_id: int
    name: str
    colour: Colour
    locked: bool = False
    hidden: bool = False


def first_object() -> dict[int, Structure]:
    """The object to draw for where a session has none yet."""
    return {1: Structure(1, "Object 1", colour_of(1))}


@dataclass(eq=False)
class Workspace:
    """An image layer's own layers and objects, what is known of its session, and what that has yet to hear of."""

    image: Any
    prompts: PromptLayers
    result: ResultLayer
    scale: LoopScale
    objects: dict[int, Structure] = field(default_factory=first_object)
    known: set[int] = field(default_factory=set)  # objects that the session knows, or is about to hear of
    current: int = 1
    session: LoopSession = field(default_factory=LoopSession)  # for the inference thread to change
    snapshot: Snapshot = field(default_factory=Snapshot)
    last_read: dict[Key, Prompt] = field(default_factory=dict)  # what the drawings said when last sent or shown
    pending: Pending[Key, Drawn] = field(default_factory=Pending)
    pending_paint: Pending[int, Painted] = field(default_factory=Pending)
    sent_last: dict[Key, int] = field(default_factory=dict)  # the number of the last change of each drawing
    undrawn: set[Key] = field(default_factory=set)  # to be shown once the mouse is let go
    track_range: tuple[int, int] | None = None  # first and last frame to track; None for the whole loop
    unfinished: TrackPlan | None = None  # what is left of a tracking that was stopped
    confidence: Confidence = field(init=False)

    def __post_init__(self) -> None:
        self.confidence = Confidence(self.num_frames)

    @property
    def layers(self) -> list[Any]:
        """The layers of ours that exist for the image."""
        return [*self.prompts.layers, *([] if self.result.layer is None else [self.result.layer])]

    def disconnect(self) -> None:
        """Leave the layers to the user."""
        self.prompts.disconnect()
        self.result.disconnect()

    @property
    def has_tool(self) -> bool:
        """Whether one of these layers is in a mode in which the mouse changes it."""
        return any(str(layer.mode) not in _AT_REST for layer in self.layers)

    @property
    def unheard(self) -> set[Key]:
        """Whose drawings changed after what is known of the session."""
        return {key for key, number in self.sent_last.items() if number > self.snapshot.mark_edits}

    @property
    def num_frames(self) -> int:
        """How many frames the loop has; 1 for a still."""
        return num_frames(self.image)

    @property
    def range(self) -> tuple[int, int]:
        """First and last frame to track."""
        return self.track_range or (0, self.num_frames - 1)
