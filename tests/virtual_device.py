"""An accelerator that is none: its tensors hold real numbers, and must not meet those of the CPU.

A tensor that is made on the CPU on the way fails here as it would on a GPU, and so does what Macs cannot do. What it
computes is what the CPU computes. It changes PyTorch for good, so it is for processes of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "virtual"
DEVICE = f"{NAME}:0"
_MOVES = ("aten._to_copy.", "aten.copy_.", "aten.index.", "aten._index_put_impl_.", "aten.index_put")


class Virtual(torch.Tensor):
    """A tensor there; ``held`` is its content."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Virtual:
        layout = dict(strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype)
        own = torch.Tensor._make_wrapper_subclass(cls, held.size(), device=torch.device(DEVICE), **layout)
        own.held = held
        return own

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Also what is made there from nothing goes through `_run`."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, leaves = str(function), tree_leaves((args, kwargs))
    there = [leaf for leaf in leaves if isinstance(leaf, Virtual)]
    here = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, Virtual)]
    if there and any(tensor.ndim for tensor in here) and not name.startswith(_MOVES):
        raise RuntimeError(f"Expected all tensors to be on the same device: {name}")
    asked = kwargs.get("device")
    stays = bool(there) if asked is None else torch.device(asked).type == NAME
    if name == "aten.repeat.default" and there and there[0].is_complex():
        raise RuntimeError("repeat(): Not supported for complex yet!")  # as MPS said for long
    result = function(*tree_map(_content, args), **tree_map(_content, kwargs))
    if not stays:
        return tree_map(lambda leaf: leaf.clone() if there and isinstance(leaf, torch.Tensor) else leaf, result)
    known = {id(tensor.held): tensor for tensor in there}  # of operations in place
    return tree_map(lambda leaf: _wrapped(leaf, known), result)


def _content(leaf: Any) -> Any:
    if isinstance(leaf, Virtual):
        return leaf.held
    is_there = isinstance(leaf, torch.device) and leaf.type == NAME
    return torch.device("cpu") if is_there else leaf


def _wrapped(leaf: Any, known: dict[int, Virtual]) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if leaf.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
    return known[id(leaf)] if id(leaf) in known else Virtual(leaf)


def copied_there(network: nn.Module) -> nn.Module:
    """A copy of a network with its parameters and buffers there."""
    network = copy.deepcopy(network)
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().to(DEVICE), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(DEVICE)
    return network


@contextmanager
def virtual_device() -> Iterator[torch.device]:
    """The device, while the block lasts."""
    _setup_privateuseone_for_python_backend(NAME)
    plain = torch.tensor

    def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> torch.Tensor:
        return plain(data, **kwargs) if device is None else plain(data, **kwargs).to(device)

    torch.tensor = tensor  # it makes tensors past the mode
    for kind in (torch.Tensor, Virtual):
        kind.new_tensor = lambda own, data: tensor(data, dtype=own.dtype, device=own.device)
    torch.inference_mode = torch.no_grad  # whose tensors cannot be wrapped
    type(getattr(torch, NAME)).get_amp_supported_dtype = lambda *_: [torch.float16]
    with _Mode():
        yield torch.device(DEVICE)
