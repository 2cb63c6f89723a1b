"""The forward pass of the Hiera trunk, with CH-Adapters beside the MLPs, over the modules that sam2 builds.

It computes what sam2's own forward computes. It is written out here because an adapter needs a block's normalised
features and the embedded patches, which sam2's blocks keep to themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.model.adapters import CHAdapter, EdgeFilter, PatchMixer
from napari_uniultra.model.config import AdapterConfig
from napari_uniultra.model.feed_forward import MergedFeedForward


class Frozen(NamedTuple):
    """What a trunk computes once for all images of a size.

    Attributes
    ----------
    position : Tensor
        (1, S/4, S/4, D), the code of the patches' positions.
    feed_forwards : sequence of MergedFeedForward or None
        A block's, where it can be merged.
    """

    position: Tensor
    feed_forwards: Sequence[MergedFeedForward | None]


class AdaptedTrunk:
    """Mixed into sam2's ``Hiera``: adds the adapters and their forward pass, and keeps the names of its weights."""

    def add_adapters(self, config: AdapterConfig) -> None:
        """Give every block its adapter, and the trunk the patch mixer that feeds their edge branches."""
        self.adapter_scale = config.scale
        self.edge_filter = EdgeFilter(config)
        has_edges = len(self.edge_filter.kernels) > 0
        self.patch_mixer = PatchMixer(self.pos_embed.shape[1], config.edge_channels) if has_edges else None
        for block in self.blocks:
            block.adapter = CHAdapter(block.dim_out, config)

    def frozen(self, image_size: int) -> Frozen:
        """What the forward pass of images with sides S = ``image_size`` may take from now on, if no weight changes."""
        position = self._get_pos_embed((image_size // 4, image_size // 4)).contiguous()
        scale = getattr(self, "adapter_scale", 0.0)
        return Frozen(position, [MergedFeedForward.of(block, scale) for block in self.blocks])

    def forward(self, x: Tensor, frozen: Frozen | None = None) -> list[Tensor]:
        """Images (B, 3, S, S) to one feature map (B, D, S/4.., S/4..) a stage, from fine to coarse."""
        x = self.patch_embed(x)
        x = x + (self._get_pos_embed(x.shape[1:3]) if frozen is None else frozen.position)
        patches = self.patch_mixer(x) if getattr(self, "patch_mixer", None) is not None else None
        edges = self._edges(patches)
        outputs = []
        for index, block in enumerate(self.blocks):
            merged = None if frozen is None else frozen.feed_forwards[index]
            x = self._block(block, x, edges, merged)
            if index in self.stage_ends:
                outputs.append(x.permute(0, 3, 1, 2))
                if patches is not None and index != self.stage_ends[-1]:
                    patches = F.max_pool2d(patches, 2)
                    edges = self._edges(patches)
        return outputs

    def _edges(self, patches: Tensor | None) -> Tensor | None:
        return None if patches is None else self.edge_filter(patches).permute(0, 2, 3, 1)

    def _block(self, block: nn.Module, x: Tensor, edges: Tensor | None, merged: MergedFeedForward | None) -> Tensor:
        x = attend(block, x)
        normed = block.norm2(x)
        x = self._fed_forward(block, x, normed, edges) if merged is None else x + merged(normed, edges)
        after = getattr(block, "after_block", None)  # a fine-tuning method's own part
        return x if after is None else x + after(x)

    def _fed_forward(self, block: nn.Module, x: Tensor, normed: Tensor, edges: Tensor | None) -> Tensor:
        x = x + block.drop_path(block.mlp(normed))
        adapter = getattr(block, "adapter", None)
        return x if adapter is None else x + self.adapter_scale * adapter(normed, edges)


def attend(block: nn.Module, x: Tensor) -> Tensor:
    """The attention half of a Hiera block: (B, H, W, D) to (B, H', W', D'), halved where queries are pooled."""
    shortcut = x
    x = block.norm1(x)
    if block.dim != block.dim_out:
        shortcut = _pooled(block.proj(x), block.pool)
    window = block.window_size
    if window:
        x, grid = _to_windows(x, window)
        x = block.attn(x)
        if block.q_stride:
            window //= block.q_stride[0]
        x = _from_windows(x, window, grid, shortcut.shape[1:3])
    else:
        x = block.attn(x)
    return shortcut + block.drop_path(x)


def _pooled(x: Tensor, pool: nn.Module | None) -> Tensor:
    return x if pool is None else pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _to_windows(x: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """(B, H, W, D), padded with zeros, as (B * rows * columns, window, window, D) and the grid (rows, columns)."""
    batch, height, width, dim = x.shape
    rows, columns = -(-height // window), -(-width // window)
    pad = (rows * window - height, columns * window - width)
    if any(pad):
        x = F.pad(x, (0, 0, 0, pad[1], 0, pad[0]))
    x = x.view(batch, rows, window, columns, window, dim)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window, window, dim), (rows, columns)


def _from_windows(x: Tensor, window: int, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The inverse of `_to_windows`, cropped to ``size``."""
    rows, columns = grid
    x = x.view(-1, rows, columns, window, window, x.shape[-1])
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, rows * window, columns * window, x.shape[-1])
    return x[:, : size[0], : size[1]]
