"""A Hiera block's MLP and its adapter's context branch as one MLP: the same numbers with half of the steps.

Both go from the same features through a GELU and are added: W2 gelu(W1 x) + s V2 gelu(V1 x) has the form of one MLP
whose hidden features are those of both. What edges add is linear, and keeps a product of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.model.adapters import CHAdapter
from napari_uniultra.model.linear import FastLinear, linear

_WIDEST = 256  # features of a block: wider ones take their time for the products, and copies of their weights are large


class MergedFeedForward:
    """What a block adds to its features after its attention, for weights that do not change any more."""

    @classmethod
    def of(cls, block: nn.Module, adapter_scale: float) -> MergedFeedForward | None:
        """That of a block as sam2 builds it, with a `CHAdapter` or none.

        An adapter that was never trained adds nothing, and is left out. None where something else is in the place of
        either, or where it would be no faster.
        """
        mlp, adapter = block.mlp, getattr(block, "adapter", None)
        if block.dim_out > _WIDEST or (adapter is not None and type(adapter) is not CHAdapter):
            return None
        parts = [*mlp.modules(), *([] if adapter is None else adapter.modules())]
        layers = [*mlp.layers, *([] if adapter is None else [adapter.down, adapter.up])]
        is_known = len(mlp.layers) == 2 and isinstance(mlp.act, nn.GELU) and all(map(_is_linear, layers))
        if not is_known or any(map(_is_hooked, parts)):
            return None
        return cls(mlp, adapter if adapter is not None and _adds(adapter) else None, adapter_scale)

    def __init__(self, mlp: nn.Module, adapter: CHAdapter | None, scale: float) -> None:
        first, second = ((layer.weight, layer.bias) for layer in mlp.layers)
        self._edges = None
        if adapter is not None:
            first = tuple(map(torch.cat, zip(first, (adapter.down.weight, adapter.down.bias), strict=True)))
            second = torch.cat([second[0], scale * adapter.up.weight], dim=1), second[1] + scale * adapter.up.bias
            if (mixer := adapter.channel_mixer) is not None:
                self._edges, second = scale * mixer.weight, (second[0], second[1] + scale * mixer.bias)
        self._first, self._second = first, second

    def __call__(self, normed: Tensor, edges: Tensor | None) -> Tensor:
        """Normalised features (B, H, W, D) and edges (B, H, W, C) to (B, H, W, D)."""
        added = linear(F.gelu(linear(normed, *self._first)), *self._second)
        return added if self._edges is None else added + linear(edges, self._edges)


def _adds(adapter: CHAdapter) -> bool:
    last = [layer for layer in (adapter.up, adapter.channel_mixer) if layer is not None]
    return any(bool(parameter.any()) for layer in last for parameter in layer.parameters())


def _is_linear(layer: nn.Module) -> bool:
    return type(layer) in (nn.Linear, FastLinear) and layer.bias is not None


def _is_hooked(module: nn.Module) -> bool:
    """Whether something else takes part when the module is called, as a fine-tuning method's branches do."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
