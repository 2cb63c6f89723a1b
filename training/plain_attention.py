"""Attention written out, for training in bfloat16 on a CPU: PyTorch's fused one is several times slower there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def attention_for(device: torch.device) -> AbstractContextManager:
    """What attention to compute with on a device, under the autocast that is on."""
    is_slow = device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return _PlainAttention() if is_slow else nullcontext()


class _PlainAttention(TorchFunctionMode):
    """Takes the place of ``F.scaled_dot_product_attention`` where it has no mask."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See ``TorchFunctionMode``."""
        kwargs = kwargs or {}
        is_plain = function is F.scaled_dot_product_attention and kwargs.keys() <= {"dropout_p"} and len(args) == 3
        return (plain_attention if is_plain else function)(*args, **kwargs)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.0) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V over the last two axes, (..., N, D)."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return F.dropout(scores.softmax(dim=-1), dropout_p) @ value
