"""Branches beside a module's own computation, without renaming its weights: output + branch(input).

A branch is a child of the module it stands beside, added by a forward hook. So the base's weights keep their names,
whoever calls the module gets the branch as well, and a copy of the network keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.core.settings import ConfigError

LOW_RANK = "lora"


def add_branch(module: nn.Module, name: str, branch: nn.Module) -> None:
    """Let ``branch``, as the child ``name``, stand beside ``module``.

    Raises
    ------
    ConfigError
        When the module has such a child already: the method was applied before.
    """
    if hasattr(module, name):
        raise ConfigError(
            f"The network has {name!r} parts already", "a method was applied to it before", "Merge that one first"
        )
    module.add_module(name, branch)
    module.register_forward_hook(partial(_with_branch, name))


def _with_branch(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    branch = getattr(module, name, None)
    return output if branch is None else output + branch(inputs[0])


class LowRank(nn.Module):
    """LoRA's update of a linear map, (..., in) to (..., out): alpha / rank * up(down(x)), zero until it is trained."""

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.dropout = dropout
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(F.dropout(x, self.dropout, self.training), self.down)
        return self.scale * F.linear(low, self.up)

    def delta(self) -> Tensor:
        """What it adds to the map's weight, (out, in) float64."""
        return self.scale * (self.up.double() @ self.down.double())


class QueryValue(nn.Module):
    """Branches for the queries and the values of Hiera's one qkv map: the first and the last of its outputs.

    Parameters
    ----------
    query, value : Module
    between : int
        Outputs between theirs, which stay: the keys.
    """

    def __init__(self, query: nn.Module, value: nn.Module, between: int) -> None:
        super().__init__()
        self.q, self.v, self.between = query, value, between

    def forward(self, x: Tensor) -> Tensor:
        query, value = self.q(x), self.v(x)
        return torch.cat([query, query.new_zeros(*query.shape[:-1], self.between), value], dim=-1)

    def delta(self) -> Tensor:
        """What they add to the map's weight, (outputs, inputs) float64."""
        query, value = self.q.delta(), self.v.delta()
        return torch.cat([query, query.new_zeros(self.between, query.shape[1]), value])


def trunk_blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks of the image encoder, from the first to the last."""
    yield from network.image_encoder.trunk.blocks


def decoder_projections(network: nn.Module) -> Iterator[nn.Linear]:
    """The linear maps of the mask decoder's attention: queries, keys, values and outputs."""
    for name, module in network.sam_mask_decoder.transformer.named_modules():
        if name.endswith(("q_proj", "k_proj", "v_proj", "out_proj")):
            yield module


@torch.no_grad()
def fold_low_rank(network: nn.Module) -> None:
    """Add every low-rank branch to the weight beside it, and remove the branch."""
    for module in list(network.modules()):
        branch = getattr(module, LOW_RANK, None)
        if branch is not None:
            module.weight.copy_(module.weight.double() + branch.delta())
            delattr(module, LOW_RANK)
