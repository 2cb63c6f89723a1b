"""The written-out memory attention against sam2's module."""

from __future__ import annotations

import pytest
import torch

from napari_uniultra.model.attention import FastMemoryAttention
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import architecture

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
