"""The layers of inference against PyTorch's and sam2's own."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import nn

from napari_uniultra.model import linear
from napari_uniultra.model.layers import FastLayerNorm2d, FastUpscaling, use_fast_layers
from napari_uniultra.model.linear import FastLinear


class Other(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def maps() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), LayerNorm2d(8), nn.GELU(), nn.ConvTranspose2d(8, 5, 2, 2))
    with torch.no_grad():
        network[1].weight.uniform_(0.5, 2)
        network[1].bias.normal_()
    return network


def tokens() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Other(8, 8), nn.Linear(8, 2, bias=False))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_are_the_same(layout: torch.memory_format) -> None:
    network, x = maps(), (7 + 3 * torch.randn(2, 3, 5, 6)).contiguous(memory_format=layout)
    fast, given = deepcopy(network), x.clone()
    use_fast_layers(fast)
    assert [type(layer) for layer in fast] == [nn.Conv2d, FastLayerNorm2d, nn.GELU, FastUpscaling]
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), network(x), atol=2e-6, rtol=1e-5)
    assert torch.equal(x, given)


@pytest.mark.parametrize("onednn", [True, False])
def test_tokens_are_the_same(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if onednn and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: onednn)
    network, x = tokens(), torch.randn(5, 6)
    fast = deepcopy(network)
    use_fast_layers(fast)
    assert [type(layer) for layer in fast] == [FastLinear, nn.ReLU, Other, FastLinear]
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), network(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("make", [maps, tokens])
def test_weights_and_gradients_stay(make) -> None:
    network = make()
    fast, x = deepcopy(network), torch.randn((2, 3, 5, 6) if make is maps else (5, 6))
    use_fast_layers(fast)
    torch.testing.assert_close(dict(fast.state_dict()), dict(network.state_dict()), atol=0, rtol=0)
    for each in (fast, network):
        each(x).square().sum().backward()
    ours, theirs = ([own.grad for own in each.parameters()] for each in (fast, network))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "options", [{"stride": 3}, {"padding": 1}, {"output_padding": 1}, {"groups": 2}, {"bias": False}]
)
def test_other_transposed_convolutions_stay(options: dict) -> None:
    network = nn.Sequential(nn.ConvTranspose2d(4, 4, **{"kernel_size": 2, "stride": 2, **options}))
    use_fast_layers(network)
    assert type(network[0]) is nn.ConvTranspose2d


def test_in_half_precision_they_round_as_the_official_ones() -> None:
    fast, x = maps(), torch.randn(1, 3, 4, 4)
    use_fast_layers(fast)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(fast(x), maps()(x), atol=0.03, rtol=0.03)
