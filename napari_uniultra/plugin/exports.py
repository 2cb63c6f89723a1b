"""Files of what a session found: masks and measurements. No Qt, no napari."""

from __future__ import annotations

from typing import Any

from napari_uniultra.core.masks import Masks
from napari_uniultra.core.measure import measurement_rows
from napari_uniultra.core.palette import colour_of
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import PromptError
from napari_uniultra.plugin.writer import loop_for


def export_masks(session: Any, path: str, cine: Cine) -> None:
    """Write the masks of all results of a `CineSession` in the format of the path's suffix.

    ``cine`` is the loop with the spacing as it is known now: it may have been set since the loop was opened.

    Raises
    ------
    PromptError, WriteError
        If there are no masks, or the file cannot be written.
    """
    from napari_uniultra.io.writers import write_masks

    if not session.frames_with_results:
        raise PromptError("There are no masks to save yet", fix="Segment or track a structure first")
    colours = {object_id: colour_of(object_id, session.colours) for object_id in session.names}
    loop = loop_for(path, cine.source)
    masks = Masks(session.masks, session.names, cine.spacing_mm, cine.frame_times_s, loop, colours)
    write_masks(path, masks)


def export_measurements(session: Any, path: str, cine: Cine) -> None:
    """Write the measurements of all results of a `CineSession` as CSV; ``cine`` is as for `export_masks`.

    Raises
    ------
    PromptError, WriteError
        If there is nothing to measure, or the file cannot be written.
    """
    from napari_uniultra.io.writers import write_measurements_csv

    if not session.frames_with_results:
        raise PromptError("There is nothing to measure", fix="Segment or track a structure first")
    steps = (session.step(frame) for frame in session.frames_with_results)
    write_measurements_csv(path, measurement_rows(cine, steps, session.names))
