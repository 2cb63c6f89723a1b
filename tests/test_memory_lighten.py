"""From a full memory attention to a light one."""

from __future__ import annotations

import torch

from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import LIGHT_MEMORY, MemoryConfig, architecture
from napari_uniultra.training.memory_lighten import lighten_memory

CONFIG = architecture("uniultra-mini", image_size=64)


def test_the_lighter_weights_fit_the_light_network() -> None:
    light = build_network(CONFIG.with_(memory=LIGHT_MEMORY))
    state = build_network(CONFIG).state_dict()
    light.load_state_dict(lighten_memory(state, LIGHT_MEMORY))
    kept = light.memory_attention.layers
    assert [torch.equal(layer.norm1.weight, torch.ones(256)) for layer in kept] == [True, True]
    for place, original in enumerate((1, 3)):
        expected = state[f"memory_attention.layers.{original}.self_attn.q_proj.weight"]
        assert torch.equal(kept[place].self_attn.q_proj.weight, expected)


def test_the_same_size_changes_nothing() -> None:
    state = build_network(CONFIG).state_dict()
    lighter = lighten_memory(state, MemoryConfig())
    assert lighter.keys() == state.keys()
    assert all(torch.equal(lighter[name], tensor) for name, tensor in state.items())


def test_hidden_units_that_do_nothing_go_first() -> None:
    # With all but 100 units silenced, 100 kept units compute what 2048 did.
    network = build_network(CONFIG)
    layer = network.memory_attention.layers[3]
    alive = torch.zeros(2048, dtype=torch.bool)
    alive[torch.randperm(2048, generator=torch.Generator().manual_seed(0))[:100]] = True
    with torch.no_grad():
        layer.linear2.weight[:, ~alive] = 0
    memory = MemoryConfig(layers=1, feedforward=100)
    light = build_network(CONFIG.with_(memory=memory))
    light.load_state_dict(lighten_memory(network.state_dict(), memory))
    own = light.memory_attention.layers[0]
    x = torch.randn(5, 256)
    expected = layer.linear2(layer.linear1(x).relu())
    torch.testing.assert_close(own.linear2(own.linear1(x).relu()), expected)
