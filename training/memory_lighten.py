"""A light memory attention to start training from: some layers of the full one, with their most active hidden units."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from napari_uniultra.model.config import MemoryConfig

_LAYER = re.compile(r"memory_attention\.layers\.(\d+)\.(.+)")


def lighten_memory(state: Mapping[str, Tensor], memory: MemoryConfig) -> dict[str, Tensor]:
    """The weights of a network whose memory attention is as ``memory`` says; everything else stays.

    The layers kept are spread evenly, the last one among them. Of their hidden units those stay whose incoming and
    outgoing weights are the largest, since they change the output most. Pooling has no weights.

    Parameters
    ----------
    state : mapping of str to Tensor
        A SAM2 network's state dict, with at least as many layers and hidden units.
    memory : MemoryConfig
    """
    layers: dict[int, dict[str, Tensor]] = {}
    lighter = {}
    for name, tensor in state.items():
        match = _LAYER.fullmatch(name)
        if match:
            layers.setdefault(int(match[1]), {})[match[2]] = tensor
        else:
            lighter[name] = tensor
    for place, kept in enumerate(_spread(len(layers), memory.layers)):
        layer = _with_fewer_units(layers[kept], memory.feedforward)
        lighter |= {f"memory_attention.layers.{place}.{name}": tensor for name, tensor in layer.items()}
    return lighter


def _spread(count: int, kept: int) -> list[int]:
    """``kept`` of ``count`` places, the last one always among them."""
    return [(index + 1) * count // kept - 1 for index in range(kept)] if kept < count else list(range(count))


def _with_fewer_units(layer: Mapping[str, Tensor], units: int) -> dict[str, Tensor]:
    into, bias, out = layer["linear1.weight"], layer["linear1.bias"], layer["linear2.weight"]
    strength = into.norm(dim=1) * out.norm(dim=0)
    chosen = torch.topk(strength, min(units, len(strength))).indices.sort().values
    changed = {"linear1.weight": into[chosen], "linear1.bias": bias[chosen], "linear2.weight": out[:, chosen]}
    return {**layer, **changed}
