"""The colours of objects, the same in the viewer, the overlay video and the contact sheet."""

from __future__ import annotations

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


def colour_of(object_id: int) -> tuple[int, int, int]:
    """The (red, green, blue) of an object, 0 to 255; ids from 1, background (0) is black. Repeats after seven."""
    if object_id == 0:
        return 0, 0, 0
    return _COLOURS[(object_id - 1) % len(_COLOURS)]
