"""What a user painted in a label image, as mask prompts. Arrays in, prompts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from napari_uniultra.core.types import Prompt


@dataclass(frozen=True)
class Painted:
    """A frame's labels, (H, W) integer, before and after the user painted in them.

    ``before`` is None where it is not known: then it is what the session knows of the frame.
    """

    before: np.ndarray | None
    after: np.ndarray

    def then(self, later: Painted) -> Painted:
        """This and what was painted afterwards as one, whatever was written into the frame in between."""
        if later.before is None:
            return Painted(self.before, later.after)
        return Painted(self.before, np.where(later.after != later.before, later.after, self.after))


def prompts_of_painted(painted: Painted, shown: np.ndarray, masks: Mapping[int, np.ndarray]) -> dict[int, Prompt]:
    """Object id to the mask prompt that painting makes of it; an object that was wiped off is absent.

    Only the pixels that were touched count: what a label image does not show, because another object lies over it or
    because it was found in the meantime, stays as it is.

    Parameters
    ----------
    painted : Painted
    shown : ndarray
        (H, W) the frame's labels as the session has them.
    masks : mapping of int to ndarray
        (H, W) bool, the masks as the session has them.
    """
    before = shown if painted.before is None else painted.before
    changed = painted.after != before
    prompts = {}
    for object_id in np.union1d(painted.after[changed], before[changed]):
        if object_id == 0:
            continue
        known = masks.get(int(object_id), np.zeros(changed.shape, bool))
        mask = (known & ~(changed & (before == object_id))) | (changed & (painted.after == object_id))
        if not np.array_equal(mask, known):
            prompts[int(object_id)] = Prompt(mask=mask)
    return prompts
