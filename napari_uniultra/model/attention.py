"""SAM2's memory attention at inference on a CPU: the same numbers with fewer operations.

- A value is a linear map of a 64-wide memory token, and the rows of a softmax sum to one: so the tokens themselves are
  averaged and the value and output projections applied to the averages, which takes a quarter of the products.
- Rotary codes turn pairs of neighbouring features. Products of queries and keys do not change when both are reordered,
  so the projections give all first members of the pairs and then all second ones, and no complex numbers are needed.
- Keys and their scores exist for one block at a time, which stays in the processor's cache; the softmax is joined over
  the blocks.
- Objects are taken one by one: a batch would only push each other's keys out of the cache. Up to where the first layer
  looks at their memories they are all the same, and computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.model.linear import linear

_QUERIES, _KEYS = 1024, 512  # of a block


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
        value, out = cross.v_proj, cross.out_proj
        self._value_out = (out.weight @ value.weight, out.weight @ value.bias + out.bias)

    def __call__(self, x: Tensor, tokens: Tensor, coded: Tensor, pointers: int) -> Tensor:
        layer, own = self._layer, self._layer.self_attn
        normed = layer.norm1(x)
        q, k = (self._rotated(linear(normed, *projection)) for projection in (self._own_q, self._own_k))
        attended = F.scaled_dot_product_attention(q[:, None], k[:, None], own.v_proj(normed)[:, None])
        x = x + own.out_proj(attended[:, 0])
        q = self._rotated(linear(layer.norm2(x), *self._cross_q))
        averages = [
            weighted_average(own_q, self._blocks(own_coded, own_tokens, pointers))
            for own_q, own_coded, own_tokens in zip(q.expand(len(coded), -1, -1), coded, tokens, strict=True)
        ]
        x = x + linear(torch.stack(averages), *self._value_out)
        return x + layer.linear2(F.relu(layer.linear1(layer.norm3(x))))

    def _blocks(self, coded: Tensor, tokens: Tensor, pointers: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Rotated keys (n, D) and their values (n, 64) of memory tokens (M, 64), block by block."""
        places, spatial = len(self._key_cos), len(coded) - pointers
        for frame in range(0, spatial, places):
            for first in range(0, places, _KEYS):
                last = min(first + _KEYS, places)
                own = slice(frame + first, frame + last)
                keys = linear(coded[own], *self._cross_k)
                _rotate_in_place(*keys.chunk(2, dim=-1), self._key_cos[first:last], self._key_sin[first:last])
                yield keys, tokens[own]
        if pointers:
            yield linear(coded[spatial:], *self._cross_k), tokens[spatial:]

    def _rotated(self, x: Tensor) -> Tensor:
        """Turn the features of x (B, s * s, D), in place."""
        _rotate_in_place(*x.chunk(2, dim=-1), self._cos, self._sin)
        return x


def _rotate_in_place(first: Tensor, second: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn the pairs (first, second) by their angles."""
    turned = first * cos - second * sin
    second.mul_(cos).addcmul_(first, sin)
    first.copy_(turned)


def weighted_average(queries: Tensor, blocks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """softmax(Q K) V for queries (N, D) and blocks of keys (n, D) and values (n, E)."""
    parts = [_Average(part) for part in queries.split(_QUERIES)]
    for keys, values in blocks:
        # A column of ones sums the weights up on the way.
        values = torch.cat([values, values.new_ones(len(values), 1)], dim=1)
        for part in parts:
            part.add(keys, values)
    sums = torch.cat([part.sums for part in parts])
    return sums[:, :-1] / sums[:, -1:]


class _Average:
    """Values weighted with exp(score - largest score) and summed; an earlier largest score is corrected for."""

    def __init__(self, queries: Tensor) -> None:
        self._queries = queries
        self._largest: Tensor | None = None
        self.sums: Tensor | None = None

    def add(self, keys: Tensor, values: Tensor) -> None:
        """One more block."""
        scores = linear(self._queries, keys)
        peak = scores.amax(dim=1, keepdim=True)
        if self._largest is None:
            self._largest, self.sums = peak, linear(scores.sub_(peak).exp_(), values.t())
            return
        before, self._largest = self._largest, torch.maximum(self._largest, peak)
        weights = scores.sub_(self._largest).exp_()
        self.sums = self.sums.mul_((before - self._largest).exp()).add_(linear(weights, values.t()))


def _reordered(projection: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a projection whose even outputs come first and odd ones second."""
    order = torch.cat([torch.arange(0, projection.out_features, 2), torch.arange(1, projection.out_features, 2)])
    return projection.weight[order].contiguous(), projection.bias[order].contiguous()


def _parts(rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, (places, D / 2), of the rotary code's angles."""
    return rotations.real.contiguous(), rotations.imag.contiguous()
