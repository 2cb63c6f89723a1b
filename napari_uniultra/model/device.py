"""Which device a model runs on: the one place where that is decided."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from napari_uniultra.core.words import counted
from napari_uniultra.errors import ResourceError


def available_devices() -> tuple[str, ...]:
    """The devices of this machine that this PyTorch can use, the fastest first; "cpu" is always the last."""
    has_gpu = torch.cuda.is_available() and not unfit_gpu()
    present = {"cuda": has_gpu, "mps": torch.backends.mps.is_available(), "cpu": True}
    return tuple(name for name, is_present in present.items() if is_present)


def unfit_gpu() -> str | None:
    """The name of the first graphics card, if this PyTorch sees it and was not built for it; else None."""
    if not torch.cuda.is_available() or is_built_for(torch.cuda.get_device_capability(), torch.cuda.get_arch_list()):
        return None
    return torch.cuda.get_device_name()


def is_built_for(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """Whether a PyTorch built for ``architectures``, as `torch.cuda.get_arch_list` names them, has code for a GPU.

    ``sm_86`` runs on compute capability 8.6 to 8.9, ``sm_90a`` on 9.0 alone; ``compute_90`` is compiled when it is
    used, for 9.0 and all later (CUDA C++ Programming Guide, 3.1.2 to 3.1.4). AMD's names, such as ``gfx90a``, tell
    nothing.
    """
    named = [re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", name) for name in architectures]
    known = [(found[1], (int(found[2]), int(found[3])), found[4]) for found in named if found]
    return not known or any(_runs_on(capability, *architecture) for architecture in known)


def _runs_on(capability: tuple[int, int], kind: str, built: tuple[int, int], suffix: str) -> bool:
    if suffix == "a":
        return capability == built
    return capability >= built and (kind == "compute" or capability[0] == built[0])


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
        unfit = unfit_gpu() if kind == "cuda" else None
        found = ", ".join(available) + (f"; it has no code for {unfit}" if unfit else "")
        raise ResourceError(
            f"This machine has no device {name!r}",
            f"PyTorch {torch.__version__} finds {found}",
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
