"""What a model costs: parameters, operations, frames a second, memory (Tables III and IV)."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from napari_uniultra.model.device import copied_to

_GRID = 16  # pixels of the input for one place of the coarsest map that the decoder reads


@dataclass(frozen=True)
class Measured:
    """What one image with one box costs on a device, through image encoder, prompt encoder and mask decoder.

    Attributes
    ----------
    frames_per_second : float
    peak_bytes : int
        Weights and activations at the highest moment.
    """

    frames_per_second: float
    peak_bytes: int


def measure(network: nn.Module, device: torch.device, repeats: int = 10) -> Measured:
    """Run a network in evaluation mode at its own input size; it is moved to the device, where it stays."""
    network = network.to(device)
    side = network.image_size  # the prompt encoder knows no other
    images = torch.zeros(1, 3, side, side, device=device)
    with torch.inference_mode():
        return Measured(_speed(lambda: segment_once(network, images), device, repeats), _peak_bytes(network, images))


def parameter_count(module: nn.Module) -> int:
    """Parameters, trained or not; constants that are kept as buffers are none."""
    return sum(parameter.numel() for parameter in module.parameters())


def segment_once(network: nn.Module, images: Tensor) -> Tensor:
    """Mask logits (B, 1, S/4, S/4) of images (B, 3, S, S), each with one box around its middle."""
    size = images.shape[-1]
    box = images.new_tensor([[size / 4, size / 4], [3 * size / 4, 3 * size / 4]])
    points = (box.expand(len(images), 2, 2), torch.tensor([2, 3], device=images.device).expand(len(images), 2))
    sparse, dense = network.sam_prompt_encoder(points=points, boxes=None, masks=None)
    features = network.forward_image(images)["backbone_fpn"]
    return _decode(network, features, network.sam_prompt_encoder.get_dense_pe(), sparse, dense)


def _decode(network: nn.Module, features: list[Tensor], places: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
    masks, *_ = network.sam_mask_decoder(
        image_embeddings=features[-1],
        image_pe=places,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
        repeat_image=False,
        high_res_features=features[:2],
    )
    return masks


# Operations


def thop_operations(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """What the profiler ``thop`` counts for a layer; it counts no attention products and nothing outside these layers.

    A transposed convolution is counted with its output's size as if it were an ordinary one, which for a 2 x 2 kernel
    with stride 2 is four times its multiplications; a layer norm is counted as four operations an element.
    """
    if isinstance(module, nn.ConvTranspose2d):
        return output.numel() * module.in_channels * module.weight[0, 0].numel()
    if isinstance(module, nn.Conv2d):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, nn.LayerNorm):
        return 4 * inputs.numel()
    return 0


def count_operations(network: nn.Module) -> tuple[int, int]:
    """Operations for one image, without computing anything.

    Returns
    -------
    (int, int)
        Those of image encoder and mask decoder, without prompt tokens, as ``thop`` counts them, which is how the
        paper's 847.47 G and 7.38 G come about (Table III); and the image encoder's multiplications in convolutions,
        linear layers and attention.
    """
    image_size = network.image_size
    shapes_only = copied_to(network, "meta")
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.inference_mode(), _thop_counts(shapes_only) as counts:
        with counter:
            features = shapes_only.image_encoder(torch.zeros(1, 3, image_size, image_size))["backbone_fpn"]
        decoder = shapes_only.sam_mask_decoder
        features[:2] = decoder.conv_s0(features[0]), decoder.conv_s1(features[1])
        width, side = features[-1].shape[1], image_size // _GRID
        places = dense = torch.zeros(1, width, side, side)
        _decode(shapes_only, features, places, torch.zeros(1, 0, width), dense)
    return sum(counts), counter.get_total_flops() // 2


@contextmanager
def _thop_counts(network: nn.Module) -> Iterator[list[int]]:
    counts: list[int] = []

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        if inputs and torch.is_tensor(output):
            counts.append(thop_operations(module, inputs[0], output))

    parts = [*network.image_encoder.modules(), *network.sam_mask_decoder.modules()]
    hooks = [module.register_forward_hook(count) for module in parts]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


# Speed and memory


def _speed(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Calls a second, after one that does not count; the median, since other work on the machine only ever slows."""
    seconds = []
    for _ in range(repeats + 1):
        _finish(device)
        start = time.perf_counter()
        call()
        _finish(device)
        seconds.append(time.perf_counter() - start)
    return 1 / sorted(seconds[1:])[repeats // 2]


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _peak_bytes(network: nn.Module, images: Tensor) -> int:
    """On a GPU what its allocator gave out at most; elsewhere the tensors that were alive at once."""
    weights = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    if images.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(images.device)
        before = torch.cuda.memory_allocated(images.device)
        segment_once(network, images)
        return weights + torch.cuda.max_memory_allocated(images.device) - before
    with LiveTensors() as live:
        segment_once(network, images)
    return weights + live.peak


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside its context, and how many were alive at once at most.

    What a kernel allocates for itself and frees again is not seen.

    Attributes
    ----------
    peak : int
        Bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if torch.is_tensor(tensor)}
        outputs = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if torch.is_tensor(tensor) and tensor.untyped_storage()._cdata not in given | self._known:
                self._follow(tensor.untyped_storage())
        return outputs

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
