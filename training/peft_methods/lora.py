"""LoRA on the queries and values of the image encoder's attention, as SAMed has it (arXiv 2304.13785)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from napari_uniultra.core.settings import setting
from napari_uniultra.training.peft_methods.branches import (
    LOW_RANK,
    LowRank,
    QueryValue,
    add_branch,
    fold_low_rank,
    trunk_blocks,
)
from napari_uniultra.training.peft_methods.method import Method


@dataclass(frozen=True)
class Options:
    """Size and weight of the low-rank updates."""

    rank: int = setting(4, low=1, high=256, help="Rank of the updates.")
    alpha: float = setting(4.0, low=0.01, high=1024, help="Updates are scaled by alpha / rank.")
    dropout: float = setting(0.0, low=0, high=0.9, help="Share of the updates' inputs that training drops.")
    layout: str = setting(
        "corrected",
        choices=("corrected", "released"),
        help="released, as SAMed and the paper's counts have it, updates the half of the queries and values in the "
        "three blocks that double the width.",
    )


class LoRA(Method):
    """Low-rank updates of the queries and values in every block."""

    title = "LoRA"
    Options = Options

    def inject(self, network: nn.Module) -> None:
        own = self.options
        for block in trunk_blocks(network):
            width = block.dim_out if own.layout == "corrected" else block.dim
            query, value = (LowRank(block.dim, width, own.rank, own.alpha, own.dropout) for _ in range(2))
            add_branch(block.attn.qkv, LOW_RANK, QueryValue(query, value, 3 * block.dim_out - 2 * width))

    def fold(self, network: nn.Module) -> None:
        fold_low_rank(network)


METHOD = LoRA
