"""From a model's name, or a checkpoint's path, to a network with weights on a device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_uniultra.errors import CheckpointError, ResourceError
from napari_uniultra.model.about import INDEX_NAME, checkpoint_sha256, is_torch_file
from napari_uniultra.model.adapter_file import AdapterFile, is_adapter_file, read_adapter_file
from napari_uniultra.model.attempt import attempt
from napari_uniultra.model.build import build_network
from napari_uniultra.model.catalogue import list_models, locate
from napari_uniultra.model.checkpoint import Checkpoint, read_checkpoint
from napari_uniultra.model.choices import DEFAULT_MODEL
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.device import choose_device
from napari_uniultra.model.fit import load_into
from napari_uniultra.model.loaded import Model
from napari_uniultra.model.room import check_room


def load_model(
    name: str | os.PathLike[str] = DEFAULT_MODEL, device: str = "auto", *, half: bool = False, compiled: bool = False
) -> Model:
    """Load a model by name or path. Nothing is downloaded, and no random generator is touched.

    Parameters
    ----------
    name : str or path
        A bundled or added model's name, or a checkpoint: a file, a folder of shards, or an adapter file, whose base
        must be among the models or in the same folder.
    device : {"auto", "cuda", "mps", "cpu"}
        "auto" takes the fastest that the machine has.
    half : bool
        Compute in half precision (`Model.half`), for GPUs. Most masks stay the same; where it is undecided, tracking
        may take another way.
    compiled : bool
        Compile what tracking computes when it first runs (`Model.compiled`), for GPUs and long loops.

    Raises
    ------
    CheckpointError
        When there is no such model, or its checkpoint is damaged, unsafe or does not fit.
    ResourceError
        When the machine has no such device, or too little memory on it.
    """
    target = choose_device(device)
    label, path, sha256 = locate(name)
    opened = open_checkpoint(label, path, sha256, look_beside=True)
    if not attempt(lambda: opened.network.to(target))[0]:
        raise ResourceError(
            f"The model {label!r} does not fit into the memory of {target}",
            fix="Close other programs that use the GPU, choose a smaller model, or device='cpu'",
        )
    return Model(opened.network, opened.config, target, label, opened.sha256, opened.card, half, compiled)


def model_at(name: str | os.PathLike[str], device: str = "auto", image_size: int | None = None) -> Model:
    """A model by name or path, as `load_model` has it, at any input size.

    Raises
    ------
    CheckpointError, ResourceError
    """
    model = load_model(name, device)
    return model if image_size is None else model.at(image_size)


@dataclass(frozen=True, eq=False)
class Opened:
    """A network with a checkpoint's weights, on the CPU, and what the file says of it."""

    network: nn.Module
    config: ModelConfig
    card: dict[str, Any]
    sha256: str


def open_checkpoint(label: str, path: Path, sha256: str | None = None, *, look_beside: bool) -> Opened:
    """The network of a checkpoint or an adapter file, with its weights, on the CPU.

    Parameters
    ----------
    label : str
        What messages call it.
    path : Path
    sha256 : str, optional
        What its SHA-256 must be.
    look_beside : bool
        Look for the base of an adapter in the adapter's folder, where it is not among the models.

    Raises
    ------
    CheckpointError
        When it is damaged, unsafe or does not fit, or an adapter's base is not here.
    ResourceError
        When there is too little memory.
    """
    is_open, opened = attempt(lambda: _read(label, path, sha256, look_beside))
    if not is_open:
        raise ResourceError(
            f"There is too little memory for the model {label!r}", fix="Close other programs, or choose a smaller model"
        )
    return opened


def _read(label: str, path: Path, sha256: str | None, look_beside: bool) -> Opened:
    if not is_adapter_file(path):
        checkpoint = read_checkpoint(path, sha256)
        network = _network_of(label, checkpoint, path)
        return Opened(network, checkpoint.config, checkpoint.card, checkpoint.sha256)
    # Methods are known to the training package alone.
    from napari_uniultra.training.peft_methods.adapter_file import restore

    adapter = read_adapter_file(path, sha256)
    found = _find_base(adapter, path, look_beside)
    base = open_checkpoint(adapter.base_name, found, adapter.base_sha256, look_beside=look_beside).network.state_dict()
    check_room(label, _stored(adapter.tensors), _weights(base) + _weights(adapter.tensors))
    network, config = restore(adapter, base)
    return Opened(network, config, dict(adapter.card), adapter.sha256)


def _find_base(adapter: AdapterFile, path: Path, look_beside: bool) -> Path:
    """Where an adapter's base is: among the models, or in the adapter's own folder."""
    models = [info for info in list_models() if info.sha256 == adapter.base_sha256]
    present = [info.path for info in models if info.path is not None]
    if present:
        return present[0]
    beside = sorted(path.parent.iterdir()) if look_beside else []
    for other in beside:
        is_checkpoint = is_torch_file(other) or other.suffix.lower() == ".safetensors" or (other / INDEX_NAME).is_file()
        with suppress(CheckpointError):  # what cannot be read is not it
            if other != path and is_checkpoint and checkpoint_sha256(other) == adapter.base_sha256:
                return other
    raise CheckpointError(
        f"{path} adapts a model that is not here",
        f"its base is {adapter.base_name!r} with the SHA-256 {adapter.base_sha256}",
        f"Download it once: uniultra weights download {models[0].name}"
        if models
        else "Add that model, or put its file into the adapter's folder"
        if look_beside
        else "Add that model first",
    )


def _network_of(label: str, checkpoint: Checkpoint, path: Path) -> nn.Module:
    """The network that a checkpoint describes, with its weights."""
    weights = _weights(checkpoint.state)
    if checkpoint.config.least_parameters > weights:
        why = "it holds far fewer weights than that network has"
        raise CheckpointError(f"{path} does not fit the network it describes", why)
    check_room(label, _stored(checkpoint.state), weights)
    try:
        with torch.random.fork_rng(devices=[]):  # building draws random weights, which these replace
            is_built, network = attempt(lambda: build_network(checkpoint.config))
    except (TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(f"{path} describes a network that cannot be built", str(error)) from error
    if not is_built:
        raise MemoryError
    try:
        load_into(network, checkpoint.state)
    except CheckpointError as error:
        raise CheckpointError(f"{path} does not fit the network it describes", error.why, error.fix) from error
    return network


def _stored(state: Mapping[str, Tensor]) -> int:
    """Bytes of weights as they are stored."""
    return sum(tensor.nbytes for tensor in state.values())


def _weights(state: Mapping[str, Tensor]) -> int:
    """How many weights there are."""
    return sum(tensor.numel() for tensor in state.values())
