"""Which device a model runs on: the one place where that is decided."""

from __future__ import annotations

import os
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from napari_uniultra.core.words import counted
from napari_uniultra.errors import ResourceError


def available_devices() -> tuple[str, ...]:
    """The devices of this machine, the fastest first; "cpu" is always the last."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return tuple(name for name, is_present in present.items() if is_present)


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes the fastest there is. "cuda:1" names one of several GPUs.

    Raises
    ------
    ResourceError
        When the machine has no such device.
    """
    available = available_devices()
    if name == "auto":
        return torch.device(available[0])
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind not in available or (number and not (number.isdecimal() and int(number) < count)):
        raise ResourceError(
            f"This machine has no device {name!r}",
            f"PyTorch {torch.__version__} finds {', '.join(available)}",
            "Choose one of these, or 'auto' (Automatic in the panel)",
        )
    return torch.device(name)


def copied_to(network: nn.Module, device: torch.device | str) -> nn.Module:
    """A copy of a network on another device, with the codes that its modules keep; its own device needs no memory."""
    memo: dict[int, Any] = {}
    for tensor in (leaf for module in network.modules() for leaf in tree_leaves(vars(module))):
        if isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = nn.Parameter(tensor.detach().to(device, copy=True), tensor.requires_grad)
        elif isinstance(tensor, torch.Tensor):
            memo[id(tensor)] = tensor.to(device, copy=True)
    return deepcopy(network, memo)


def where_it_runs(device: torch.device) -> str:
    """A device in words for the panel, such as "on the processor (2 cores)"."""
    if device.type == "cuda":
        return f"on the graphics card ({describe_device(device)})"
    if device.type == "mps":
        return f"on the graphics of this Mac ({describe_device(device)})"
    count = os.cpu_count() or 1
    return f"on the processor ({counted(count, 'core')})"


def describe_device(device: torch.device) -> str:
    """A device in words, such as "CPU, 2 threads of 8" or "NVIDIA H200, 139 GiB"."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if device.type == "mps":
        return "Apple GPU"
    threads = torch.get_num_threads()
    return f"CPU, {counted(threads, 'thread')} of {os.cpu_count()}"
