"""Adapter: a small MLP beside every block's own (Houlsby's adapter), which is CH-Adapter without edges (Table VI)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from napari_uniultra.core.settings import ConfigError, setting
from napari_uniultra.model.adapters import CHAdapter
from napari_uniultra.model.config import AdapterConfig
from napari_uniultra.training.peft_methods.branches import add_branch, trunk_blocks
from napari_uniultra.training.peft_methods.method import Method

_BRANCH = "adapter"


@dataclass(frozen=True)
class Options:
    """Size and weight of the MLPs."""

    hidden_ratio: float = setting(0.25, low=1 / 64, high=4, help="Hidden width over the block's width.")
    scale: float = setting(0.5, low=0, high=10, help="Weight of the adapters beside the MLPs.")


class Adapter(Method):
    """Trains one small MLP a block and everything outside the image encoder.

    On a plain SAM2 they become part of the architecture, so that a plain checkpoint holds them. A network that has
    CH-Adapters gets them beside those, and can then only be saved as an adapter file.
    """

    title = "Adapter"
    Options = Options

    @property
    def can_merge(self) -> bool:
        return self.base_config.adapter is None

    def inject(self, network: nn.Module) -> None:
        add_adapters(self, network, AdapterConfig(directions=(), **vars(self.options)))


def add_adapters(method: Method, network: nn.Module, adapter: AdapterConfig) -> None:
    """Give a network adapters without edges, in the place that its architecture has for them if that is free.

    Raises
    ------
    ConfigError
        When it was done before.
    """
    if method.base_config.adapter is None:
        if hasattr(next(trunk_blocks(network)), _BRANCH):
            raise ConfigError("The network has adapters already", "a method was applied to it before")
        network.image_encoder.trunk.add_adapters(adapter)
        method.config = method.base_config.with_(adapter=adapter)
        return
    for block in trunk_blocks(network):
        add_branch(block.mlp, _BRANCH, _Beside(block.dim_out, adapter))


class _Beside(CHAdapter):
    """An adapter that is weighed by itself; the trunk weighs those that it knows."""

    def __init__(self, dim: int, config: AdapterConfig) -> None:
        super().__init__(dim, config)
        self.scale = config.scale

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * super().forward(features, None)


METHOD = Adapter
