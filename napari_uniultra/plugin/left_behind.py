"""Layers that a closed panel left on a loop: the next panel goes on with what was made in them meanwhile."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points, Shapes

from napari_uniultra.core.masks import stack_of
from napari_uniultra.core.measure import Markers
from napari_uniultra.core.words import frames_in_words
from napari_uniultra.plugin.earlier import set_aside
from napari_uniultra.plugin.layers import METADATA_KEY, markers_of, names_image
from napari_uniultra.plugin.outcomes import Outcome
from napari_uniultra.plugin.painting import Painted
from napari_uniultra.plugin.prompt_layers import PromptLayers, Read
from napari_uniultra.plugin.workspace import Workspace

if TYPE_CHECKING:
    from napari_uniultra.plugin.controller import SegmentController
    from napari_uniultra.plugin.loop_session import LoopSession
    from napari_uniultra.plugin.session_host import SessionHost

_LEFT = "left"  # in a layer's metadata: the content key of its loop and, of masks, a digest of each frame
_KINDS = (Labels, Shapes, Points)
_TAKEN = "What was painted on {frames} while the panel was closed is taken over. Undo takes it back."
_ASIDE = "The masks that an earlier panel left on {image} are not of its saved work. They are kept, hidden, in {names}."


@dataclass(frozen=True)
class Left:
    """What a closed panel left on a loop, as it is now.

    Attributes
    ----------
    layers : list of Layer
    drawn : Read
        What boxes and clicks ask for.
    painted : dict of int to Painted
        The frames whose masks changed since they were left.
    markers : Markers or None
        Beats and long axes; None where there are no masks to have some.
    """

    layers: list[Any] = field(default_factory=list)
    drawn: Read = field(default_factory=Read)
    painted: dict[int, Painted] = field(default_factory=dict)
    markers: Markers | None = None


def leave(work: Workspace) -> None:
    """Note in the layers of a workspace how they are left to the user."""
    for layer in work.layers if work.session.cine is not None else ():
        digests = tuple(_digests(layer)) if isinstance(layer, Labels) else ()
        known = {**layer.metadata.get(METADATA_KEY, {}), _LEFT: (work.session.cine.key, digests)}
        layer.metadata = {**layer.metadata, METADATA_KEY: known}


def take_aside(viewer: Any, image: Any, others: Collection[Any]) -> dict[str, Left]:
    """Set aside what was left on an image, before layers can take its place; ``others`` are in use.

    Returns, for the content key of each loop that it was left for, what it holds.
    """
    left = [layer for layer in viewer.layers if layer not in others and _is_left(layer, image)]
    keys = dict.fromkeys(_note(layer)[0] for layer in left)
    found = {key: _read(viewer, image, [layer for layer in left if _note(layer)[0] == key]) for key in keys}
    for layer in left:
        set_aside(layer)
    return found


def go_on(control: SegmentController, left: Mapping[str, Left]) -> None:
    """Restore the work that an earlier panel left on the loop that is being opened, with what was made in it since.

    What is done from now on comes after that. Of the layers themselves, those stay that have more than is restored.
    """
    if not left:
        return
    host, session = control.host, control.work.session
    control.submit(partial(_restore, host, session, left), partial(_restored, control, left))
    control.submit(partial(_ask, host, session, left), partial(_taken, control, left))


def _restore(host: SessionHost, session: LoopSession, left: Mapping[str, Left]) -> Outcome | None:
    """In the inference thread."""
    return host.restore() if session.cine.key in left and session.saved_work is not None else None


def _ask(host: SessionHost, session: LoopSession, left: Mapping[str, Left]) -> Outcome:
    """In the inference thread."""
    own = left.get(session.cine.key) or Left()
    return host.ask_left(own.drawn.prompts, own.painted, own.markers)


def _restored(control: SegmentController, left: Mapping[str, Left], outcome: Outcome | None) -> None:
    if outcome is not None:
        control.restorable = False
        control.review.show_other_state(outcome)
        return
    names = [repr(layer.name) for own in left.values() for layer in own.layers if isinstance(layer, Labels)]
    if names:
        control.noticed.emit(_ASIDE.format(image=control.image.name, names=" and ".join(names)))


def _taken(control: SegmentController, left: Mapping[str, Left], outcome: Outcome) -> None:
    control.review.show_other_state(outcome)
    control.marks.send_again()
    own = left.get(control.work.session.cine.key)
    if own is None:
        return
    if own.painted:
        control.noticed.emit(_TAKEN.format(frames=frames_in_words(own.painted).lower()))
    for layer in own.layers:
        is_asked = isinstance(layer, Labels) or not own.drawn.problems
        if is_asked and layer in control.viewer.layers and _is_shown(layer, control.work.result.layer):
            control.viewer.layers.remove(layer)


def _is_shown(layer: Any, masks: Labels | None) -> bool:
    """Whether a layer has nothing that the masks in use have not: all that is drawn was asked for."""
    if not isinstance(layer, Labels):
        return True
    shown = np.broadcast_to(np.uint16(0), layer.data.shape) if masks is None else masks.data
    return shown.shape == layer.data.shape and all(map(np.array_equal, shown, layer.data))


def _is_left(layer: Any, image: Any) -> bool:
    return isinstance(layer, _KINDS) and bool(names_image(layer, image)) and _note(layer) is not None


def _note(layer: Any) -> tuple[str, tuple[int, ...]] | None:
    return layer.metadata.get(METADATA_KEY, {}).get(_LEFT)


def _read(viewer: Any, image: Any, layers: list[Any]) -> Left:
    prompts = PromptLayers(viewer, image, lambda: None)
    prompts.boxes = next((layer for layer in layers if isinstance(layer, Shapes)), None)
    prompts.points = next((layer for layer in layers if isinstance(layer, Points)), None)
    painted = {frame: Painted(None, labels) for layer in layers for frame, labels in _painted(layer)}
    markers = next((markers_of(layer) for layer in layers if isinstance(layer, Labels)), None)
    return Left(layers, prompts.read(), painted, markers)


def _painted(layer: Any) -> Iterator[tuple[int, np.ndarray]]:
    """The frames of masks that changed since they were left, as (frame, labels (H, W) uint16)."""
    if isinstance(layer, Labels):
        for frame, (before, now) in enumerate(zip(_note(layer)[1], _digests(layer), strict=False)):
            if before != now:
                yield frame, np.array(stack_of(layer.data)[frame]).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)


def _digests(layer: Any) -> Iterator[int]:
    return (zlib.crc32(np.ascontiguousarray(frame)) for frame in stack_of(layer.data))
