"""A start for the memory attention that a short training can build on.

With random weights it scrambles the features that the decoder has learnt to read, and attends to every place of a
memory alike. Here it begins as nearly the identity that looks at the same place of the past, which is about right for
tissue between two frames; training then only has to improve on that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# With this constant in every query and key, rotary positions alone give a neighbouring place about a quarter of the
# weight of the same place: 256 dimensions, temperature 16, base 10,000.
_SAME_PLACE = 2.5
_CONTENT = 0.3  # of the random content weights, beside that constant
_QUIET = 0.1  # of the branches that do not read the memory


@torch.no_grad()
def start_memory_attention(network: nn.Module, images: Tensor) -> None:
    """Change the memory attention's weights in place.

    Parameters
    ----------
    network : SAM2Base
        Trained on stills.
    images : (B, 3, S, S) float32
        Typical normalised images, on which its output is made to resemble its input.
    """
    attention = network.memory_attention
    for layer in attention.layers:
        cross = layer.cross_attn_image
        for projection in (cross.q_proj, cross.k_proj):
            projection.weight.mul_(_CONTENT)
            projection.bias.fill_(_SAME_PLACE)
        for projection in (layer.self_attn.out_proj, layer.linear2):
            projection.weight.mul_(_QUIET)
            projection.bias.zero_()
    _, features, positions, _ = network._prepare_backbone_features(network.forward_image(images))
    wanted = (features[-1] + network.no_mem_embed).flatten(0, 1)
    normed = nn.functional.layer_norm(features[-1] + 0.1 * positions[-1], wanted.shape[-1:]).flatten(0, 1)
    # Least squares for each channel: wanted = weight * normed + bias.
    centred = normed - normed.mean(dim=0)
    weight = (centred * wanted).mean(dim=0) / centred.square().mean(dim=0).clamp(min=1e-6)
    attention.norm.weight.copy_(weight)
    attention.norm.bias.copy_(wanted.mean(dim=0) - weight * normed.mean(dim=0))
