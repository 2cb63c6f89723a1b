"""SAM2's memory attention at inference on a CPU: the same numbers with fewer operations.

- A value is a linear map of a token, and the rows of a softmax sum to one: so the tokens themselves are averaged, and
  the value and output projections, which are one, applied to the averages. For memory tokens, which are 64 wide, that
  takes a quarter of the products.
- Rotary codes turn pairs of neighbouring features. Products of queries and keys do not change when both are reordered,
  so the projections give all first members of the pairs and then all second ones, and no complex numbers are needed.
- Keys and their scores exist for one block at a time, which stays in the processor's cache; the softmax is joined over
  the blocks.
- Objects are taken one by one: a batch would only push each other's keys out of the cache. Up to where the first layer
  looks at their memories they are all the same, and computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.model.linear import linear, onednn_is_faster

_QUERIES = 1024  # of a block


class FastMemoryAttention:
    """Computes what ``network.memory_attention`` computes, for weights that do not change any more.

    Parameters
    ----------
    attention : MemoryAttention
        sam2's module, in evaluation mode.
    grid : int
        Side s of the feature map, image_size / 16.
    """

    def __init__(self, attention: nn.Module, grid: int) -> None:
        self._norm = attention.norm
        with torch.inference_mode():
            self._layers = [_Layer(layer, grid) for layer in attention.layers]

    def __call__(
        self, curr: Tensor, curr_pos: Tensor, memory: Tensor, memory_pos: Tensor, num_obj_ptr_tokens: int
    ) -> Tensor:
        """Attend from a frame's features to what is remembered.

        Parameters
        ----------
        curr, curr_pos : Tensor
            (s * s, B, 256) features and their position code, or (s * s, 1, 256) where they are the same for all.
        memory, memory_pos : Tensor
            (M, B, 64) memory tokens, those of whole frames first, and their codes.
        num_obj_ptr_tokens : int
            How many tokens at the end of the memory are object pointers, which have no place in the frame.

        Returns
        -------
        Tensor
            (s * s, B, 256)
        """
        x = (curr + 0.1 * curr_pos).transpose(0, 1).contiguous()
        tokens = memory.transpose(0, 1).contiguous()
        coded = tokens + memory_pos.transpose(0, 1)
        for layer in self._layers:
            x = layer(x, tokens, coded, num_obj_ptr_tokens)
        return self._norm(x).transpose(0, 1)


class _Layer:
    def __init__(self, layer: nn.Module, grid: int) -> None:
        self._layer = layer
        own, cross = layer.self_attn, layer.cross_attn_image
        self._cos, self._sin = _parts(own.compute_cis(end_x=grid, end_y=grid))
        key_cis = getattr(cross, "compute_key_cis", cross.compute_cis)  # of pooled memories, where they are
        self._key_cos, self._key_sin = _parts(key_cis(end_x=grid, end_y=grid))
        self._own_q, self._own_k = _reordered(own.q_proj), _reordered(own.k_proj)
        weight, bias = _reordered(cross.q_proj)
        scale = weight.shape[0] ** -0.5
        self._cross_q = (weight * scale, bias * scale)
        self._cross_k = _reordered(cross.k_proj)
        self._own_value_out, self._cross_value_out = map(_values_and_output, (own, cross))

    def __call__(self, x: Tensor, tokens: Tensor, coded: Tensor, pointers: int) -> Tensor:
        layer = self._layer
        normed = layer.norm1(x)
        q, k = (self._rotated(linear(normed, *projection)) for projection in (self._own_q, self._own_k))
        averages = F.scaled_dot_product_attention(q[:, None], k[:, None], normed[:, None])[:, 0]
        x = linear(averages, *self._own_value_out).add_(x)
        q = self._rotated(linear(layer.norm2(x), *self._cross_q))
        averages = [
            weighted_average(own_q, partial(self._blocks, own_coded, own_tokens, pointers))
            for own_q, own_coded, own_tokens in zip(q.expand(len(coded), -1, -1), coded, tokens, strict=True)
        ]
        x = linear(torch.stack(averages), *self._cross_value_out).add_(x)
        return layer.linear2(layer.linear1(layer.norm3(x)).relu_()).add_(x)

    def _blocks(self, coded: Tensor, tokens: Tensor, pointers: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Rotated keys (n, D) and their values (n, 64) of memory tokens (M, 64), block by block."""
        spatial = len(coded) - pointers
        for own, places in _parts_of(spatial, len(self._key_cos), _keys_at_once()):
            keys = linear(coded[own], *self._cross_k)
            cos, sin = self._key_cos[places], self._key_sin[places]
            _rotate_in_place(*keys.view(-1, len(cos), keys.shape[-1]).chunk(2, dim=-1), cos, sin)
            yield keys, tokens[own]
        if pointers:
            yield linear(coded[spatial:], *self._cross_k), tokens[spatial:]

    def _rotated(self, x: Tensor) -> Tensor:
        """Turn the features of x (B, s * s, D), in place."""
        _rotate_in_place(*x.chunk(2, dim=-1), self._cos, self._sin)
        return x


