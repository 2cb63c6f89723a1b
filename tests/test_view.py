"""Close views: geometry by hand, and structures tracked through them by the bundled model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch.utils._pytree import tree_leaves

from napari_uniultra.core.metrics import dice
from napari_uniultra.core.prompts import box_of_mask
from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import MemoryConfig, architecture
from napari_uniultra.model.load import load_model
from napari_uniultra.model.prior import PRIOR_LOGIT
from napari_uniultra.model.resize import network_at
from napari_uniultra.segment.reframe import seen_from
from napari_uniultra.segment.session import CineSession
from napari_uniultra.segment.session_about import LoopName, SessionAbout
from napari_uniultra.segment.session_file import load_state, save_state
from napari_uniultra.segment.view import (
    View,
    checked_view,
    close_size,
    close_view,
    memory_view,
    whole_view,
)

SHAPE = 120, 160


def block(top: int, left: int, height: int, width: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def inside_of(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


@pytest.mark.parametrize(("top", "left"), [(20, 30), (-25, -10), (100, 140), (-60, 200)])
def test_a_cut_is_what_padding_gives_and_goes_back(top: int, left: int) -> None:
    frame = np.random.default_rng(0).integers(1, 255, (*SHAPE, 3), np.uint8)
    padded = np.pad(frame, ((100, 100), (100, 100), (0, 0)))
    view = View(top, left, 50, 50, 64)
    cut = view.cut(frame)
    assert np.array_equal(cut, padded[top + 100 : top + 150, left + 100 : left + 150])
    back = view.put(cut[..., 0], SHAPE)
    inside = np.zeros((320, 360), bool)
    inside[top + 100 : top + 150, left + 100 : left + 150] = True
    assert np.array_equal(back, frame[..., 0] * inside[100:220, 100:260])


def test_the_whole_view_changes_nothing() -> None:
    frame = np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)
    whole = whole_view(SHAPE, 512)
    assert whole.cut(frame) is frame
    assert whole.put(frame, SHAPE) is frame


BOX = 60.0, 40.0, 80.0, 60.0  # 20 x 20 around (70, 50)


def test_a_close_view_is_a_square_with_room_around_a_structure() -> None:
    shape = 600, 800
    box = 300.0, 200.0, 430.0, 300.0  # 130 wide, 100 high, around (365, 250)
    assert close_view(box, shape, 512) == View(250 - 195, 365 - 195, 390, 390, 256)
    assert close_view(box, shape, 512, margin=0.5) == View(250 - 130, 365 - 130, 260, 260, 256)
    assert close_view((0.0, 0.0, 266.0, 9.0), shape, 512).height == 798
    assert close_view((0.0, 0.0, 267.0, 9.0), shape, 512) is None  # it would be longer than the frame
    assert close_view((10.0, 10.0, 13.0, 13.0), shape, 512).height == 48


def test_a_close_view_follows_and_keeps_its_side() -> None:
    view = close_view(BOX, SHAPE, 512, shift=(5.0, -10.0), before=View(0, 0, 52, 52, 256))
    assert view == View(55 - 26, 60 - 26, 52, 52, 256)
    assert close_view(BOX, SHAPE, 512, before=View(0, 0, 30, 30, 256)).height == 60
    assert close_view(BOX, SHAPE, 512, before=whole_view(SHAPE, 512)).height == 60


def test_memories_are_seen_as_large_as_the_view_that_asks() -> None:
    like = View(0, 0, 70, 70, 384)
    assert memory_view(block(40, 60, 20, 20), 384, like) == View(15, 35, 70, 70, 384)
    assert memory_view(np.zeros(SHAPE, bool), 384, like) == like


def test_prompts_move_with_the_view() -> None:
    view = View(10, 20, 50, 60, 256)
    asked = Prompt(box=(30.0, 20.0, 50.0, 40.0), points=((25.5, 12.0),), labels=(1,), rounds=(1,))
    assert view.prompt(asked) == Prompt((10.0, 10.0, 30.0, 30.0), ((5.5, 2.0),), (1,), None, (1,))
    assert view.prompt(Prompt(points=((19.0, 12.0),), labels=(1,))) is None
    assert view.prompt(Prompt(points=((30.0, 61.0),), labels=(1,))) is None


def ramp(view: View, shift: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    """Logits that are a plane over the frame, as a view shows it after a shift."""
    places = (torch.arange(view.size // 4) + 0.5) / (view.size // 4)
    rows = view.top + places * view.height - shift[0]
    columns = view.left + places * view.width - shift[1]
    return (0.05 * rows[:, None] - 0.03 * columns)[None, None]


@pytest.mark.parametrize("shift", [(0.0, 0.0), (6.0, -9.5)])
def test_a_plane_looks_the_same_from_everywhere(shift: tuple[float, float]) -> None:
    whole, close = whole_view(SHAPE, 512), View(30, 50, 60, 60, 256)
    torch.testing.assert_close(seen_from(ramp(whole), whole, close, shift), ramp(close, shift), atol=1e-4, rtol=0)
    back = seen_from(ramp(close), close, whole)
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[34:94, 42:86] = True  # rows 30 to 90 of 120, columns 50 to 110 of 160, less a pixel at the edges
    torch.testing.assert_close(back[0, 0][inside], ramp(whole)[0, 0][inside], atol=1e-3, rtol=0)
    assert back[0, 0, 0, 0] == -PRIOR_LOGIT


def test_the_same_view_gives_the_very_logits() -> None:
    view = View(30, 50, 60, 60, 256)
    logits = ramp(view)
    assert seen_from(logits, view, view) is logits


def test_numbers_that_are_no_view_are_refused() -> None:
    assert checked_view([1, -2, 30, 40, 256]) == View(1, -2, 30, 40, 256)
    for numbers in ([0, 0, 0, 40, 256], [0, 0, 30, 40, 250], [0, 0, 30, 40, 1 << 20], [1, 2, 3]):
        with pytest.raises((ValueError, TypeError)):
            checked_view(numbers)


# With the bundled model -----------------------------------------------------------------------------------------------

FRAMES = 5


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model("uniultra-mini", device="cpu")


@pytest.fixture(scope="module")
def loop(repo_root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames of the simulated sample with a small structure, and its truth."""
    cine = read_cine(repo_root / "sample_data" / "simulated.tif")
    masks = tifffile.imread(repo_root / "sample_data" / "simulated_masks.tif")[:FRAMES]
    return np.stack([cine.frame(number) for number in range(FRAMES)]), masks == 2


