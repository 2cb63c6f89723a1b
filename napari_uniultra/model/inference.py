"""The image encoder at inference: the same numbers as sam2's own, without the parts nobody reads.

sam2 codes the positions of all four feature levels although only the coarsest one's are used, resizes the code of the
patches' positions for every image, and projects the two finest levels to 256 channels only to project them again for
the decoder: the two 1 x 1 convolutions are one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class FrameEmbedding:
    """One frame's features; s is image_size / 16.

    Attributes
    ----------
    image : Tensor
        (1, 256, s, s)
    high_res : (Tensor, Tensor)
        (1, 32, 4s, 4s) and (1, 64, 2s, 2s), projected for the mask decoder.
    """

    image: Tensor
    high_res: tuple[Tensor, Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.image, *self.high_res))


class InferenceEncoder:
    """Embeds images with a network whose weights do not change any more.

    Parameters
    ----------
    network : SAM2Base
    image_size : int
    compile_with : callable, optional
        From a function and its name to a faster one.
    """

    def __init__(self, network: nn.Module, image_size: int, compile_with: Callable[..., Any] | None = None) -> None:
        self._encoder = network.image_encoder
        lateral = self._encoder.neck.convs  # from coarse to fine
        self._coarse, self._middle = lateral[0].conv, lateral[1].conv
        with torch.inference_mode():
            self._fine = compose(lateral[2].conv, network.sam_mask_decoder.conv_s1)
            self._finest = compose(lateral[3].conv, network.sam_mask_decoder.conv_s0)
            self._frozen = self._encoder.trunk.frozen(image_size)
        self._compute = self._levels if compile_with is None else compile_with(self._levels, "image encoder")

    def __call__(self, images: Tensor) -> FrameEmbedding:
        """Embed images (B, 3, S, S)."""
        image, *high_res = self._compute(images)
        return FrameEmbedding(image, tuple(high_res))

    def _levels(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        finest, fine, middle, coarse = self._encoder.trunk(images, self._frozen)
        top_down = F.interpolate(self._coarse(coarse), scale_factor=2.0, mode="nearest")
        return self._middle(middle) + top_down, mix_channels(finest, *self._finest), mix_channels(fine, *self._fine)


def mix_channels(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1 x 1 convolution of x (B, C, H, W) with weight (D, C, 1, 1) and bias (D,), as a product of matrices.

    The result lies channel by channel, as the mask decoder needs it; a convolution would keep the trunk's order.
    """
    batch, _, height, width = x.shape
    mixed = torch.baddbmm(bias[:, None], weight.flatten(1).expand(batch, -1, -1), x.flatten(2))
    return mixed.view(batch, -1, height, width)


def compose(first: nn.Conv2d, second: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one 1 x 1 convolution that does what ``first`` and then ``second`` do."""
    parameters = (second.weight[:, :, 0, 0], first.weight[:, :, 0, 0], second.bias, first.bias)
    outer, inner, shift, inner_shift = (own.cpu().double() for own in parameters)  # MPS has no float64
    weight, bias = outer @ inner, outer @ inner_shift + shift
    return weight.to(first.weight)[:, :, None, None], bias.to(first.weight)
