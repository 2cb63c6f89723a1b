"""PyTorch files in the layouts of the official SAM2, read as tensors only: nothing in a file is ever run."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.about import COPY_AGAIN, MAX_TENSORS
from napari_uniultra.model.config import ARCHITECTURES, ModelConfig


def read_torch(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file; anything else in it is a reason to refuse it."""
    _check_archive(path)
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused",
            "it holds more than weights, and reading that could run code from the file",
            "Ask its author for weights only, best as safetensors",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged", str(error).partition("\n")[0], COPY_AGAIN) from error
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CheckpointError(f"{path} is not a SAM2 checkpoint", "it does not hold named weights")
    return dict(state)


def _check_archive(path: Path) -> None:
    """PyTorch writes uncompressed archives: a compressed one may unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint, or is cut short",
            fix="Copy it again; if it is from before PyTorch 1.6, save it anew with a current PyTorch",
        ) from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or len(members) > MAX_TENSORS:
        raise CheckpointError(f"{path} is refused", "its archive is not one that PyTorch writes")


def about_official(path: Path, state: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Any]]:
    """Which of the eight official SAM2 models a set of weights without a description is."""
    patches = state.get("image_encoder.trunk.patch_embed.proj.weight")
    width = patches.shape[0] if patches is not None and patches.ndim else 0
    depth = _depth(state)
    version = "2.1" if "no_obj_embed_spatial" in state else "2.0"
    for config in ARCHITECTURES.values():
        if config.adapter is None and (config.version, config.embed_dim, sum(config.stages)) == (version, width, depth):
            return config, {
                "licence": "Apache-2.0",
                "training_data": "as for the official SAM2, if this is its file (SA-V and others, by Meta)",
            }
    raise CheckpointError(
        f"{path} is not one of the official SAM2 models",
        f"it has {len(state)} weights, a trunk of width {width} and {depth} blocks, and no description",
        "Use an official SAM2 file, or a checkpoint that this package saved",
    )


def _depth(state: Iterable[str]) -> int:
    prefix = "image_encoder.trunk.blocks."
    return len({name[len(prefix) :].split(".", 1)[0] for name in state if name.startswith(prefix)})