@pytest.fixture(scope="module")
def zoomed(model: Any, loop: tuple[np.ndarray, np.ndarray]) -> CineSession:
    frames, truth = loop
    session = CineSession(Cine(frames), model)
    session.zoom = True
    session.add_box(1, 0, box_of_mask(truth[0]))
    list(session.propagate())
    return session


def test_a_small_structure_is_followed_in_a_close_view(
    zoomed: CineSession, loop: tuple[np.ndarray, np.ndarray]
) -> None:
    for frame in range(1, FRAMES):
        view = zoomed._state.result((1, frame)).view
        assert view is not None
        assert view.size < 512
        assert dice(zoomed.step(frame).masks[1], loop[1][frame]) > 0.8
    assert zoomed.logits(1, 2).shape == (128, 128)  # of all of the frame


def test_a_click_mends_a_frame_in_its_close_view(model: Any, zoomed: CineSession, tmp_path: Path) -> None:
    save_state(tmp_path / "a.npz", zoomed._state, SessionAbout(LoopName.of(zoomed.cine)))
    session = CineSession.restore(tmp_path / "a.npz", zoomed.cine, model)
    view = session._state.result((1, 2)).view
    assert view == zoomed._state.result((1, 2)).view
    inside = inside_of(session.step(2).masks[1])
    mended = session.add_points(1, 2, [inside], [1]).masks[1]
    assert session._state.result((1, 2)).view == view
    assert dice(mended, zoomed.step(2).masks[1]) > 0.8
    far = (1.0, 1.0)  # outside of the view: all of the frame is looked at
    session.add_points(1, 3, [far], [0])
    assert session._state.result((1, 3)).view is None


def test_a_damaged_view_is_refused(zoomed: CineSession, tmp_path: Path) -> None:
    state = zoomed._state.copy()
    key = (1, 2)
    state.tracked[key] = replace(state.tracked[key], view=View(0, 0, -5, 5, 256))
    save_state(tmp_path / "a.npz", state, SessionAbout(LoopName.of(zoomed.cine)))
    with pytest.raises(ReadError, match="damaged"):
        load_state(tmp_path / "a.npz", zoomed.cine)


@pytest.mark.parametrize(
    ("trained", "asked", "close"), [(True, None, True), (True, False, False), (False, None, False)]
)
def test_a_model_looks_closely_if_it_was_trained_so_or_told_to(
    model: Any, loop: tuple[np.ndarray, np.ndarray], trained: bool, asked: bool | None, close: bool
) -> None:
    frames, truth = loop
    session = CineSession(Cine(frames[:2]), replace(model, config=model.config.with_(close_views=trained)))
    session.zoom = asked
    session.add_box(1, 0, box_of_mask(truth[0]))
    list(session.propagate())
    assert (session._state.result((1, 0)).view is not None) == trained
    assert (session._state.result((1, 1)).view is not None) == close


