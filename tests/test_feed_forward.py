"""The merged feed-forward of inference against the block's own MLP and adapter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import AdapterConfig, architecture
from napari_uniultra.model.feed_forward import MergedFeedForward


def trunk(adapter: AdapterConfig | None) -> nn.Module:
    torch.manual_seed(0)
    trunk = build_network(architecture("uniultra-mini", image_size=128, adapter=adapter)).image_encoder.trunk
    for name, weight in trunk.named_parameters():
        if "adapter" in name and weight.requires_grad:  # they start at zero
            nn.init.normal_(weight, std=0.3)
    return trunk


@pytest.mark.parametrize(
    "adapter",
    [None, AdapterConfig(), AdapterConfig(scale=0.3), AdapterConfig(directions=()), AdapterConfig(operator="laplace")],
    ids=["none", "default", "scaled", "no edges", "laplace"],
)
def test_equals_mlp_and_adapter(adapter: AdapterConfig | None) -> None:
    network, images = trunk(adapter), torch.randn(2, 3, 128, 128)
    with torch.inference_mode():
        frozen = network.frozen(128)
        assert all(frozen.feed_forwards)
        for ours, plain in zip(network(images, frozen), network(images), strict=True):
            assert plain.std() > 0.1
            torch.testing.assert_close(ours, plain, atol=5e-5, rtol=5e-5)


def test_what_is_hooked_or_replaced_is_not_merged() -> None:
    block = trunk(AdapterConfig()).blocks[1]
    assert MergedFeedForward.of(block, 0.5) is not None
    hook = block.mlp.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert MergedFeedForward.of(block, 0.5) is None
    hook.remove()
    hook = block.adapter.down.register_forward_pre_hook(lambda module, inputs: None)
    assert MergedFeedForward.of(block, 0.5) is None
    hook.remove()
    weight_norm(block.mlp.layers[0])
    assert MergedFeedForward.of(block, 0.5) is None


def test_a_part_after_the_block_stays() -> None:
    network, images = trunk(AdapterConfig()), torch.randn(1, 3, 128, 128)
    network.blocks[3].after_block = nn.Linear(network.blocks[3].dim_out, network.blocks[3].dim_out)
    with torch.inference_mode():
        for ours, plain in zip(network(images, network.frozen(128)), network(images), strict=True):
            torch.testing.assert_close(ours, plain, atol=5e-5, rtol=5e-5)


def test_wide_blocks_keep_a_single_copy_of_their_weights() -> None:
    tiny = build_network(architecture("sam2.1-tiny", image_size=128)).image_encoder.trunk
    merged = tiny.frozen(128).feed_forwards
    assert [each is not None for each in merged] == [block.dim_out <= 256 for block in tiny.blocks]
    assert any(merged)
    assert not all(merged)


def test_an_untrained_adapter_adds_nothing_to_the_bit() -> None:
    plain, images = trunk(None), torch.randn(1, 3, 128, 128)
    adapted = build_network(architecture("uniultra-mini", image_size=128, adapter=AdapterConfig())).image_encoder.trunk
    assert all(".adapter." in name or "mixer" in name for name in adapted.load_state_dict(plain.state_dict(), False)[0])
    with torch.inference_mode():
        for ours, theirs in zip(adapted(images, adapted.frozen(128)), plain(images, plain.frozen(128)), strict=True):
            assert torch.equal(ours, theirs)
