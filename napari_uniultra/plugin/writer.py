"""napari's writer: a Labels layer becomes a file of masks with the loop's scale and the names of the objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_uniultra.core.masks import Masks
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import UniUltraError, WriteError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.writers import format_of, write_masks
from napari_uniultra.plugin.layers import METADATA_KEY, colours_in, names_of_objects


def write_labels(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the masks of one Labels layer, (T, H, W) or (H, W), in the format of the path's suffix.

    Spacing and times are those of the loop that the masks were drawn on (the layer's metadata). A format that shows or
    refers to the loop opens its file again.

    Returns
    -------
    list of str
        The files or folders that were written.

    Raises
    ------
    WriteError
        For another file format, masks that are none, a loop that is needed and gone, or a disk that refuses.
    """
    known = (meta.get("metadata") or {}).get(METADATA_KEY, {})
    loop = loop_for(path, known.get("source", ""))
    names, colours = names_of_objects(meta.get("features")), colours_in(meta.get("metadata"))
    masks = Masks(data, names, known.get("spacing_mm"), known.get("frame_times_s"), loop, colours)
    return [str(written) for written in write_masks(path, masks)]


def loop_for(path: str, source: str) -> Cine | None:
    """The loop of a file, where the format of the path's suffix shows or refers to it.

    Raises
    ------
    WriteError
        When it is needed and cannot be read.
    """
    if not format_of(path).needs_loop:
        return None
    if not source or not Path(source).exists():
        raise WriteError(
            "The masks were not saved in this format",
            "it needs the loop's own file, which is not there",
            "Choose another format, or open the loop from its file",
        )
    try:
        return read_cine(source)
    except UniUltraError as error:
        raise WriteError("The loop's own file cannot be read again", error.why, error.fix) from error
