"""The parameter columns of the paper's Table V, counted on networks without memory (torch's meta device)."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import ModelConfig, architecture
from napari_uniultra.training.peft_methods import METHODS, apply_method
from napari_uniultra.training.peft_methods.method import trainable_parameters
from napari_uniultra.training.peft_methods.settings import MethodSettings

# Table V: millions of trainable parameters, and per cent of all. On SAM2 Large in the layout of 2.0.
PAPER = {
    "decoder_only": (11.73, 5.23),
    "lora": (12.15, 5.40),
    "vpt": (13.57, 5.74),
    "e2vpt": (15.87, 6.64),
    "adapter": (20.66, 8.85),
    "adapter_lora": (21.08, 9.02),
    "conv_lora": (14.23, 6.01),
    "ch_adapter": (20.80, 8.91),
}
PAPER_BASE = "sam2-large"
# What the paper counted, where our defaults correct it; its adapters hold their edge kernels as weights.
PAPER_OPTIONS = {name: {"layout": "released"} for name in ("lora", "adapter_lora", "ch_adapter")}


@dataclass(frozen=True)
class Counts:
    """Trainable parameters and their share (0 to 1), with the memory trained and with it frozen."""

    trained: tuple[int, float]
    memory_frozen: tuple[int, float]


class _LinspaceOnCpu(TorchFunctionMode):
    """sam2's trunk reads the values of a short linspace while it is built."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def meta_network(config: ModelConfig) -> nn.Module:
    """A network of shapes alone."""
    with torch.device("meta"), _LinspaceOnCpu():
        return build_network(config)


def count_method(network: nn.Module, config: ModelConfig, name: str, options: Mapping[str, Any]) -> Counts:
    """What a method trains of a network, which is not changed."""
    from napari_uniultra.training.optim import is_memory

    own = copy.deepcopy(network)
    apply_method(own, config, MethodSettings(name, options, memory="trained"))
    with_memory = trainable_parameters(own)
    for parameter_name, parameter in own.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not is_memory(parameter_name))
    return Counts(with_memory, trainable_parameters(own))


def method_counts(base: str = PAPER_BASE, names: Collection[str] = ()) -> dict[str, Counts]:
    """What methods train on an architecture, by the method's name: of those named, or of all that can be applied here.

    On the paper's base, as the paper counted.
    """
    config = architecture(base)
    network = meta_network(config)
    options = PAPER_OPTIONS if base == PAPER_BASE else {}
    chosen = names or [name for name in METHODS if not name.startswith("peft:") or find_spec("peft")]
    return {name: count_method(network, config, name, options.get(name, {})) for name in chosen}


def method_table(base: str = PAPER_BASE) -> str:
    """All methods with their trainable parameters, as lines of text, beside the paper's Table V.

    The paper counts the memory as trained although its authors' code gives it no gradient; the last column does not.
    """
    head = f"{'method':<14}{'millions':>10}{'share':>9}{'paper':>18}{'memory frozen':>18}"
    lines = [f"Trainable parameters on {base}", head]
    for name, counts in method_counts(base).items():
        (trained, share), (frozen, frozen_share) = counts.trained, counts.memory_frozen
        paper = "{:.2f} {:6.2f} %".format(*PAPER[name]) if base == PAPER_BASE and name in PAPER else ""
        lines.append(
            f"{name:<14}{trained / 1e6:>10.2f}{share:>9.2%}{paper:>18}{frozen / 1e6:>9.2f}{frozen_share:>9.2%}"
        )
    return "\n".join(lines)
