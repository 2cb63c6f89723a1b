"""A method's result as an adapter file, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from napari_uniultra.core.settings import ConfigError, to_dict
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.adapter_file import AdapterFile, read_adapter_file, save_adapter_file
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.device import copied_to
from napari_uniultra.model.fit import check_fit, load_into
from napari_uniultra.training.peft_methods import apply_method
from napari_uniultra.training.peft_methods.method import Method
from napari_uniultra.training.peft_methods.settings import MethodSettings


def save_adapter(
    path: str | os.PathLike[str],
    method: Method,
    state: Mapping[str, Tensor],
    base_state: Mapping[str, Tensor],
    base_sha256: str,
    base_name: str = "",
    card: Mapping[str, Any] | None = None,
) -> str:
    """Write what a method added to a network and what differs from its base.

    Parameters
    ----------
    path : path
    method : Method
    state : mapping of str to Tensor
        The state dict of the network that the method was applied to, trained.
    base_state : mapping of str to Tensor
        The base's state dict.
    base_sha256, base_name : str
        Of the base's checkpoint, as a loaded model names them.
    card : mapping, optional
        As a checkpoint's.

    Returns
    -------
    str
        The file's SHA-256.

    Raises
    ------
    CheckpointError, WriteError
        As `save_adapter_file`; also when the base has no SHA-256, as random weights have none.
    """
    if not base_sha256:
        raise CheckpointError("An adapter needs a base", "the network did not start from a checkpoint", "Save it whole")
    changed = {
        name: tensor for name, tensor in state.items() if not _is_equal(tensor, base_state.get(method.base_name(name)))
    }
    adapter = AdapterFile(
        method=method.settings.name,
        options=to_dict(method.options),
        memory=method.settings.memory,
        base_name=base_name,
        base_sha256=base_sha256,
        config=method.base_config,
        tensors=changed,
        card=card or {},
    )
    return save_adapter_file(path, adapter)


def load_adapter(path: str | os.PathLike[str], network: nn.Module, config: ModelConfig, base_sha256: str) -> Method:
    """Apply an adapter file to its base's network, in place.

    Parameters
    ----------
    path : path
    network : Module
        With the base's weights, and nothing else.
    config : ModelConfig
        That it was built from.
    base_sha256 : str
        Of the checkpoint that the weights come from.

    Raises
    ------
    CheckpointError
        When the file cannot be read, belongs to another base, or does not fit.
    """
    adapter = read_adapter_file(path)
    if adapter.base_sha256 != base_sha256:
        raise CheckpointError(
            f"{path} adapts another model",
            f"it was made for {adapter.base_name or 'a model'} with the SHA-256 {adapter.base_sha256}, "
            f"and this one has {base_sha256}",
            "Load it with the model that it was made for",
        )
    return _apply(adapter, network, config)


def restore(adapter: AdapterFile, base_state: Mapping[str, Tensor]) -> tuple[nn.Module, ModelConfig]:
    """The network of an adapter on its base, merged where that is possible, and its configuration.

    Raises
    ------
    CheckpointError
        When they do not fit each other.
    """
    with torch.random.fork_rng(devices=[]):  # building draws random weights, which these replace
        network = build_network(adapter.config)
        load_into(network, base_state, allow_missing_adapters=True)
        method = _apply(adapter, network, adapter.config)
    if method.can_merge:
        method.merge(network)
    return network.eval(), method.config


def merged_state(method: Method, network: nn.Module, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The plain weights of ``method.config``'s network, on the CPU; the network given is not changed.

    Parameters
    ----------
    method : Method
    network : Module
        That the method was applied to.
    state : mapping of str to Tensor, optional
        Weights to take in place of the network's own, such as averaged ones.

    Raises
    ------
    ConfigError
        When the method cannot be merged.
    """
    plain = copied_to(network, "cpu")
    if state is not None:
        plain.load_state_dict(state)
    method.merge(plain)
    return plain.state_dict()


def _apply(adapter: AdapterFile, network: nn.Module, config: ModelConfig) -> Method:
    base_names = set(network.state_dict())
    try:
        method = apply_method(network, config, MethodSettings(adapter.method, adapter.options, adapter.memory))
    except ConfigError as error:
        raise CheckpointError(
            f"The adapter's method {adapter.method!r} cannot be applied", f"{error.what}: {error.why}", error.fix
        ) from error
    own = network.state_dict()
    needed = {name: own[name] for name in own if name in adapter.tensors or method.base_name(name) not in base_names}
    check_fit(needed, adapter.tensors)
    network.load_state_dict(dict(adapter.tensors), strict=False)
    return method


def _is_equal(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and tensor.shape == other.shape and torch.equal(tensor.cpu(), other.cpu())
