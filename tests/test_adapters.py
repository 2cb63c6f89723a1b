"""The CH-Adapter: its edges against SciPy, their orientation, what is learnt, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_uniultra.model.adapters import CHAdapter, EdgeFilter, edge_kernels
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import AdapterConfig, ModelConfig, architecture

SMALL = ModelConfig(
    "uniultra-mini",
    image_size=64,
    embed_dim=8,
    stages=(1, 1, 2, 1),
    global_att_blocks=(2,),
    window_spec=(8, 4, 2, 2),
    adapter=AdapterConfig(),
)
OPERATORS = ("sobel", "laplace", "canny")


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def ring_rotated(kernel: np.ndarray, steps: int) -> np.ndarray:
    """A 3 x 3 kernel turned by ``steps`` times 45 degrees: its outer ring moves on by as many places."""
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    turned = kernel.copy()
    for place, source in enumerate(ring):
        turned[ring[(place + steps) % 8]] = kernel[source]
    return turned


def test_sobel_is_scipys_for_every_channel_by_itself() -> None:
    x = maps(2, 3, 11, 17)
    responses = EdgeFilter(AdapterConfig()).responses(x).numpy()
    horizontal = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], float)
    for batch in range(2):
        for channel in range(3):
            plane = x[batch, channel].numpy()
            expected = [
                ndimage.sobel(plane, axis=0, mode="nearest"),
                ndimage.sobel(plane, axis=1, mode="nearest"),
                ndimage.correlate(plane, -ring_rotated(horizontal, 3), mode="nearest"),
                ndimage.correlate(plane, ring_rotated(horizontal, 1), mode="nearest"),
            ]
            found = responses[batch, channel]
            for direction in range(2):
                np.testing.assert_allclose(found[direction], expected[direction], atol=1e-5)
            for direction in range(2, 4):  # the sign of a diagonal is a matter of taste, and no result depends on it
                np.testing.assert_allclose(abs(found[direction]), abs(expected[direction]), atol=1e-5)


def test_magnitude_joins_the_directions() -> None:
    x = maps(1, 4, 9, 12)
    edges = EdgeFilter(AdapterConfig())
    expected = np.sqrt((edges.responses(x).numpy() ** 2).sum(axis=2) + 1e-6)
    np.testing.assert_allclose(edges(x).numpy(), expected, rtol=1e-5)


def test_eq_2_literally_is_one_single_kernel() -> None:
    config = AdapterConfig(reduction="sum")
    x = maps(1, 4, 9, 12)
    kernel = edge_kernels(config).sum(dim=0).numpy()
    expected = np.stack([ndimage.correlate(plane, kernel, mode="nearest") for plane in x[0].numpy()])
    np.testing.assert_allclose(EdgeFilter(config)(x)[0].numpy(), expected, atol=1e-5)


def test_the_four_channels_differ() -> None:
    """Dense kernels, as released, would make them all alike."""
    edges = EdgeFilter(AdapterConfig())(maps(1, 4, 9, 12))[0]
    assert all(not torch.allclose(edges[0], edges[channel]) for channel in range(1, 4))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("column", [5, 13, 22])
def test_a_vertical_edge_stays_where_it_is(operator: str, column: int) -> None:
    """On a map that is not square: a swap of height and width, or a scrambled view, would move or smear the edge."""
    x = torch.zeros(1, 4, 20, 30)
    x[..., column:] = 1
    trunk = build_network(SMALL.with_(adapter=AdapterConfig(operator=operator))).image_encoder.trunk
    edges = trunk._edges(x)
    assert edges.shape == (1, 20, 30, 4)
    strength = edges[0, :, :, 0]
    assert (strength == strength[0]).all(), "the same in every row"
    columns = set(torch.nonzero(strength[0] > 0.1).flatten().tolist())
    assert columns
    assert columns <= {column - 1, column}


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_frame_itself_is_no_edge(operator: str) -> None:
    edges = EdgeFilter(AdapterConfig(operator=operator))(torch.full((1, 4, 12, 15), 3.0))
    assert edges.abs().max() < 2e-3  # sqrt of the epsilon under the root


def test_canny_is_thin_and_drops_what_is_weak() -> None:
    x = torch.zeros(1, 1, 24, 24)
    x[..., 8:] = 1.0
    x[..., 18:] = 1.02  # an edge of 2 % of the other
    edges = EdgeFilter(AdapterConfig(operator="canny"))(x)[0, 0, 12]
    assert set(torch.nonzero(edges > 0.01).flatten().tolist()) <= {7, 8}
    assert edges.max() > 0.5


def test_gradient_reaches_the_patch_mixer() -> None:
    """At the very start the mixers of the channels are zero and let none through; one step later it flows."""
    network = build_network(SMALL)
    trunk = network.image_encoder.trunk
    adapters = [p for name, p in trunk.named_parameters() if "adapter." in name or "patch_mixer" in name]
    optimiser = torch.optim.SGD(adapters, lr=0.1)
    images = maps(1, 3, 64, 64)
    for _ in range(2):
        optimiser.zero_grad()
        sum(output.square().mean() for output in trunk(images)).backward()
        optimiser.step()
    gradient = trunk.patch_mixer.conv.weight.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_run_and_train(operator: str) -> None:
    trunk = build_network(SMALL.with_(adapter=AdapterConfig(operator=operator))).image_encoder.trunk
    with torch.no_grad():
        for block in trunk.blocks:
            torch.nn.init.normal_(block.adapter.channel_mixer.weight)
    outputs = trunk(maps(1, 3, 64, 64))
    assert [tuple(output.shape[1:]) for output in outputs] == [(8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 2, 2)]
    sum(output.square().mean() for output in outputs).backward()
    assert trunk.patch_mixer.conv.weight.grad.abs().max() > 0


def test_an_adapter_is_context_plus_edges() -> None:
    """H = P + F, Eq. 3."""
    adapter = CHAdapter(16, AdapterConfig())
    with torch.no_grad():
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter)
    features, edges = maps(2, 5, 7, 16), maps(2, 5, 7, 4)
    context = adapter.up(torch.nn.functional.gelu(adapter.down(features)))
    torch.testing.assert_close(adapter(features, edges), context + adapter.channel_mixer(edges))
    assert adapter.down.out_features == 4  # a quarter of the width


def test_scale_weighs_the_adapter() -> None:
    plain = build_network(SMALL).image_encoder.trunk
    state = plain.state_dict()
    for name in state:
        if "adapter.up" in name:
            state[name] = torch.full_like(state[name], 0.01)
    images, found = maps(1, 3, 64, 64), []
    for scale in (0.0, 0.5, 1.0):
        trunk = build_network(SMALL.with_(adapter=AdapterConfig(scale=scale))).image_encoder.trunk
        trunk.load_state_dict(state)
        with torch.inference_mode():
            found.append(trunk(images)[0])
    with torch.inference_mode():
        torch.testing.assert_close(found[0], plain(images)[0])
    torch.testing.assert_close(found[1] - found[0], (found[2] - found[0]) / 2)  # one block feeds the first stage
    assert not torch.allclose(found[0], found[2])


def test_without_directions_only_the_context_branch_remains() -> None:
    """Table VI, row 0."""
    config = SMALL.with_(adapter=AdapterConfig(directions=()))
    names = set(build_network(config).state_dict())
    assert not any("mixer" in name for name in names)
    assert any("adapter.down" in name for name in names)
    outputs = build_network(config).image_encoder.trunk(maps(1, 3, 64, 64))
    assert len(outputs) == 4


@pytest.mark.parametrize("number", [1, 2, 3])
def test_fewer_directions_are_fewer_kernels(number: int) -> None:
    config = AdapterConfig(directions=AdapterConfig().directions[:number])
    assert EdgeFilter(config).responses(maps(1, 4, 8, 8)).shape == (1, 4, number, 8, 8)


def test_plain_sam2_has_no_adapters() -> None:
    assert not any(
        "adapter" in name or "mixer" in name for name in build_network(architecture("sam2-tiny")).state_dict()
    )
