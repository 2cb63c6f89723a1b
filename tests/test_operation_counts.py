"""The paper's operation counts (Table III), counted the way its tool counts them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import AdapterConfig, architecture


def thop_operations(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """What the profiler ``thop`` counts for a layer; it counts no attention products and nothing outside these layers.

    A transposed convolution is counted with its output's size as if it were an ordinary one, which for a 2 x 2 kernel
    with stride 2 is four times its multiplications; a layer norm is counted as four operations an element.
    """
    if isinstance(module, nn.ConvTranspose2d):
        return output.numel() * module.in_channels * module.weight[0, 0].numel()
    if isinstance(module, nn.Conv2d):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, nn.LayerNorm):
        return 4 * inputs.numel()
    return 0


@pytest.mark.parametrize(("name", "giga"), [("uniultra-mini", 7.378), ("uniultra-l", 847.474)])
def test_encoder_and_decoder_at_1024_px(name: str, giga: float) -> None:
    config = architecture(name, version="2.0", image_size=1024, adapter=AdapterConfig(layout="released"))
    network = build_network(config).to("meta")  # shapes only: nothing is computed
    with torch.device("meta"), torch.inference_mode():
        counts: list[int] = []
        for part in (network.image_encoder, network.sam_mask_decoder):
            for module in part.modules():
                module.register_forward_hook(
                    lambda module, inputs, output: counts.append(
                        thop_operations(module, inputs[0], output) if inputs and torch.is_tensor(output) else 0
                    )
                )
        features = network.forward_image(torch.zeros(1, 3, 1024, 1024))["backbone_fpn"]
        network.sam_mask_decoder(
            image_embeddings=features[-1],
            image_pe=torch.zeros(1, 256, 64, 64),
            sparse_prompt_embeddings=torch.zeros(1, 0, 256),
            dense_prompt_embeddings=torch.zeros(1, 256, 64, 64),
            multimask_output=True,
            repeat_image=False,
            high_res_features=features[:2],
        )
    assert sum(counts) / 1e9 == pytest.approx(giga, abs=5e-4)
