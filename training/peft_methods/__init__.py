"""Parameter-efficient fine-tuning methods, one file each. A new one is a file with its ``METHOD`` and a line here."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

from napari_uniultra.core.settings import ConfigError, read_settings
from napari_uniultra.training.peft_methods.settings import MethodSettings

if TYPE_CHECKING:  # settings are read, and methods listed, without torch
    from torch import nn

    from napari_uniultra.model.config import ModelConfig
    from napari_uniultra.training.peft_methods.method import Method

# Name to file, in the order of the paper's Table V.
METHODS = {
    "decoder_only": "decoder_only",
    "lora": "lora",
    "vpt": "vpt",
    "e2vpt": "e2vpt",
    "adapter": "adapter",
    "adapter_lora": "adapter_lora",
    "conv_lora": "conv_lora",
    "ch_adapter": "ch_adapter",
    "sam2lora": "sam2lora",
    "dd_adapter": "dd_adapter",
    "full": "full",
    **{f"peft:{kind}": "hugging_face" for kind in ("LoRA", "DoRA", "LoHa", "LoKr", "OFT", "IA3")},
}


def method_class(name: str) -> type[Method]:
    """The method of that name.

    Raises
    ------
    ConfigError
        When there is none, with the nearest name.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        raise ConfigError(
            f"There is no fine-tuning method called {name!r}",
            fix=f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(METHODS)}",
        )
    return import_module(f"{__name__}.{METHODS[name]}").METHOD


def apply_method(network: nn.Module, config: ModelConfig, settings: MethodSettings) -> Method:
    """Add a method's parts to a network, in place, and leave only what it trains with a gradient.

    What it adds is random where it does not start at zero: seed torch's generator before.

    Parameters
    ----------
    network : SAM2Base
        As `build_network` made it, with its weights.
    config : ModelConfig
        That it was built from.
    settings : MethodSettings

    Returns
    -------
    Method
        Its ``config`` describes the network from now on.

    Raises
    ------
    ConfigError
        When there is no such method or option, a package for it is missing, or the network has such parts already.
    """
    kind = method_class(settings.name)
    method = kind(settings, read_settings(kind.Options, settings.options, "method.options."), config)
    method.apply(network)
    return method
