"""The written-out memory attention against sam2's module."""

from __future__ import annotations

import pytest
import torch

from napari_uniultra.model.attention import FastMemoryAttention, weighted_average
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import MemoryConfig, architecture
from napari_uniultra.model.rotary import axial_rotations, memory_rotations

GRID = 6


@pytest.fixture(scope="module")
def attention() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(architecture("uniultra-mini", image_size=GRID * 16 + 32 - GRID * 16 % 32)).memory_attention


@pytest.mark.parametrize(("batch", "frames", "pointers"), [(1, 1, 0), (1, 7, 64), (3, 2, 4), (2, 8, 0)])
def test_equals_the_official_module(attention, batch: int, frames: int, pointers: int) -> None:
    torch.manual_seed(batch + frames)
    tokens = frames * GRID**2 + pointers
    curr, curr_pos = torch.randn(GRID**2, batch, 256), torch.randn(GRID**2, 1, 256).expand(-1, batch, -1)
    memory, position = torch.randn(tokens, batch, 64), torch.randn(tokens, batch, 64)
    with torch.inference_mode():
        expected = attention(curr, memory, curr_pos, position, num_obj_ptr_tokens=pointers)
        ours = FastMemoryAttention(attention, GRID)(curr, curr_pos, memory, position, pointers)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_what_is_the_same_for_all_objects_needs_to_be_given_once(attention) -> None:
    torch.manual_seed(3)
    curr, curr_pos = torch.randn(GRID**2, 1, 256), torch.randn(GRID**2, 1, 256)
    memory, position = torch.randn(2 * GRID**2 + 4, 3, 64), torch.randn(2 * GRID**2 + 4, 3, 64)
    with torch.inference_mode():
        ours = FastMemoryAttention(attention, GRID)
        once = ours(curr, curr_pos, memory, position, 4)
        expected = ours(curr.expand(-1, 3, -1), curr_pos.expand(-1, 3, -1), memory, position, 4)
    torch.testing.assert_close(once, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pool", [2, 4])
def test_equals_the_module_with_pooled_memories(pool: int) -> None:
    torch.manual_seed(pool)
    config = architecture("uniultra-mini", image_size=128, memory=MemoryConfig(2, 128, pool), rotary_grid=16)
    attention = build_network(config).memory_attention
    places, tokens = 64, 3 * 64 // pool**2 + 4
    curr, curr_pos = torch.randn(places, 2, 256), torch.randn(places, 2, 256)
    memory, position = torch.randn(tokens, 2, 64), torch.randn(tokens, 2, 64)
    with torch.inference_mode():
        expected = attention(curr, memory, curr_pos, position, num_obj_ptr_tokens=4)
        ours = FastMemoryAttention(attention, 8)(curr, curr_pos, memory, position, 4)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_a_pooled_key_has_the_code_of_the_middle_of_its_places() -> None:
    places = axial_rotations(256, 8, 8).view(8, 8, -1)
    pooled = memory_rotations(256, 8, 8, pool=2).view(4, 4, -1)
    # Halfway between two neighbours: the square of the code is their product.
    torch.testing.assert_close(pooled**2, places[::2, ::2] * places[1::2, 1::2], atol=1e-5, rtol=0)


def test_spread_rotations_are_the_official_ones_at_their_own_size() -> None:
    official = build_network(architecture("uniultra-mini", image_size=256))
    spread = build_network(architecture("uniultra-mini", image_size=256, rotary_grid=16))
    for ours, theirs in zip(spread.memory_attention.layers, official.memory_attention.layers, strict=True):
        torch.testing.assert_close(ours.self_attn.freqs_cis, theirs.self_attn.freqs_cis, atol=1e-6, rtol=0)


def test_a_network_follows_the_size_of_its_input() -> None:
    # Training draws sizes: a network built for one size must give another's rotations.
    small = build_network(architecture("uniultra-mini", image_size=64, rotary_grid=16, memory=MemoryConfig(1, 64, 2)))
    large = build_network(architecture("uniultra-mini", image_size=128, rotary_grid=16, memory=MemoryConfig(1, 64, 2)))
    large.memory_attention.load_state_dict(small.memory_attention.state_dict())
    torch.manual_seed(0)
    inputs = torch.randn(64, 1, 256), torch.randn(16, 1, 64), torch.randn(64, 1, 256), torch.randn(16, 1, 64)
    with torch.inference_mode():
        torch.testing.assert_close(small.memory_attention(*inputs), large.memory_attention(*inputs))


def test_spread_rotations_attend_alike_at_twice_the_size() -> None:
    # Every place of a 4 x 4 map repeated 2 x 2 times: with positions that span the same range, the same attention.
    small, large = (build_network(architecture("uniultra-mini", image_size=64 * k, rotary_grid=4)) for k in (1, 2))
    large.memory_attention.load_state_dict(small.memory_attention.state_dict())
    coarse = small.memory_attention.layers[0].cross_attn_image.freqs_cis.view(4, 4, -1)
    fine = large.memory_attention.layers[0].cross_attn_image.freqs_cis.view(8, 8, -1)
    torch.testing.assert_close(fine[::2, ::2], coarse, atol=1e-6, rtol=0)
    between = fine[1::2, ::2] * coarse.conj()  # half a place further down: half the angle of one place
    one = coarse[1:] * coarse[:-1].conj()
    torch.testing.assert_close(between[:3] ** 2, one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("gap", [0.0, 60.0, 200.0, -200.0])
def test_scores_of_any_size_are_averaged(gap: float) -> None:
    """Later blocks of keys with scores that are far above or below those of the first one."""
    torch.manual_seed(0)
    queries, keys, values = torch.randn(50, 16), torch.randn(96, 16), torch.randn(96, 8)
    queries[:, 0], keys[:, 0] = 1.0, 0.0
    keys[32:64, 0] = gap
    expected = (queries.double() @ keys.double().T).softmax(dim=1) @ values.double()
    blocks = list(zip(keys.split(32), values.split(32), strict=True))
    with torch.inference_mode():
        found = weighted_average(queries, lambda: iter(blocks))
    torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=1e-4)
