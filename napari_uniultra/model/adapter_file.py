"""Adapter files: what a fine-tuning changed, and by hash the checkpoint that it changed.

One safetensors file holds the tensors that were added to the base's network or that differ from the base's. Its
metadata names the method with its options, and the base with its SHA-256 and its network's configuration.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.digest import sha256_of
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.about import ADAPTER_FORMAT, about_ours, checkpoint_sha256, read_about
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.tensor_file import as_stored, read_tensors, save_tensors, sound

_FIELDS = {"method": str, "options": dict, "memory": str, "base_name": str, "base_sha256": str}


@dataclass(frozen=True)
class AdapterFile:
    """What `read_adapter_file` found.

    Attributes
    ----------
    method : str
        The fine-tuning method's name.
    options : dict
        Its options, JSON-ready.
    memory : str
        "frozen" or "trained".
    base_name, base_sha256 : str
        The base's name, for people, and the SHA-256 by which it is known.
    config : ModelConfig
        Of the base's network.
    tensors : dict of str to Tensor
        Floating-point numbers, on the CPU; named as in the network that the method was applied to.
    card : dict
        As a checkpoint's.
    sha256 : str
        Of the file.
    """

    method: str
    options: dict[str, Any]
    memory: str
    base_name: str
    base_sha256: str
    config: ModelConfig
    tensors: Mapping[str, Tensor]
    card: Mapping[str, Any]
    sha256: str = ""


def save_adapter_file(path: str | os.PathLike[str], adapter: AdapterFile) -> str:
    """Write an adapter file, whole or not at all, and return its SHA-256.

    Raises
    ------
    CheckpointError
        For weights that are not finite.
    WriteError
        When it cannot be written.
    """
    metadata = {
        "format": ADAPTER_FORMAT,
        "config": json.dumps(adapter.config.to_dict()),
        "card": json.dumps(dict(adapter.card)),
        "adapter": json.dumps({name: getattr(adapter, name) for name in _FIELDS}),
    }
    tensors = as_stored(adapter.tensors, torch.float32)
    with atomic_path(path) as temporary:
        save_tensors(tensors, temporary, metadata)
        return sha256_of(temporary)


def read_adapter_file(path: str | os.PathLike[str], sha256: str | None = None) -> AdapterFile:
    """Read an adapter file.

    Parameters
    ----------
    path : path
    sha256 : str, optional
        What the file's SHA-256 must be.

    Raises
    ------
    CheckpointError
        When it is missing, damaged, no adapter file, or not the file that was expected.
    """
    path = Path(path)
    digest = checkpoint_sha256(path, sha256)
    tensors, about = read_tensors(path)
    config, card = about_ours(path, about, ADAPTER_FORMAT)
    adapter = about.get("adapter")
    if not isinstance(adapter, dict) or any(not isinstance(adapter.get(name), kind) for name, kind in _FIELDS.items()):
        raise CheckpointError(f"{path} is damaged", "it does not say what it adapts", "Copy it again")
    values = {name: adapter[name] for name in _FIELDS}
    return AdapterFile(**values, config=config, tensors=sound(path, tensors), card=card, sha256=digest)


def is_adapter_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file says that it is an adapter; a file that cannot be understood is none."""
    path = Path(path)
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return False
    try:
        return read_about(path).get("format") == ADAPTER_FORMAT
    except (OSError, CheckpointError):  # reading it as a checkpoint says what is wrong
        return False
