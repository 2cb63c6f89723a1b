"""The linear layers of inference against PyTorch's own."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_uniultra.model import linear as module
from napari_uniultra.model.linear import linear


@pytest.fixture(params=[True, False], ids=["onednn", "default"])
def library(request, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(module, "onednn_is_faster", lambda: request.param)


@pytest.mark.parametrize("shape", [(5, 32), (1, 8, 32), (2, 3, 7, 32), (0, 32)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_pytorch(library: None, shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(48, 32)
    b = torch.randn(48) if bias else None
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight, b), F.linear(x, weight, b), atol=1e-5, rtol=1e-5)


def test_takes_what_does_not_lie_in_a_row(library: None) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(32, 6, 4).permute(2, 1, 0), torch.randn(32, 10).t()
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight), x @ weight.t(), atol=1e-5, rtol=1e-5)


def test_gradients_are_pytorchs(library: None) -> None:
    layer = nn.Linear(8, 3)
    x = torch.randn(5, 8, requires_grad=True)
    linear(x, layer.weight, layer.bias).square().sum().backward()
    ours = x.grad, layer.weight.grad
    twin, y = deepcopy(layer).requires_grad_(), x.detach().clone().requires_grad_()
    twin.zero_grad()
    twin(y).square().sum().backward()
    torch.testing.assert_close(ours, (y.grad, twin.weight.grad))


def test_halves_keep_their_precision(library: None) -> None:
    x, weight = torch.randn(4, 8, dtype=torch.bfloat16), torch.randn(3, 8, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert linear(x, weight).dtype == torch.bfloat16
