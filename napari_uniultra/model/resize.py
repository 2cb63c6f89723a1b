"""Networks at another input size: sam2 derives a few numbers from the size as it builds one, the rest as it runs."""

from __future__ import annotations

from copy import copy

from torch import nn


def set_image_size(network: nn.Module, size: int) -> None:
    """Make a network take inputs of another size; it then computes what one built for that size computes.

    Parameters
    ----------
    network : SAM2Base
    size : int
        Side of the input in pixels, a multiple of 32.
    """
    grid = size // network.backbone_stride
    encoder = network.sam_prompt_encoder
    network.image_size, network.sam_image_embedding_size = size, grid
    encoder.image_embedding_size = (grid, grid)
    encoder.input_image_size = (size, size)
    encoder.mask_input_size = (4 * grid, 4 * grid)


def network_at(network: nn.Module, size: int) -> nn.Module:
    """The same network, with the same weights in memory, for inputs of another size.

    Its memory attention keeps rotary codes of its own: those of a size would replace those of another.
    """
    other = _sharing(network)
    other.sam_prompt_encoder = _sharing(network.sam_prompt_encoder)
    other.memory_attention = _all_sharing(network.memory_attention)
    set_image_size(other, size)
    return other


def _sharing(module: nn.Module) -> nn.Module:
    """A module of its own that has another one's parts."""
    twin = copy(module)
    twin._modules = dict(module._modules)
    return twin


def _all_sharing(module: nn.Module) -> nn.Module:
    """The same, with parts of its own that share their weights."""
    twin = _sharing(module)
    twin._modules = {name: part and _all_sharing(part) for name, part in module._modules.items()}
    return twin