# Prompts


@pytest.mark.parametrize(("whole", "close"), [(1024, 512), (512, 256), (384, 192), (96, 64), (64, 64)])
def test_close_views_have_a_size_that_every_network_takes(whole: int, close: int) -> None:
    assert close_size(whole) == close
    for pool in (1, 2, 4):
        architecture("uniultra-mini", image_size=close, memory=MemoryConfig(pool=pool))  # raises if it does not fit


def test_a_boxed_structure_is_as_good_closely_with_a_click(model: Any, loop: tuple[np.ndarray, np.ndarray]) -> None:
    frames, truth = loop
    session = CineSession(Cine(frames), model)
    box, inside = box_of_mask(truth[0]), inside_of(truth[0])
    assert dice(session.add_box(1, 0, box).masks[1], truth[0]) > 0.85
    view = session._state.result((1, 0)).view
    assert view == close_view(box, truth[0].shape, 512)
    assert dice(session.add_points(1, 0, [inside], [1]).masks[1], truth[0]) > 0.85
    assert session._state.result((1, 0)).view == view
    session.add_mask(1, 0, truth[0])  # a mask is the answer itself, wherever it is
    assert session._state.result((1, 0)).view is None


def test_clicks_are_answered_closely_and_the_same_on_every_way(model: Any, loop: tuple[np.ndarray, np.ndarray]) -> None:
    frames, truth = loop
    inside, outside = inside_of(truth[0]), (1.0, 1.0)
    whole = CineSession(Cine(frames), replace(model, config=model.config.with_(close_views=False)))
    whole.add_points(1, 0, [inside], [1])
    session = CineSession(Cine(frames), model)
    mask = session.add_points(1, 0, [inside], [1]).masks[1]
    view = session._state.result((1, 0)).view
    assert view is not None
    assert dice(mask, truth[0]) > max(0.8, dice(whole.step(0).masks[1], truth[0]))
    near = inside[0], inside[1] - 2
    twice = session.add_points(1, 0, [near], [1]).masks[1]
    assert session._state.result((1, 0)).view == view
    at_once = CineSession(Cine(frames), model)
    at_once.set_prompt(1, 0, session.prompts[1, 0])
    assert np.array_equal(at_once.step(0).masks[1], twice)
    session.add_points(1, 0, [outside], [0])
    assert session._state.result((1, 0)).view is None  # the view does not show all clicks


def test_another_size_shares_the_weights(model: Any) -> None:
    other = network_at(model.network, 256)
    assert (other.image_size, model.network.image_size) == (256, 512)
    assert other.sam_prompt_encoder.image_embedding_size == (16, 16)
    assert model.network.sam_prompt_encoder.image_embedding_size == (32, 32)
    pairs = zip(other.parameters(), model.network.parameters(), strict=True)
    assert all(one is another for one, another in pairs)


@pytest.mark.parametrize("pool", [1, 2])
def test_two_sizes_in_turn_make_their_rotary_codes_once(pool: int) -> None:
    config = architecture("uniultra-mini", image_size=64, memory=MemoryConfig(pool=pool))
    network = build_network(config)
    sizes = [(network, 64), (network_at(network, 128), 128)]

    def attended(other: torch.nn.Module, size: int) -> torch.Tensor:
        places = (size // 16) ** 2
        given = torch.randn(4, places, 1, 256, generator=torch.Generator().manual_seed(0))
        memory = given[2:, : places // pool**2, :, :64].clone()
        return other.memory_attention(curr=given[0], curr_pos=given[1], memory=memory[0], memory_pos=memory[1])

    def codes(other: torch.nn.Module) -> list[torch.Tensor]:
        held = (leaf for module in other.memory_attention.modules() for leaf in tree_leaves(vars(module)))
        return [leaf for leaf in held if isinstance(leaf, torch.Tensor) and leaf.is_complex()]

    with torch.inference_mode():
        first, made = [[ask(*size) for size in sizes] for ask in (attended, lambda other, _: codes(other))]
        again = [attended(*size) for size in sizes]
        built = build_network(config.with_(image_size=128))
        built.load_state_dict(network.state_dict())
        torch.testing.assert_close(attended(built, 128), first[1])
    assert all(map(torch.equal, first, again))
    for (other, _), before in zip(sizes, made, strict=True):
        assert before
        assert all(one is another for one, another in zip(codes(other), before, strict=True))
