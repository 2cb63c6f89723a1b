"""DD-Adapter of DD-SAM2: depthwise convolutions of two dilations after every block, for video (arXiv 2507.14613)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.core.settings import ConfigError, setting
from napari_uniultra.training.peft_methods.branches import trunk_blocks
from napari_uniultra.training.peft_methods.method import Method


@dataclass(frozen=True)
class Options:
    """Size of the adapters."""

    hidden_ratio: float = setting(0.5, low=1 / 64, high=4, help="Hidden width over the block's width.")
    dilations: tuple[int, ...] = setting((1, 3), low=1, high=16, help="Dilations of the parallel 3 x 3 convolutions.")


class DDAdapter(nn.Module):
    """Depthwise-dilated adapter, channels last: 1 x 1 to the hidden width, 3 x 3 of several dilations, 1 x 1 back.

    The last convolution starts at zero, so that an untrained adapter changes nothing; its activation lets the gradient
    through.
    """

    def __init__(self, dim: int, hidden: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.down = nn.Conv2d(dim, hidden, 1)
        self.depthwise = nn.ModuleList(
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden) for dilation in dilations
        )
        self.up = nn.Conv2d(hidden, dim, 1)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) to (B, H, W, D)."""
        low = F.gelu(self.down(x.permute(0, 3, 1, 2)))
        low = sum(F.gelu(convolution(low)) for convolution in self.depthwise)
        return F.gelu(self.up(low)).permute(0, 2, 3, 1)


class DDAdapterMethod(Method):
    """Trains the adapters, ten times faster than everything outside the image encoder."""

    title = "DD-Adapter"
    Options = Options
    can_merge = False
    rates = {"after_block": 10.0}  # noqa: RUF012 (a constant of the class)

    def inject(self, network: nn.Module) -> None:
        for block in trunk_blocks(network):
            if hasattr(block, "after_block"):
                raise ConfigError("The network has DD-Adapters already", "a method was applied to it before")
            hidden = max(1, int(block.dim_out * self.options.hidden_ratio))
            block.after_block = DDAdapter(block.dim_out, hidden, self.options.dilations)


METHOD = DDAdapterMethod
