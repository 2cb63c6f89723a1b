"""Attention written out against PyTorch's own."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from napari_uniultra.training.plain_attention import attention_for, plain_attention

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(3, 1, 16, 8), (2, 4, 49, 16)])
def test_equals_pytorch_forwards_and_backwards(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    wanted = torch.randn(shape, dtype=torch.float64)
    gradients = []
    for attention in (plain_attention, F.scaled_dot_product_attention):
        found = attention(*inputs)
        gradients.append((found.detach(), *torch.autograd.grad((found * wanted).sum(), inputs)))
    torch.testing.assert_close(*gradients)


def test_takes_the_fused_ones_place_in_bfloat16_alone() -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 2, 6, 4)
    mask = torch.eye(6, dtype=torch.bool)
    assert isinstance(attention_for(CPU), nullcontext)
    with torch.autocast("cpu", torch.bfloat16), attention_for(CPU):
        found = F.scaled_dot_product_attention(q, q, q)
        masked = F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), plain_attention(q, q, q), atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(masked.float(), q, atol=2e-2, rtol=2e-2)  # each looks at itself alone: the mask counts


def test_drops_weights_where_asked() -> None:
    torch.manual_seed(0)
    q = torch.zeros(1, 1, 2000, 4)
    dropped = plain_attention(q, q, torch.ones(1, 1, 2000, 1), dropout_p=0.5)
    assert dropped.std() > 0.01
    assert dropped.mean() == pytest.approx(1, abs=0.01)
