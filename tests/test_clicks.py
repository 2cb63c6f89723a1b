"""Where clicks are answered, for a network that finds a part in whole frames and all that is there in close views."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Prompt
from napari_uniultra.segment.clicks import is_cut, view_around_clicks
from napari_uniultra.segment.view import CLICK_MARGIN, View, close_view, whole_view

SHAPE_HW = 400, 600
WHOLE = whole_view(SHAPE_HW, 512)
CLICK = Prompt(points=((300.0, 200.0),), labels=(1,))


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SHAPE_HW, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def network(in_whole: np.ndarray, truth: np.ndarray, seen: list[View]) -> Callable[[View, Prompt], np.ndarray]:
    def answer(view: View, prompt: Prompt) -> np.ndarray:
        seen.append(view)
        ((x, y),) = prompt.points
        assert (view.left + x, view.top + y) == CLICK.points[0]
        return in_whole if view == WHOLE else view.cut(truth)

    return answer


def test_what_fits_is_looked_at_closely() -> None:
    truth, seen = rectangle(270, 180, 330, 220), []
    view = view_around_clicks(network(truth, truth, seen), CLICK, WHOLE)
    assert view == close_view(box_of_mask(truth), SHAPE_HW, 512, margin=CLICK_MARGIN)
    assert seen == [WHOLE, view]


@pytest.mark.parametrize("truth", [rectangle(280, 180, 420, 220), rectangle(240, 190, 330, 330)])
def test_what_leaves_the_view_is_looked_at_from_farther_away(truth: np.ndarray) -> None:
    seen: list[View] = []
    view = view_around_clicks(network(rectangle(290, 190, 310, 210), truth, seen), CLICK, WHOLE)
    sides = [each.height for each in seen[1:]]
    assert sides == sorted(set(sides))
    assert len(sides) > 1
    assert view == seen[-1] != WHOLE
    assert view.put(view.cut(truth), SHAPE_HW).sum() == truth.sum()  # all of it is seen


def test_what_runs_through_the_frame_is_looked_at_in_the_whole_frame() -> None:
    truth = rectangle(0, 150, 600, 250)
    assert view_around_clicks(network(rectangle(280, 180, 320, 220), truth, []), CLICK, WHOLE) == WHOLE


@pytest.mark.parametrize("found", [rectangle(10, 10, 40, 40), np.zeros(SHAPE_HW, bool)])
def test_clicks_beside_what_was_found_are_answered_in_the_whole_frame(found: np.ndarray) -> None:
    assert view_around_clicks(network(found, found, []), CLICK, WHOLE) == WHOLE


def test_a_view_with_nothing_in_it_stays() -> None:
    blob = rectangle(290, 190, 310, 210)
    view = view_around_clicks(network(blob, np.zeros(SHAPE_HW, bool), []), CLICK, WHOLE)
    assert view == close_view(box_of_mask(blob), SHAPE_HW, 512, margin=CLICK_MARGIN)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((20, 120, 80, 180), False),
        ((0, 120, 80, 180), False),  # the frame ends there
        ((20, 102, 80, 180), True),
        ((20, 120, 98, 180), True),
        ((20, 120, 80, 199), True),
    ],
)
def test_only_sides_inside_the_frame_cut(box: tuple, expected: bool) -> None:
    assert is_cut(box, View(100, -20, 100, 120, 256), WHOLE) is expected