def _parts_of(tokens: int, places: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of about ``most`` tokens that remember frames of so many places each, and which places they are of.

    A block holds whole frames, or a part of one that has more places than that.
    """
    if places <= most:
        step = most // places * places
        for first in range(0, tokens, step):
            yield slice(first, min(first + step, tokens)), slice(0, places)
        return
    for frame in range(0, tokens, places):
        for first in range(0, places, most):
            last = min(first + most, places)
            yield slice(frame + first, frame + last), slice(first, last)


def _keys_at_once() -> int:
    """Keys of a block: what was fastest with each of the two libraries that multiply matrices."""
    return 512 if onednn_is_faster() else 1024


def _rotate_in_place(first: Tensor, second: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn the pairs (first, second) by their angles."""
    turned = first * cos - second * sin
    second.mul_(cos).addcmul_(first, sin)
    first.copy_(turned)


def weighted_average(queries: Tensor, blocks: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> Tensor:
    """softmax(Q K) V for queries (N, D) and blocks of keys (n, D) and values (n, E)."""
    sums = torch.cat(_weighted_sums(queries, blocks(), follow_peaks=False))
    if not sums.isfinite().all():  # some scores are far larger than all of the first block
        sums = torch.cat(_weighted_sums(queries, blocks(), follow_peaks=True))
    return sums[:, :-1] / sums[:, -1:]


def _weighted_sums(queries: Tensor, blocks: Iterable[tuple[Tensor, Tensor]], *, follow_peaks: bool) -> Sequence[Tensor]:
    """Values weighted with exp(score - a peak of each query), and the sums of the weights, (n, E + 1) for n queries.

    Any peak gives the same average while nothing overflows: that of the first block takes the least time.
    """
    parts = queries.split(_QUERIES)
    peaks: list[Tensor | None] = [None] * len(parts)
    sums: list[Tensor | None] = [None] * len(parts)
    for keys, values in blocks:
        # A column of ones sums the weights up on the way.
        values = torch.cat([values, values.new_ones(len(values), 1)], dim=1).t()
        for index, part in enumerate(parts):
            scores = linear(part, keys)
            before = peaks[index]
            if before is None:
                peaks[index] = scores.amax(dim=1, keepdim=True)
                sums[index] = linear(scores.sub_(peaks[index]).exp_(), values)
                continue
            if follow_peaks:
                peaks[index] = torch.maximum(before, scores.amax(dim=1, keepdim=True))
                sums[index].mul_((before - peaks[index]).exp_())
            sums[index].add_(linear(scores.sub_(peaks[index]).exp_(), values))
    return sums


def _reordered(projection: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a projection whose even outputs come first and odd ones second."""
    order = torch.cat([torch.arange(0, projection.out_features, 2), torch.arange(1, projection.out_features, 2)])
    return projection.weight[order].contiguous(), projection.bias[order].contiguous()


def _values_and_output(attention: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one linear layer that does what the value and then the output projection do."""
    value, out = attention.v_proj, attention.out_proj
    return out.weight @ value.weight, out.weight @ value.bias + out.bias


def _parts(rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, (places, D / 2), of the rotary code's angles."""
    return rotations.real.contiguous(), rotations.imag.contiguous()
