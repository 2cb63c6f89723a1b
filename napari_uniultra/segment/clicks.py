"""Where clicks are answered: closely, around what they mean, and wide enough to see all of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from napari_uniultra.core.postprocess import largest_piece
from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Box, Prompt
from napari_uniultra.segment.view import CLICK_MARGIN, MARGIN, View, close_view

_WIDENED = 3  # times at most
_EDGE = 0.02  # of a view's side: a mask that comes so near to its edge is cut by it


def view_around_clicks(answer: Callable[[View, Prompt], np.ndarray], clicks: Prompt, whole: View) -> View:
    """The view in which clicks are answered, the whole frame where no closer one shows what they mean.

    In the whole frame a click may mean many things; in a view around one of them, that one mostly is what is meant.
    What leaves that view is larger than was thought, and looked at from farther away.

    Parameters
    ----------
    answer : callable
        From a view, and the clicks in pixels of that view, to the mask (h, w) bool in it.
    clicks : Prompt
        In pixels of the frame.
    whole : View
        All of the frame.
    """
    view = whole
    for _ in range(1 + _WIDENED):
        asked = view.prompt(clicks)
        if asked is None:
            return whole
        box = box_of_mask(largest_piece(view.put(answer(view, asked), whole.shape_hw)))
        if box is None or not (view == whole or is_cut(box, view, whole)):
            return view
        margin = CLICK_MARGIN if view == whole else MARGIN  # the more of what is cut
        view = close_view(box, whole.shape_hw, whole.size, margin=margin) or whole
        if view == whole:
            return whole
    return view


def is_cut(box: Box, view: View, whole: View) -> bool:
    """Whether what fills a box of the frame leaves the view on a side where the frame goes on."""
    edge = _EDGE * view.height, _EDGE * view.width
    return (
        (view.left > 0 and box[0] <= view.left + edge[1])
        or (view.top > 0 and box[1] <= view.top + edge[0])
        or (view.left + view.width < whole.width and box[2] >= view.left + view.width - edge[1])
        or (view.top + view.height < whole.height and box[3] >= view.top + view.height - edge[0])
    )
