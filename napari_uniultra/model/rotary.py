"""Rotary positions of the memory attention: spread over a fixed range, and for memories pooled to fewer places."""

from __future__ import annotations

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


def rotated(x: Tensor, rotations: Tensor) -> Tensor:
    """Turn neighbouring pairs of the features of x (..., N, D) by ``rotations`` (N, D / 2); N may be a multiple."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    repeated = rotations.repeat(pairs.shape[-2] // len(rotations), 1)
    return torch.view_as_real(pairs * repeated).flatten(-2).to(x.dtype)


class PooledKeys:
    """Mixed into sam2's RoPEAttention: keys come from memories whose places were pooled.

    ``key_rotations`` (s * s, D / 2) complex64 has the pooled places' codes; the owner sets it.
    """

    key_rotations: Tensor

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0) -> Tensor:
        """Queries (B, N, D) to keys and values (B, M, D); the last ``num_k_exclude_rope`` keys have no place."""
        q, k, v = (
            self._separate_heads(projection(x), self.num_heads)
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        self.freqs_cis, self.key_rotations = self.freqs_cis.to(q.device), self.key_rotations.to(q.device)
        spatial, placeless = k.split([k.shape[-2] - num_k_exclude_rope, num_k_exclude_rope], dim=-2)
        k = torch.cat([rotated(spatial, self.key_rotations), placeless], dim=-2)
        dropout = self.dropout_p if self.training else 0.0
        attended = F.scaled_dot_product_attention(rotated(q, self.freqs_cis), k, v, dropout_p=dropout)
        return self.out_proj(self._recombine_heads(attended))


class PooledMemory:
    """Mixed into sam2's MemoryEncoder: what is remembered of a frame is averaged over ``pool`` x ``pool`` places."""

    pool: int = 1

    def forward(self, pix_feat: Tensor, masks: Tensor, skip_mask_sigmoid: bool = False) -> dict[str, object]:
        """As sam2's, with features and position codes (B, 64, s / pool, s / pool)."""
        remembered = super().forward(pix_feat, masks, skip_mask_sigmoid)["vision_features"]
        features = F.avg_pool2d(remembered, self.pool)
        return {"vision_features": features, "vision_pos_enc": [self.position_encoding(features).to(features.dtype)]}
