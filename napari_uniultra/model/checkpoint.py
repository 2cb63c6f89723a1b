"""Checkpoints: weights, the configuration they belong to, and a card that says where they come from.

A checkpoint is one safetensors file, whose metadata holds `format`, `config` and `card`, or a folder of numbered
safetensors shards with an index, ``model.json``, that holds the same and each shard's size and SHA-256. PyTorch files
in the official SAM2 layouts are read too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from napari_uniultra.core.atomic import atomic_dir, atomic_path
from napari_uniultra.core.digest import sha256_of
from napari_uniultra.core.words import some_of
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.about import (
    COPY_AGAIN,
    FORMAT,
    INDEX_NAME,
    about_ours,
    checkpoint_sha256,
    is_torch_file,
    read_index,
    unreadable,
)
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.official import about_official, read_torch
from napari_uniultra.model.tensor_file import as_stored, read_tensors, save_tensors, sound

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_SHARD_NAME = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """What `read_checkpoint` found.

    Attributes
    ----------
    config : ModelConfig
    state : dict of str to Tensor
        Floating-point numbers as they are stored, on the CPU. The system reads them from the file when they are used,
        and may forget them again: they need no memory of their own.
    card : dict
        Training data, licence, version, intended use and normalisation, as far as the file says.
    sha256 : str
        Of the file; of a folder, that of its index, which names the SHA-256 of every shard.
    """

    config: ModelConfig
    state: dict[str, Tensor]
    card: dict[str, Any]
    sha256: str


def save_checkpoint(
    path: str | os.PathLike[str],
    network: nn.Module | Mapping[str, Tensor],
    config: ModelConfig,
    card: Mapping[str, Any],
    dtype: Literal["fp32", "fp16"] = "fp32",
    max_shard_bytes: int | None = None,
) -> str:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path : path
        The file to write or replace; with ``max_shard_bytes`` the folder to make, which must not exist yet.
    network : Module or state dict
    config : ModelConfig
        The configuration it was built from.
    card : mapping
        JSON-ready facts about the weights: training data, licence, version, intended use, normalisation.
    dtype : {"fp32", "fp16"}
        How weights are stored. Networks hold them as float32.
    max_shard_bytes : int, optional
        Write numbered shards of at most this size (a larger tensor gets a shard of its own).

    Returns
    -------
    str
        The SHA-256 that `read_checkpoint` will report.

    Raises
    ------
    CheckpointError
        For weights that are not finite numbers in ``dtype``.
    WriteError
        When it cannot be written.
    """
    state = network.state_dict() if isinstance(network, nn.Module) else network
    tensors = as_stored(state, _DTYPES[dtype])
    about = {"format": FORMAT, "config": config.to_dict(), "card": dict(card)}
    if max_shard_bytes is None:
        metadata = {"format": FORMAT, "config": json.dumps(about["config"]), "card": json.dumps(about["card"])}
        with atomic_path(path) as temporary:
            save_tensors(tensors, temporary, metadata)
            return sha256_of(temporary)
    with atomic_dir(path) as folder:
        about["shards"] = _save_shards(tensors, folder, max_shard_bytes)
        index = json.dumps(about, indent=1).encode()
        (folder / INDEX_NAME).write_bytes(index)
        return hashlib.sha256(index).hexdigest()


def read_checkpoint(path: str | os.PathLike[str], sha256: str | None = None) -> Checkpoint:
    """Read a safetensors file, a folder of shards, or a PyTorch file in an official SAM2 layout.

    Parameters
    ----------
    path : path
    sha256 : str, optional
        What the file's SHA-256 must be.

    Raises
    ------
    CheckpointError
        When it is missing, damaged, unsafe, of an unknown kind, or not the file that was expected.
    """
    path = Path(path)
    digest = checkpoint_sha256(path, sha256)
    try:
        if path.is_dir():
            state, about = _read_folder(path)
        elif is_torch_file(path):
            state, about = read_torch(path), {}
        else:
            state, about = read_tensors(path)
    except OSError as error:
        raise unreadable(path, error) from error
    config, card = (about_ours(path, about)) if about else about_official(path, state)
    return Checkpoint(config, sound(path, state), card, digest)


def _save_shards(tensors: dict[str, Tensor], folder: Path, max_bytes: int) -> list[dict[str, Any]]:
    shards = list(_split(tensors, max_bytes))
    entries = []
    for number, names in enumerate(shards, start=1):
        file = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors({name: tensors[name] for name in names}, file, {"format": FORMAT})
        entries.append({"file": file.name, "size": file.stat().st_size, "sha256": sha256_of(file)})
    return entries


def _split(tensors: Mapping[str, Tensor], max_bytes: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if names and size + tensor.nbytes > max_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.nbytes
    if names:
        yield names


def _read_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    index = folder / INDEX_NAME
    about = read_index(folder)
    shards = about.pop("shards", None)
    if not isinstance(shards, list) or not shards or not all(isinstance(shard, dict) for shard in shards):
        raise CheckpointError(f"{index} is damaged", "it does not list the model's shards", COPY_AGAIN)
    state: dict[str, Tensor] = {}
    for shard in shards:
        part = _read_shard(folder, shard)
        twice = sorted(set(state) & set(part))
        if twice:
            raise CheckpointError(f"{folder} is damaged", f"two shards hold {some_of(twice)}", COPY_AGAIN)
        state.update(part)
    return state, about


def _read_shard(folder: Path, shard: Mapping[str, Any]) -> dict[str, Tensor]:
    name = str(shard.get("file"))
    if not _SHARD_NAME.fullmatch(name):  # also keeps paths out of the folder from being followed
        raise CheckpointError(f"{folder / INDEX_NAME} is refused", f"{name!r} is not the name of a shard")
    file = folder / name
    if file.stat().st_size != shard.get("size") or sha256_of(file) != shard.get("sha256"):
        raise CheckpointError(f"{file} is damaged", "its size or SHA-256 is not what the index says", COPY_AGAIN)
    return read_tensors(file)[0]
