"""Layers that a closed panel left on a loop: the next panel goes on with what was made in them meanwhile."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points, Shapes

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

_LEFT = "left"  # in a layer's metadata: the content key of its loop and, of masks, a digest of each frame
_KINDS = (Labels, Shapes, Points)
_TAKEN = "What was painted on {frames} while the panel was closed is taken over. Undo takes it back."
_ASIDE = "The masks that an earlier panel left on {image} are not of its saved work. They are kept, hidden, in {names}."


def leave(work: Workspace) -> None:
    """Note in the layers of a workspace how they are left to the user."""
    for layer in work.layers if work.session.cine is not None else ():
        digests = tuple(_digests(layer)) if isinstance(layer, Labels) else ()
        known = {**layer.metadata.get(METADATA_KEY, {}), _LEFT: (work.session.cine.key, digests)}
        layer.metadata = {**layer.metadata, METADATA_KEY: known}


def go_on(control: SegmentController) -> None:
    """Restore the work that an earlier panel left on the loop in use, with what was painted, drawn and marked since.

    Of the layers themselves, those stay, set aside, that have more than what is restored.
    """
    work = control.work
    left = [layer for layer in control.viewer.layers if layer not in work.layers and _is_left(layer, work.image)]
    if not left:
        return
    own = [layer for layer in left if _note(layer)[0] == work.session.cine.key]
    painted = {frame: Painted(None, labels) for layer in own for frame, labels in _painted(layer)}
    drawn = _drawn(control.viewer, work.image, own)
    markers = next((markers_of(layer) for layer in own if isinstance(layer, Labels)), Markers())
    for kind in _KINDS:
        set_aside(control.viewer, work.image, kind)
    if painted:
        control.noticed.emit(_TAKEN.format(frames=frames_in_words(painted).lower()))
    if own and control.restorable:
        control.review.restore()
    else:
        _tell_of_masks(control, left)
    done = partial(_taken, control, [layer for layer in own if isinstance(layer, Labels) or not drawn.problems])
    control.submit(lambda: control.host.ask_left(drawn.prompts, painted, markers), done)


def _taken(control: SegmentController, layers: list[Any], outcome: Outcome) -> None:
    control.review.show_other_state(outcome)
    control.marks.send_again()
    for layer in layers:
        if layer in control.viewer.layers and _is_shown(layer, control.work.result.layer):
            control.viewer.layers.remove(layer)


def _is_shown(layer: Any, masks: Labels | None) -> bool:
    """Whether a layer has nothing that the masks in use have not: all that is drawn was asked for."""
    if not isinstance(layer, Labels):
        return True
    shown = np.broadcast_to(np.uint16(0), layer.data.shape) if masks is None else masks.data
    return shown.shape == layer.data.shape and all(map(np.array_equal, shown, layer.data))


def _tell_of_masks(control: SegmentController, layers: list[Any]) -> None:
    names = [repr(layer.name) for layer in layers if isinstance(layer, Labels)]
    if names:
        control.noticed.emit(_ASIDE.format(image=control.image.name, names=" and ".join(names)))


def _is_left(layer: Any, image: Any) -> bool:
    return isinstance(layer, _KINDS) and bool(names_image(layer, image)) and _note(layer) is not None


def _note(layer: Any) -> tuple[str, tuple[int, ...]] | None:
    return layer.metadata.get(METADATA_KEY, {}).get(_LEFT)


def _drawn(viewer: Any, image: Any, layers: list[Any]) -> Read:
    """What boxes and clicks ask for."""
    prompts = PromptLayers(viewer, image, lambda: None)
    prompts.boxes = next((layer for layer in layers if isinstance(layer, Shapes)), None)
    prompts.points = next((layer for layer in layers if isinstance(layer, Points)), None)
    return prompts.read()


def _painted(layer: Any) -> Iterator[tuple[int, np.ndarray]]:
    """The frames of masks that changed since they were left, as (frame, labels (H, W) uint16)."""
    if isinstance(layer, Labels):
        for frame, (before, now) in enumerate(zip(_note(layer)[1], _digests(layer), strict=False)):
            if before != now:
                yield frame, np.array(_frames(layer)[frame]).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)


def _digests(layer: Any) -> Iterator[int]:
    return (zlib.crc32(np.ascontiguousarray(frame)) for frame in _frames(layer))


def _frames(layer: Any) -> Any:
    return layer.data if layer.ndim > 2 else layer.data[None]
