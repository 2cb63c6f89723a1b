"""What inference computes with: a network's own modules, or faster ones that give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from napari_uniultra.model.attention import FastMemoryAttention
from napari_uniultra.model.inference import InferenceEncoder
from napari_uniultra.model.layers import use_fast_layers


class Parts:
    """The heavy parts of a network whose weights do not change any more.

    Parameters
    ----------
    network : SAM2Base
    image_size : int
    device : torch.device
    compiled : bool
        Compile what each tracked frame needs. Prompts are answered as without: their shapes change with each click.

    Attributes
    ----------
    encoder
        Images (B, 3, S, S) to `FrameEmbedding`.
    memory_attention, memory_encoder, mask_decoder
        As sam2's modules; the decoder is for frames without prompts.
    shares_frame : bool
        Whether the memory attention takes a frame's features once for all objects.
    """

    def __init__(self, network: nn.Module, image_size: int, device: torch.device, compiled: bool) -> None:
        on_cpu = device.type == "cpu"
        compile_with = _compiler() if compiled else None
        self.shares_frame = on_cpu
        self.encoder: Any = InferenceEncoder(network, image_size, compile_with)
        self.memory_attention: Any = network.memory_attention
        self.memory_encoder: Any = network.memory_encoder
        self.mask_decoder: Any = network.sam_mask_decoder
        if on_cpu:
            use_fast_layers(network)
            self.memory_attention = FastMemoryAttention(network.memory_attention, image_size // 16)
        elif compile_with is not None:  # its lengths change until the memory is full
            self.memory_attention = compile_with(self.memory_attention, "memory attention", graphs=False)
        if compile_with is not None:
            self.memory_encoder = compile_with(self.memory_encoder, "memory encoder")
            self.mask_decoder = compile_with(self.mask_decoder, "mask decoder")


def _compiler() -> Callable[..., Any]:
    from napari_uniultra.model.compiled import Compiled  # which loads PyTorch's compiler: a second

    return Compiled
