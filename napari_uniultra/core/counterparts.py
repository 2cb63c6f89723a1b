"""Which objects of two sets of masks of one loop are the same ones: by their names, or else by their numbers."""

from __future__ import annotations

import re

from napari_uniultra.core.masks import Masks

_NO_NAME = re.compile(r"(object \d+)?", re.IGNORECASE)


def pair_objects(a: Masks, b: Masks) -> list[tuple[int, int]]:
    """Which objects (id in A, id in B) belong together: those of one name, then those of one id.

    Names that were never given, such as "Object 2", stand for nothing; two that were given and differ do not pair.
    """
    names = {number: b.name(number).casefold() for number in b.ids if not is_unnamed(b, number)}
    pairs: dict[int, int] = {}
    for number in a.ids:
        same = [other for other, name in names.items() if name == a.name(number).casefold()]
        left = [other for other in same if other not in pairs.values()]
        if left and not is_unnamed(a, number):
            pairs[number] = number if number in left else left[0]
    for number in a.ids:
        is_free = number not in pairs and number in b.ids and number not in pairs.values()
        if is_free and (is_unnamed(a, number) or is_unnamed(b, number)):
            pairs[number] = number
    return sorted(pairs.items())


def is_unnamed(masks: Masks, number: int) -> bool:
    """Whether an object has no name that anyone gave it."""
    return bool(_NO_NAME.fullmatch(masks.names.get(number, "")))
