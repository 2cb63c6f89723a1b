"""How drawings look: the object by the colour of the edge, the sign of a click by its face and symbol."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from napari_uniultra.core.palette import Colour, colour_of

SYMBOLS = {1: "cross", 0: "x"}  # told apart without colour, too
_ADD_COLOUR, _REMOVE_COLOUR = np.array([0.0, 0.62, 0.45, 1.0]), np.array([0.84, 0.37, 0.0, 1.0])


def edge_colours(ids: Sequence[int], colours: Mapping[int, Colour], hidden: Collection[int] = ()) -> np.ndarray:
    """The objects' colours, (N, 4) from 0 to 1; those of hidden ones are transparent."""
    rows = [(*colour_of(object_id, colours), 0 if object_id in hidden else 255) for object_id in ids]
    return np.array(rows, dtype=float).reshape(-1, 4) / 255


def face_colours(labels: Sequence[int]) -> np.ndarray:
    """Of clicks that add (1) and remove (0), (N, 4) from 0 to 1."""
    return np.array([_ADD_COLOUR if label else _REMOVE_COLOUR for label in labels]).reshape(-1, 4)
