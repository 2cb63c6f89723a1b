"""E2VPT: learnt tokens, keys and values, of which the useless ones are pruned on the way (arXiv 2307.13770)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_uniultra.core.settings import setting
from napari_uniultra.training.peft_methods.method import Method
from napari_uniultra.training.peft_methods.vpt import Options as TokenOptions
from napari_uniultra.training.peft_methods.vpt import PromptedAttention, prompt_blocks

_SPREAD = 0.02


@dataclass(frozen=True)
class Options(TokenOptions):
    """Of the tokens, the keys and values, and the pruning."""

    key_values: int = setting(5, low=1, high=200, help="Learnt keys, and as many values, in each block.")
    segments: int = setting(8, low=1, high=64, help="Parts that a token is pruned by.")
    prune_tokens: float = setting(0.3, low=0, high=0.9, help="Share of each block's tokens to prune.")
    prune_segments: float = setting(0.3, low=0, high=0.9, help="Share of the parts of each block's tokens to prune.")
    prune_at: float = setting(0.5, low=0, high=1, help="When to prune, as a share of the run.")


class PrunedAttention(PromptedAttention):
    """Adds learnt keys and values, and counts what each token and each part of it is worth.

    A token's worth is the mean size of the loss's derivative by a factor before it, which is the sum of its values
    times their gradients; a part's worth likewise.
    """

    def __init__(self, attention: nn.Module, options: Options) -> None:
        super().__init__(attention, options.tokens)
        shape = (options.key_values, attention.num_heads, attention.dim_out // attention.num_heads)
        self.keys = nn.Parameter(torch.empty(shape).uniform_(-_SPREAD, _SPREAD))
        self.values = nn.Parameter(torch.empty(shape).uniform_(-_SPREAD, _SPREAD))
        parts = min(options.segments, attention.dim)
        # Floats, as everything in a checkpoint; part i of a token holds the values i, i + parts, ...
        self.register_buffer("kept", torch.ones(options.tokens, parts))
        self.register_buffer("token_worth", torch.zeros(options.tokens))
        self.register_buffer("part_worth", torch.zeros(options.tokens, parts))

    def extra(self) -> tuple[Tensor, Tensor]:
        alive = self.kept.any(dim=1)
        keys, values = self._of_tokens((self.prompts * self._by_value(self.kept))[alive])
        return torch.cat([self.keys.to(keys.dtype), keys]), torch.cat([self.values.to(values.dtype), values])

    def _by_value(self, parts: Tensor) -> Tensor:
        width = self.prompts.shape[1]
        return parts.repeat(1, -(-width // parts.shape[1]))[:, :width]

    @torch.no_grad()
    def weigh(self) -> None:
        """Count what the gradients of this step say."""
        if self.prompts.grad is None:
            return
        slopes = self.prompts * self.prompts.grad
        self.token_worth += slopes.sum(dim=1).abs()
        parts = torch.arange(slopes.shape[1], device=slopes.device) % self.kept.shape[1]
        self.part_worth += torch.zeros_like(self.part_worth).index_add(1, parts, slopes).abs()

    @torch.no_grad()
    def prune(self, tokens: float, parts: float) -> None:
        """Drop these shares of the tokens and of the parts of all tokens, the least worthy first."""
        drop = self.part_worth.flatten().argsort()[: int(parts * self.part_worth.numel())]
        self.kept.view(-1)[drop] = 0
        self.kept[self.token_worth.argsort()[: int(tokens * len(self.token_worth))]] = 0


class E2VPT(Method):
    """Trains tokens, keys and values in the attention's windows and everything outside the image encoder.

    The paper starts the training anew after pruning; here it goes on.
    """

    title = "E2VPT"
    Options = Options
    starts_equal = False
    can_merge = False

    def inject(self, network: nn.Module) -> None:
        for block in prompt_blocks(network, self.options.deep):
            block.attn = PrunedAttention(block.attn, self.options)

    def after_backward(self, network: nn.Module, progress: float) -> None:
        """Weigh the tokens until the time of pruning, and then prune once."""
        layers = [module for module in network.modules() if isinstance(module, PrunedAttention)]
        if not layers or not all(bool(layer.kept.all()) for layer in layers):
            return
        if progress < self.options.prune_at:
            for layer in layers:
                layer.weigh()
        elif any(bool(layer.token_worth.any()) for layer in layers):
            for layer in layers:
                layer.prune(self.options.prune_tokens, self.options.prune_segments)


METHOD = E2VPT
