"""Visual prompt tuning: learnt tokens that every window of the image encoder can attend to (arXiv 2203.12119)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.core.settings import ConfigError, setting
from napari_uniultra.training.peft_methods.branches import trunk_blocks
from napari_uniultra.training.peft_methods.method import Method

_SPREAD = 0.02


@dataclass(frozen=True)
class Options:
    """Number of the tokens and where they are."""

    tokens: int = setting(5, low=1, high=200, help="Learnt tokens in each block that has them.")
    deep: bool = setting(True, help="Tokens of their own in every block; otherwise in the first alone.")


class PromptedAttention(nn.Module):
    """Hiera's attention with learnt tokens among the keys and values of every window.

    The tokens ask nothing themselves, so that windows keep their shape. The base's weights keep their names.

    Parameters
    ----------
    attention : MultiScaleAttention
        sam2's module, whose maps this one takes over.
    tokens : int
    """

    def __init__(self, attention: nn.Module, tokens: int) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.q_pool, self.num_heads = attention.q_pool, attention.num_heads
        self.prompts = nn.Parameter(torch.empty(tokens, attention.dim).uniform_(-_SPREAD, _SPREAD))

    def extra(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens, (P, heads, C) each."""
        return self._of_tokens(self.prompts)

    def _of_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        _, keys, values = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).unbind(dim=1)
        return keys, values

    def forward(self, x: Tensor) -> Tensor:
        """Windows (B, H, W, D) to (B, H', W', D'), halved where queries are pooled."""
        batch, height, width, _ = x.shape
        query, key, value = self.qkv(x).unflatten(-1, (3, -1)).unbind(dim=3)  # (B, H, W, D') each
        if self.q_pool is not None:
            query = self.q_pool(query.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            height, width = query.shape[1:3]
        query, key, value = (part.reshape(batch, -1, *self._heads(part)) for part in (query, key, value))
        more_keys, more_values = (part[None].expand(batch, -1, -1, -1).to(key.dtype) for part in self.extra())
        key, value = torch.cat([more_keys, key], dim=1), torch.cat([more_values, value], dim=1)
        attended = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (query, key, value)))
        return self.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))

    def _heads(self, part: Tensor) -> tuple[int, int]:
        return self.num_heads, part.shape[-1] // self.num_heads


def prompt_blocks(network: nn.Module, deep: bool) -> list[nn.Module]:
    """The blocks that get tokens.

    Raises
    ------
    ConfigError
        When they have some already.
    """
    blocks = list(trunk_blocks(network))[: None if deep else 1]
    if any(isinstance(block.attn, PromptedAttention) for block in blocks):
        raise ConfigError("The network has learnt tokens already", "a method was applied to it before")
    return blocks


class VPT(Method):
    """Trains tokens in the attention's windows and everything outside the image encoder.

    Even untrained tokens take some of the attention, so the network does not start as its base.
    """

    title = "VPT"
    Options = Options
    starts_equal = False
    can_merge = False

    def inject(self, network: nn.Module) -> None:
        for block in prompt_blocks(network, self.options.deep):
            block.attn = PromptedAttention(block.attn, self.options.tokens)


METHOD = VPT
