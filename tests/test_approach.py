"""What tracking takes as known of an object when it comes to a frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass

from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Cine
from napari_uniultra.model.config import architecture
from napari_uniultra.segment.approach import Approaches, last_seen, without_crumbs
from napari_uniultra.segment.results import PackedMask, Result
from napari_uniultra.segment.state import SessionState
from napari_uniultra.segment.view import whole_view

SHAPE = 64, 96


def result(iou: float | None, mask: np.ndarray | None = None) -> Result:
    mask = square(20, 30) if mask is None else mask
    return Result(PackedMask.pack(mask), iou, 5.0, np.zeros(256, np.float32), reverse=False, view=None)


def square(top: int, left: int, side: int = 12) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def state(*tracked: Result) -> SessionState:
    """A prompt on frame 0, and what was tracked from frame 1 on."""
    return SessionState(
        names={1: "Object 1"},
        prompted={(1, 0): result(0.2)},
        tracked={(1, frame): own for frame, own in enumerate(tracked, start=1)},
    )


EMPTY = np.zeros(SHAPE, bool)


@pytest.mark.parametrize(
    ("tracked", "frame"),
    [
        ([result(0.9), result(0.8)], 2),
        ([result(0.9), result(0.3)], 1),  # what it is unsure of may be lost
        ([result(0.3), result(0.3)], 0),  # a prompt counts whatever the model thinks of it
        ([result(0.9), result(None)], 2),  # some models give no estimate
        ([result(0.9), result(0.9, EMPTY)], 1),
        ([result(0.9)] + [result(0.3)] * 8, 1),
        ([result(0.9)] + [result(0.3)] * 9, 10),  # too long ago: better to follow what is unsure
        ([result(0.9)] + [result(0.3)] * 9 + [result(0.9, EMPTY)], 10),
    ],
)
def test_the_last_frame_that_can_be_trusted(tracked: list[Result], frame: int) -> None:
    last = len(tracked)
    assert last_seen(state(*tracked), (1, last), last + 1) == (1, frame)


def test_backwards_likewise() -> None:
    own = SessionState(names={1: ""}, tracked={(1, 5): result(0.9), (1, 4): result(0.2)})
    assert last_seen(own, (1, 4), 3) == (1, 5)


def test_where_nothing_was_ever_seen() -> None:
    own = SessionState(names={1: ""}, tracked={(1, 0): result(0.9, EMPTY)})
    assert last_seen(own, (1, 0), 1) == (1, 0)


class FakeMemories:
    """The one thing that an approach without priors asks for."""

    whole = whole_view(SHAPE, 512)


def test_crumbs_do_not_widen_the_view() -> None:
    main = square(20, 30)
    crumbs = main | square(60, 90, 2)
    config = architecture("uniultra-mini")  # no priors: only the view depends on what was seen
    cine = Cine(np.random.default_rng(0).integers(0, 255, (3, *SHAPE), dtype=np.uint8))
    views = [
        Approaches(cine, FakeMemories()).to(state(result(0.9, mask)), (1, 2), False, config, zoom=True).view
        for mask in (main, crumbs)
    ]
    assert views[0] == views[1] != FakeMemories.whole


def test_crumbs_are_not_carried_on() -> None:
    shown = torch.full((1, 1, 16, 16), -5.0)
    shown[..., 2:9, 3:9] = 4.0
    with_crumbs = shown.clone()
    with_crumbs[..., 12:14, 12] = 6.0
    kept = without_crumbs(with_crumbs)
    assert torch.equal(kept > 0, shown > 0)
    assert torch.equal(kept[shown > 0], shown[shown > 0])
    assert without_crumbs(shown) is shown


def test_the_main_piece_of_a_packed_mask_is_that_of_the_frame() -> None:
    mask = np.zeros((40, 50), bool)
    mask[5:9, 6:10], mask[20:31, 30:45], mask[2, 49] = True, True, True
    main = np.zeros_like(mask)
    main[20:31, 30:45] = True
    packed = PackedMask.pack(mask)
    assert np.array_equal(packed.unpack(), mask)
    piece = packed.main_piece()
    assert np.array_equal(piece.unpack(), main)
    assert piece.main_piece() is piece
    assert piece.box == (30, 20, 45, 31) == box_of_mask(main)
    assert piece.centre == pytest.approx(center_of_mass(main))
    empty = PackedMask.pack(np.zeros_like(mask))
    assert not empty.unpack().any()
    assert empty.main_piece() is empty
    assert empty.box is None
