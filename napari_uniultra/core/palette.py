"""The colours of objects, the same in the viewer, the overlay video and the contact sheet."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral
from typing import Any

from napari_uniultra.errors import PromptError

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255

# Okabe and Ito's palette without black: told apart with all common kinds of colour blindness, and visible on grey.
_COLOURS = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (204, 121, 167),  # reddish purple
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)


def colour_of(object_id: int, chosen: Mapping[int, Colour] | None = None) -> Colour:
    """The colour of an object: the one chosen for it, else that of the palette, which repeats after seven.

    Ids are from 1; background (0) is black.
    """
    if object_id == 0:
        return 0, 0, 0
    own = (chosen or {}).get(object_id)
    return _COLOURS[(object_id - 1) % len(_COLOURS)] if own is None else own


def free_colour(object_id: int, used: Collection[Colour]) -> Colour:
    """A colour of the palette for a new object: its own, or one that nothing else has, as long as there is one."""
    own = colour_of(object_id)
    return next((colour for colour in (own, *_COLOURS) if colour not in used), own)


def colour_of_hex(text: object) -> Colour | None:
    """A colour from "#e69f00"; None for anything else."""
    found = re.fullmatch(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", str(text).strip().lower())
    return None if found is None else checked_colour([int(part, 16) for part in found.groups()])


def checked_colour(values: Any) -> Colour:
    """Three whole numbers from 0 to 255 as a `Colour`. Raises PromptError for anything else."""
    colour = tuple(values) if isinstance(values, Iterable) else ()
    if len(colour) != 3 or not all(isinstance(value, Integral) and 0 <= value <= 255 for value in colour):
        raise PromptError(f"{values!r} is not a colour", fix="Give red, green and blue, each a whole number, 0 to 255")
    red, green, blue = map(int, colour)
    return red, green, blue
