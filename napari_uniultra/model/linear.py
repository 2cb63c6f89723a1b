"""Linear layers at inference on a CPU, by the faster of the two libraries that PyTorch has for them.

PyTorch multiplies float32 matrices with Intel's MKL, which uses only a part of what AMD's processors can do; oneDNN,
with which it computes convolutions, takes half of MKL's time there. The numbers are the same but for rounding.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FastLinear(nn.Linear):
    """A linear layer that computes by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K) times the transpose of weight (N, K), plus bias (N,); PyTorch's own with gradients or a compiler."""
    if is_plain(x) and is_plain(weight) and onednn_is_faster():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def is_plain(tensor: Tensor) -> bool:
    """Whether a layer may compute with a tensor as it likes: float32 on a CPU, without gradients or a compiler."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.numel() > 0


@cache
def onednn_is_faster() -> bool:
    """Whether PyTorch's other library multiplies faster here than the one that it would use."""
    backends = torch.backends
    has_both = backends.mkl.is_available() and backends.mkldnn.is_available()
    return has_both and hasattr(torch.ops.mkldnn, "_linear_pointwise") and _is_amd()


def _is_amd() -> bool:
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux
        described = platform.processor()
    return "AuthenticAMD" in described
