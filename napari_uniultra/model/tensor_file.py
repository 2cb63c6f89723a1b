"""The safetensors files that checkpoints and adapters are kept in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_uniultra.core.atomic import write_error
from napari_uniultra.core.words import some_of
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.about import COPY_AGAIN, read_about, unreadable


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of one file, and its metadata as `read_about` has it.

    Raises
    ------
    CheckpointError
        When it is missing or damaged.
    """
    about = read_about(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged", str(error), COPY_AGAIN) from error
    except OSError as error:
        raise unreadable(path, error) from error
    return state, about


def sound(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was read from ``path``: floating-point numbers, all finite as float32, or a CheckpointError."""
    strange = [name for name, tensor in state.items() if not tensor.is_floating_point() or tensor.is_sparse]
    if strange:
        raise CheckpointError(f"{path} is not a SAM2 checkpoint", f"{some_of(strange)} hold no floating-point numbers")
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor.float()).all()]
    if broken:
        raise CheckpointError(f"{path} is damaged", f"{some_of(broken)} hold NaN or infinity", COPY_AGAIN)
    return dict(state)


def as_stored(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors as a file holds them, all finite or a CheckpointError."""
    stored = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state.items()}
    broken = [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            "The weights cannot be saved",
            f"{len(broken)} of them hold NaN, infinity or a number too large for {dtype} ({some_of(broken)})",
            "Save as fp32, or go back to an earlier checkpoint of the training",
        )
    return stored


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file; the caller makes it atomic."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # a full disk comes as text that ends in "(os error 28)"
        number = re.search(r"os error (\d+)", str(error))
        raise (OSError(int(number[1]), "") if number else write_error(path, error)) from error
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Put the metadata, which safetensors writes in any order, in one: the same weights are the same file."""
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))
