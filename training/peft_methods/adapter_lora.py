"""Adapter + LoRA: a small MLP beside every block's own, and low-rank updates of queries and values (Table V)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from napari_uniultra.core.settings import setting
from napari_uniultra.model.config import AdapterConfig
from napari_uniultra.training.peft_methods.adapter import add_adapters
from napari_uniultra.training.peft_methods.lora import LoRA
from napari_uniultra.training.peft_methods.lora import Options as LowRankOptions


@dataclass(frozen=True)
class Options(LowRankOptions):
    """Of the low-rank updates and of the MLPs."""

    hidden_ratio: float = setting(0.25, low=1 / 64, high=4, help="The MLPs' hidden width over the block's width.")
    scale: float = setting(0.5, low=0, high=10, help="Weight of the adapters beside the MLPs.")


class AdapterLoRA(LoRA):
    """Both methods at once."""

    title = "Adapter + LoRA"
    Options = Options

    @property
    def can_merge(self) -> bool:
        return self.base_config.adapter is None

    def inject(self, network: nn.Module) -> None:
        own = self.options
        add_adapters(self, network, AdapterConfig(directions=(), hidden_ratio=own.hidden_ratio, scale=own.scale))
        super().inject(network)


METHOD = AdapterLoRA
