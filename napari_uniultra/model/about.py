"""What a checkpoint says of itself, read without its weights and without torch.

It is in the header of a safetensors file, or in the index of a folder of shards, and is checked before anything
believes it.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_uniultra.core.digest import sha256_of
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.config import ModelConfig

FORMAT = "napari-uniultra/1"
ADAPTER_FORMAT = "napari-uniultra-adapter/1"
INDEX_NAME = "model.json"
MAX_TENSORS = 20_000  # UniUltra-L has 1,193
COPY_AGAIN = "Download or copy it again"

_MAX_HEADER_BYTES = 4 << 20  # UniUltra-L needs 0.15 MB


def is_torch_file(path: Path) -> bool:
    """Whether a path is that of a PyTorch file, by its suffix; such a file says nothing of itself."""
    return path.suffix.lower() in (".pt", ".pth")


def checkpoint_sha256(path: str | os.PathLike[str], expected: str | None = None) -> str:
    """The SHA-256 by which a checkpoint is known: of the file, or of the index of a folder of shards.

    Raises
    ------
    CheckpointError
        When there is none, or it is not the ``expected`` one.
    """
    path = Path(path)
    try:
        digest = sha256_of(path / INDEX_NAME if path.is_dir() else path)
    except OSError as error:
        raise unreadable(path, error) from error
    if expected not in (None, digest):
        raise CheckpointError(
            f"{path} is not the checkpoint it should be", f"its SHA-256 is {digest}, not {expected}", COPY_AGAIN
        )
    return digest


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for a file that is missing or that the system refuses to read."""
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"There is no checkpoint at {error.filename or path}", fix="Check the path")
    return CheckpointError(f"{path} cannot be read", error.strerror or str(error), "Check the file")


def read_about(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file, with the JSON inside it parsed, without reading its tensors."""
    try:
        metadata = _checked_header(path)
    except OSError as error:
        raise unreadable(path, error) from error
    return {name: value if name == "format" else _json(path, value) for name, value in metadata.items()}


def read_index(folder: Path) -> dict[str, Any]:
    """What the index of a folder of shards says, without reading them."""
    index = folder / INDEX_NAME
    try:
        if index.stat().st_size > _MAX_HEADER_BYTES:
            raise CheckpointError(f"{index} is refused", "it is far too long for a model's index")
        about = _json(index, index.read_bytes())
    except OSError as error:
        raise unreadable(index, error) from error
    return about if isinstance(about, dict) else {}


def about_ours(path: Path, about: Mapping[str, Any], kind: str = FORMAT) -> tuple[ModelConfig, dict[str, Any]]:
    """The configuration and card in a file's metadata, which must be of this kind."""
    if kind == FORMAT and about.get("format") == ADAPTER_FORMAT:
        raise CheckpointError(
            f"{path} is an adapter and no whole model", fix="Load it as a model, beside its base, and save it merged"
        )
    if about.get("format") != kind:
        raise CheckpointError(
            f"{path} is of the unknown format {about.get('format')!r}",
            f"this version reads {kind!r}",
            "Update napari-uniultra, or use another checkpoint",
        )
    config, card = about.get("config"), about.get("card", {})
    if not isinstance(config, dict) or not isinstance(card, dict):
        raise CheckpointError(f"{path} does not say which model it holds", "its configuration is missing", COPY_AGAIN)
    return ModelConfig.from_dict(config), card


def _checked_header(path: Path) -> dict[str, str]:
    """A safetensors file's metadata, after looking at its header before any library allocates what it asks for."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= size - 8:
            raise CheckpointError(f"{path} is not a safetensors file, or is cut short", fix=COPY_AGAIN)
        if length > _MAX_HEADER_BYTES:
            raise CheckpointError(f"{path} is refused", f"its header of {length:,} bytes is far too long for a model")
        header = _json(path, file.read(length))
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise CheckpointError(f"{path} is refused", "its header is not that of a model")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path} is damaged", "its metadata is not text", COPY_AGAIN)
    return {name: metadata[name] for name in ("format", "config", "card", "adapter") if name in metadata}


def _json(path: Path, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged", "its description is not valid JSON", COPY_AGAIN) from error
