"""Layers at inference on a CPU: the same numbers as PyTorch's and sam2's own in less time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_uniultra.model.linear import FastLinear, is_plain


class FastLayerNorm2d(nn.Module):
    """sam2's `LayerNorm2d` with half of its passes over the map, most of them in place."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), every place of it to a mean of 0 and a variance of 1 over its channels, scaled and shifted."""
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        centred = x - x.mean(1, keepdim=True)
        scale = (centred.square().mean(1, keepdim=True) + self.eps).rsqrt()
        return centred.mul_(scale).mul_(weight).add_(bias) if is_plain(x) else centred * scale * weight + bias


class FastUpscaling(nn.ConvTranspose2d):
    """A transposed convolution that makes 2 x 2 pixels of each one and mixes no neighbours: a product of matrices."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, H, W) to (B, D, 2H, 2W)."""
        if output_size is not None or not is_plain(x):
            return super().forward(x, output_size)
        batch, _, height, width = x.shape
        each = torch.bmm(self.weight.flatten(1).t().expand(batch, -1, -1), x.flatten(2))
        each = each.view(batch, -1, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        return each.reshape(batch, -1, 2 * height, 2 * width).add_(self.bias[:, None, None])


def use_fast_layers(network: nn.Module) -> None:
    """Let a network's layers compute by the faster ones from now on; their weights and names stay."""
    from napari_uniultra.model.build import LayerNorm2d

    for module in network.modules():
        # By the very type: a subclass may compute something else.
        if type(module) is nn.Linear:
            module.__class__ = FastLinear
        elif type(module) is LayerNorm2d:
            module.__class__ = FastLayerNorm2d
        elif type(module) is nn.ConvTranspose2d and _doubles(module):
            module.__class__ = FastUpscaling


def _doubles(layer: nn.ConvTranspose2d) -> bool:
    two, none = (2, 2), (0, 0)
    is_simple = layer.groups == 1 and layer.dilation == (1, 1) and layer.bias is not None
    return is_simple and layer.kernel_size == layer.stride == two and layer.padding == layer.output_padding == none
