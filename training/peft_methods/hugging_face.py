"""The low-rank family of Hugging Face's ``peft`` package, which is optional: LoRA, DoRA, LoHa, LoKr, OFT, IA3."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from napari_uniultra.core.settings import ConfigError, setting
from napari_uniultra.training.peft_methods.method import Method

_RENAMED = ".base_layer"
# Where in the network, by the option's name; the memory and the neck are read by other code than their modules' own.
_PLACES = {
    "qkv": ("image_encoder.trunk.blocks.", (".attn.qkv",)),
    "proj": ("image_encoder.trunk.blocks.", (".attn.proj",)),
    "mlp": ("image_encoder.trunk.blocks.", (".mlp.layers.0", ".mlp.layers.1")),
    "decoder": ("sam_mask_decoder.transformer.", ("q_proj", "k_proj", "v_proj", "out_proj")),
}


@dataclass(frozen=True)
class Options:
    """Where the updates are, and their size; what a kind has no use for is ignored."""

    targets: tuple[str, ...] = setting(
        ("qkv",),
        choices=tuple(_PLACES),
        help="Linear maps to update: of the encoder's attention (qkv, proj) or MLPs, or of the decoder's attention; "
        "with the decoder's, the rest of it stays frozen.",
    )
    rank: int = setting(4, low=1, high=256, help="Rank of the updates.")
    alpha: float = setting(4.0, low=0.01, high=1024, help="Updates are scaled by alpha / rank.")
    dropout: float = setting(0.0, low=0, high=0.9, help="Share of inputs that training drops (LoRA and DoRA).")
    block: int = setting(8, low=2, high=256, help="Side of OFT's rotation blocks; it divides the maps' widths.")


class HuggingFace(Method):
    """Trains the updates and, unless they are in the decoder too, everything outside the image encoder."""

    title = "Hugging Face peft"
    Options = Options

    @property
    def trains_decoder(self) -> bool:
        return "decoder" not in self.options.targets

    def inject(self, network: nn.Module) -> None:
        peft = _import_peft()
        if any(isinstance(module, _layer_type()) for module in network.modules()):
            raise ConfigError("The network has such parts already", "a method was applied to it before")
        names = [
            name
            for name, module in network.named_modules()
            if isinstance(module, nn.Linear)
            and any(name.startswith(start) and name.endswith(ends) for start, ends in self._places())
        ]
        try:
            peft.inject_adapter_in_model(self._config(peft, names), network)
        except ValueError as error:
            raise ConfigError(f"peft cannot apply {self.settings.name}", str(error), "Change method.options") from error
        if self.settings.name == "peft:OFT":
            for name in names:
                layer = network.get_submodule(name)
                layer.register_forward_pre_hook(_with_axis)
                layer.register_forward_hook(_without_axis)

    def base_name(self, name: str) -> str:
        return name.replace(_RENAMED, "")

    @torch.no_grad()
    def fold(self, network: nn.Module) -> None:
        layers = [(name, module) for name, module in network.named_modules() if isinstance(module, _layer_type())]
        for name, layer in layers:
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, layer.get_base_layer())

    def _places(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        return (_PLACES[target] for target in self.options.targets)

    def _config(self, peft: ModuleType, names: list[str]) -> Any:
        own, kind = self.options, self.settings.name.partition(":")[2]
        if kind in ("LoRA", "DoRA"):
            return peft.LoraConfig(
                r=own.rank,
                lora_alpha=own.alpha,
                lora_dropout=own.dropout,
                use_dora=kind == "DoRA",
                target_modules=names,
            )
        if kind == "OFT":
            return peft.OFTConfig(r=0, oft_block_size=own.block, target_modules=names)
        if kind == "IA3":
            return peft.IA3Config(target_modules=names, feedforward_modules=[])
        return {"LoHa": peft.LoHaConfig, "LoKr": peft.LoKrConfig}[kind](
            r=own.rank, alpha=own.alpha, target_modules=names
        )


def _with_axis(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """peft's OFT takes four axes for a convolution's input, and our windows have four: give them a fifth."""
    return tuple(x[None] if x.ndim == 4 else x for x in inputs)


def _without_axis(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output[0] if output.ndim == 5 else output


def _import_peft() -> ModuleType:
    try:
        with _without_torchvision():
            import peft
    except ImportError as error:
        raise ConfigError(
            "The peft methods need Hugging Face's package peft", str(error), "Install it: pip install peft"
        ) from error
    return peft


def _layer_type() -> type:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return BaseTunerLayer


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """peft imports transformers, and that torchvision if there is one, which fails beside some builds of torch.

    Nothing here needs it; None in ``sys.modules`` says that there is none.
    """
    if "torchvision" in sys.modules:
        yield
        return
    sys.modules["torchvision"] = None
    try:
        yield
    finally:
        del sys.modules["torchvision"]


METHOD = HuggingFace
