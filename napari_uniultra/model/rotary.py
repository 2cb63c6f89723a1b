"""Rotary positions of the memory attention: spread over a fixed range, and for memories pooled to fewer places."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_THETA = 10000.0  # as SAM2's


def axial_rotations(dim: int, end_x: int, end_y: int, step: float = 1.0, offset: float = 0.0) -> Tensor:
    """SAM2's axial rotations for places that lie ``step`` apart, the first of them at ``offset``.

    Returns
    -------
    Tensor
        (end_x * end_y, dim / 2) complex64, row by row; the first half of the angles follows x, the second y.
    """
    end_x, end_y = int(end_x), int(end_y)
    frequencies = _THETA ** (-torch.arange(0, dim, 4) / dim)
    rows, columns = torch.meshgrid(torch.arange(end_y), torch.arange(end_x), indexing="ij")
    angles = torch.cat([torch.outer(at.flatten() * step + offset, frequencies) for at in (columns, rows)], dim=1)
    return torch.polar(torch.ones_like(angles), angles)


def memory_rotations(dim: int, end_x: int, end_y: int, pool: int = 1, rotary_grid: int | None = None) -> Tensor:
    """The codes of what is remembered of a map of (end_y, end_x) places, as `axial_rotations` gives them.

    Parameters
    ----------
    pool : int
        A remembered place lies in the middle of the ``pool`` x ``pool`` places that it stands for.
    rotary_grid : int, optional
        Side of the range that the map's places are spread over, instead of one step for each.
    """
    step = 1.0 if rotary_grid is None else rotary_grid / int(end_x)
    return axial_rotations(dim, int(end_x) // pool, int(end_y) // pool, step * pool, step * (pool - 1) / 2)


def rotated(x: Tensor, rotations: Tensor) -> Tensor:
    """Turn neighbouring pairs of the features of x (..., N, D) by ``rotations`` (n, D / 2); N is a multiple of n."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    turned = pairs.unflatten(-2, (-1, len(rotations))) * rotations  # MPS cannot repeat complex numbers
    return torch.view_as_real(turned).flatten(-2).flatten(-3, -2).to(x.dtype)


class PooledKeys:
    """Mixed into sam2's RoPEAttention: keys come from memories whose places were pooled.

    The owner sets ``compute_key_cis``, which gives the pooled places' codes for a map's size as sam2's
    ``compute_cis`` gives those of its places.
    """

    compute_key_cis: Callable[..., Tensor]
    _codes: tuple[Tensor, Tensor] | None = None  # of queries and keys, for the last size and device

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0) -> Tensor:
        """Queries (B, N, D) to keys and values (B, M, D); the last ``num_k_exclude_rope`` keys have no place."""
        q, k, v = (
            self._separate_heads(projection(x), self.num_heads)
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        own, remembered = self._rotations(q)
        spatial, placeless = k.split([k.shape[-2] - num_k_exclude_rope, num_k_exclude_rope], dim=-2)
        k = torch.cat([rotated(spatial, remembered), placeless], dim=-2)
        dropout = self.dropout_p if self.training else 0.0
        attended = F.scaled_dot_product_attention(rotated(q, own), k, v, dropout_p=dropout)
        return self.out_proj(self._recombine_heads(attended))

    def _rotations(self, q: Tensor) -> tuple[Tensor, Tensor]:
        if self._codes is None or len(self._codes[0]) != q.shape[-2] or self._codes[0].device != q.device:
            side = int(math.sqrt(q.shape[-2]))  # which can be compiled for any size, unlike isqrt
            codes = (compute(end_x=side, end_y=side) for compute in (self.compute_cis, self.compute_key_cis))
            self._codes = tuple(code.to(q.device) for code in codes)
        return self._codes


class PooledMemory:
    """Mixed into sam2's MemoryEncoder: what is remembered of a frame is averaged over ``pool`` x ``pool`` places."""

    pool: int = 1

    def forward(self, pix_feat: Tensor, masks: Tensor, skip_mask_sigmoid: bool = False) -> dict[str, object]:
        """As sam2's, with features and position codes (B, 64, s / pool, s / pool).

        Places are not coded before they are pooled: a code made while CUDA graphs are recorded could not be used later.
        """
        masks = self.mask_downsampler(masks if skip_mask_sigmoid else masks.sigmoid())
        remembered = self.out_proj(self.fuser(self.pix_feat_proj(pix_feat) + masks))
        features = F.avg_pool2d(remembered, self.pool)
        return {"vision_features": features, "vision_pos_enc": [self.position_encoding(features).to(features.dtype)]}
