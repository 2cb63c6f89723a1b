"""Conv-LoRA: low-rank updates that see their neighbourhood at a learnt scale (arXiv 2401.17868)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.core.settings import ConfigError, setting
from napari_uniultra.training.peft_methods.branches import LOW_RANK, LowRank, QueryValue, add_branch, trunk_blocks
from napari_uniultra.training.peft_methods.method import Method

_LEAST_NOISE = 1e-2
_EPS = 1e-10


@dataclass(frozen=True)
class Options:
    """Size of the low-rank updates and their experts."""

    rank: int = setting(3, low=1, high=256, help="Rank of the updates, which is the experts' width.")
    alpha: float = setting(3.0, low=0.01, high=1024, help="Updates are scaled by alpha / rank.")
    experts: int = setting(8, low=1, high=16, help="Number of experts; expert i works on maps enlarged i times.")
    top: int = setting(1, low=1, high=16, help="Experts that a window's gate chooses.")
    balance: float = setting(0.01, low=0, high=10, help="Weight of the loss that keeps all experts in use.")

    def __post_init__(self) -> None:
        if self.top > self.experts:
            raise ConfigError(f"method.options.top is {self.top}", f"there are {self.experts} experts")


class Gate(nn.Module):
    """Chooses experts for each map by its mean, with learnt noise in training (noisy top-k gating)."""

    def __init__(self, width: int, experts: int, top: int) -> None:
        super().__init__()
        self.top = top
        self.score = nn.Parameter(torch.zeros(width, experts))
        self.noise = nn.Parameter(torch.zeros(width, experts))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, H, W) to gates (B, experts), zero but for the chosen ones, and the balancing loss, a scalar.

        Both are float32, whatever the precision of the network.
        """
        with torch.autocast(maps.device.type, enabled=False):
            return self._gates(maps.float().mean(dim=(2, 3)))

    def _gates(self, means: Tensor) -> tuple[Tensor, Tensor]:
        clean = means @ self.score
        spread = F.softplus(means @ self.noise) + _LEAST_NOISE
        scores = clean + torch.randn_like(clean) * spread if self.training else clean
        best, chosen = scores.topk(self.top, dim=1)
        gates = torch.zeros_like(scores).scatter(1, chosen, best.softmax(dim=1))
        load = self._load(clean, scores, spread) if self.training and self.top < clean.shape[1] else (gates > 0).float()
        return gates, _unevenness(gates.sum(dim=0)) + _unevenness(load.sum(dim=0))

    def _load(self, clean: Tensor, noisy: Tensor, spread: Tensor) -> Tensor:
        """The chance of each expert to be among the chosen if its noise were drawn anew, (B, experts)."""
        ranked = noisy.topk(self.top + 1, dim=1).values
        is_chosen = noisy > ranked[:, self.top :]
        to_beat = torch.where(is_chosen, ranked[:, self.top :], ranked[:, self.top - 1 : self.top])
        return 0.5 * (1 + torch.erf((clean - to_beat) / spread / math.sqrt(2)))


def _unevenness(uses: Tensor) -> Tensor:
    """Squared coefficient of variation; 0 for a single expert."""
    return uses.new_zeros(()) if len(uses) == 1 else uses.var() / (uses.mean().square() + _EPS)


class ConvLowRank(LowRank):
    """A low-rank update, channels last, between whose two maps convolution experts of several scales stand."""

    def __init__(self, inputs: int, outputs: int, options: Options) -> None:
        super().__init__(inputs, outputs, options.rank, options.alpha)
        self.gate = Gate(options.rank, options.experts, options.top)
        self.experts = nn.ModuleList(
            nn.Conv2d(options.rank, options.rank, 3, padding=1) for _ in range(options.experts)
        )
        for expert in self.experts:
            nn.init.zeros_(expert.bias)
        self.balance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Windows (B, H, W, D) to (B, H, W, out)."""
        low = F.linear(x, self.down).permute(0, 3, 1, 2)
        gates, balance = self.gate(low)
        if self.training:
            self.balance = balance
        mixed = low
        for index, expert in enumerate(self.experts):
            rows = gates[:, index].nonzero()[:, 0]
            if len(rows):
                seen = gates[rows, index, None, None, None] * _at_scale(expert, low[rows], index + 1)
                mixed = mixed.index_add(0, rows, seen.to(mixed.dtype))
        return self.scale * F.linear(mixed.permute(0, 2, 3, 1), self.up)


def _at_scale(expert: nn.Module, maps: Tensor, scale: int) -> Tensor:
    """The expert's answer to maps that are enlarged ``scale`` times, at the maps' own size."""
    if scale == 1:
        return F.gelu(expert(maps))
    large = F.interpolate(maps, scale_factor=scale, mode="bicubic")
    return F.interpolate(F.gelu(expert(large)), size=maps.shape[-2:], mode="bicubic")


class ConvLoRA(Method):
    """Low-rank updates of queries and values with convolution experts, and a loss that balances these."""

    title = "Conv-LoRA"
    Options = Options
    can_merge = False

    def inject(self, network: nn.Module) -> None:
        for block in trunk_blocks(network):
            query, value = (ConvLowRank(block.dim, block.dim_out, self.options) for _ in range(2))
            add_branch(block.attn.qkv, LOW_RANK, QueryValue(query, value, block.dim_out))

    def extra_loss(self, network: nn.Module) -> Tensor | None:
        """The balancing loss of all gates in the forward pass just made; None if there was none in training."""
        layers = [module for module in network.modules() if isinstance(module, ConvLowRank)]
        losses = [layer.balance for layer in layers if layer.balance is not None]
        for layer in layers:
            layer.balance = None  # it holds the pass's whole graph
        return self.options.balance * torch.stack(losses).sum() if losses else None


METHOD = ConvLoRA
