"""SAM2LoRA: low-rank updates in the image encoder and the mask decoder, and nothing else (arXiv 2510.10288)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from napari_uniultra.core.settings import setting
from napari_uniultra.training.peft_methods.branches import (
    LOW_RANK,
    LowRank,
    add_branch,
    decoder_projections,
    fold_low_rank,
    trunk_blocks,
)
from napari_uniultra.training.peft_methods.method import Method


@dataclass(frozen=True)
class Options:
    """Size and weight of the low-rank updates; the defaults are those of the authors' code."""

    rank: int = setting(32, low=1, high=256, help="Rank of the updates.")
    alpha: float = setting(64.0, low=0.01, high=1024, help="Updates are scaled by alpha / rank.")
    dropout: float = setting(0.1, low=0, high=0.9, help="Share of the updates' inputs that training drops.")


class SAM2LoRA(Method):
    """Low-rank updates of the encoder's qkv maps and of all projections of the mask decoder's attention."""

    title = "SAM2LoRA"
    Options = Options
    trains_decoder = False

    def inject(self, network: nn.Module) -> None:
        own = self.options
        for linear in (*(block.attn.qkv for block in trunk_blocks(network)), *decoder_projections(network)):
            branch = LowRank(linear.in_features, linear.out_features, own.rank, own.alpha, own.dropout)
            add_branch(linear, LOW_RANK, branch)

    def fold(self, network: nn.Module) -> None:
        fold_low_rank(network)


METHOD = SAM2LoRA
