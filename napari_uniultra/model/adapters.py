"""The context-edge hybrid adapter (CH-Adapter) of UniUltra, arXiv 2511.15771, Section III-B."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.model.config import AdapterConfig

# Cross-correlation kernels; "horizontal" responds to horizontal edges, that is to a change along y.
SOBEL_KERNELS: dict[str, tuple[tuple[float, ...], ...]] = {
    "horizontal": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    "vertical": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "diagonal_right": ((-2, -1, 0), (-1, 0, 1), (0, 1, 2)),
    "diagonal_left": ((0, -1, -2), (1, 0, -1), (2, 1, 0)),
}
_LAPLACE = ((0, 1, 0), (1, -4, 1), (0, 1, 0))
_EPS = 1e-6
_CANNY_WEAK, _CANNY_STRONG = 0.1, 0.2  # of each map's largest gradient


def edge_kernels(config: AdapterConfig) -> Tensor:
    """The operator's fixed kernels, (K, 3, 3) float32; K is 0 when there is no edge branch."""
    if config.operator == "laplace":
        return torch.tensor([_LAPLACE], dtype=torch.float32)
    names = ("horizontal", "vertical") if config.operator == "canny" else config.directions
    if not names:
        return torch.zeros(0, 3, 3)
    return torch.tensor([SOBEL_KERNELS[name] for name in names], dtype=torch.float32)


class EdgeFilter(nn.Module):
    """Edges of each channel by itself, with fixed depthwise kernels: (B, C, H, W) -> (B, C, H, W).

    Eq. 2 sums the four directions' responses before any non-linearity, which equals one single kernel. By default the
    responses are joined as a magnitude, sqrt(sum of squares + eps), and the gradient flows through to the patch mixer.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("kernels", edge_kernels(config), persistent=False)

    def responses(self, x: Tensor) -> Tensor:
        """Each kernel's response, (B, C, K, H, W); borders are replicated so that the frame itself is no edge."""
        batch, channels, height, width = x.shape
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate").reshape(batch * channels, 1, height + 2, width + 2)
        return F.conv2d(padded, self.kernels[:, None].to(x.dtype)).view(batch, channels, -1, height, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.config.operator == "canny":
            return self._canny(x)
        responses = self.responses(x)
        if self.config.reduction == "sum":
            return responses.sum(dim=2)
        return (responses.square().sum(dim=2) + _EPS).sqrt()

    def _canny(self, x: Tensor) -> Tensor:
        """Canny's steps on feature maps; hysteresis is one step: a weak edge stays where a neighbour is strong."""
        smooth = x
        for _ in range(2):  # two box filters are close to a Gaussian; counting the padding would make the frame an edge
            smooth = F.avg_pool2d(smooth, 3, 1, 1, count_include_pad=False)
        along_y, along_x = self.responses(smooth).unbind(dim=2)
        magnitude = (along_y.square() + along_x.square() + _EPS).sqrt()
        with torch.no_grad():
            thin = self._is_ridge(magnitude, along_y, along_x)
            peak = magnitude.amax(dim=(-2, -1), keepdim=True)
            strong = (thin & (magnitude >= _CANNY_STRONG * peak)).to(magnitude.dtype)
            near_strong = F.max_pool2d(strong, 3, 1, 1) > 0
            keep = thin & (magnitude >= _CANNY_WEAK * peak) & near_strong
        return magnitude * keep

    @staticmethod
    def _is_ridge(magnitude: Tensor, along_y: Tensor, along_x: Tensor) -> Tensor:
        """Non-maximum suppression: is a pixel no smaller than both neighbours across the edge?"""
        padded = F.pad(magnitude, (1, 1, 1, 1))
        height, width = magnitude.shape[-2:]

        def neighbour(dy: int, dx: int) -> Tensor:
            return padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

        sector = (torch.atan2(along_y, along_x) / (math.pi / 4)).round().long() % 4
        offsets = ((0, 1), (1, 1), (1, 0), (1, -1))
        across = torch.stack([torch.maximum(neighbour(dy, dx), neighbour(-dy, -dx)) for dy, dx in offsets])
        return magnitude >= across.gather(0, sector[None])[0]


class PatchMixer(nn.Module):
    """Reduces the embedded patches to the few channels whose edges every adapter sees: (B, H, W, D) -> (B, C, H, W)."""

    def __init__(self, embed_dim: int, edge_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(embed_dim, edge_channels, kernel_size=3, padding=1)

    def forward(self, patches: Tensor) -> Tensor:
        return F.gelu(self.conv(patches.permute(0, 3, 1, 2)))


class CHAdapter(nn.Module):
    """One block's adapter, H = P + F (Eq. 3): context from the features, edges from the patches.

    The up-projection and the channel mixer start at zero, so that an untrained adapter changes nothing.
    """

    def __init__(self, dim: int, config: AdapterConfig) -> None:
        super().__init__()
        hidden = int(dim * config.hidden_ratio)
        self.down = nn.Linear(dim, hidden)
        self.up = nn.Linear(hidden, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        kernels = edge_kernels(config)
        self.channel_mixer = None
        if len(kernels):
            self.channel_mixer = nn.Linear(config.edge_channels, dim)
            nn.init.zeros_(self.channel_mixer.weight)
            nn.init.zeros_(self.channel_mixer.bias)
            if config.layout == "released":
                dense = kernels[:, None, None].expand(-1, config.edge_channels, config.edge_channels, -1, -1)
                self.dense_kernels = nn.ParameterList(
                    nn.Parameter(kernel.clone(), requires_grad=False) for kernel in dense
                )

    def forward(self, features: Tensor, edges: Tensor | None) -> Tensor:
        """Features (B, H, W, D) and edges (B, H, W, C), channels last, to (B, H, W, D)."""
        context = self.up(F.gelu(self.down(features)))
        return context if self.channel_mixer is None else context + self.channel_mixer(edges)
