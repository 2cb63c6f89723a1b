"""Checkpoints: weights, the configuration they belong to, and a card that says where they come from.

A checkpoint is one safetensors file, whose metadata holds `format`, `config` and `card`, or a folder of numbered
safetensors shards with an index, ``model.json``, that holds the same and each shard's size and SHA-256. PyTorch files
in the official SAM2 layouts are read too, as tensors only: nothing in a file is ever run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_uniultra.core.atomic import atomic_dir, atomic_path, write_error
from napari_uniultra.core.digest import sha256_of
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.config import ARCHITECTURES, ModelConfig

FORMAT = "napari-uniultra/1"
ADAPTER_FORMAT = "napari-uniultra-adapter/1"
INDEX_NAME = "model.json"

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_SHARD_NAME = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_MAX_HEADER_BYTES = 4 << 20  # UniUltra-L needs 0.15 MB
_MAX_TENSORS = 20_000  # UniUltra-L has 1,193
_NAMES_SHOWN = 5

_DAMAGED = "Download or copy it again"


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
    digest = checkpoint_sha256(path)
    try:
        if sha256 is not None and digest != sha256:
            raise CheckpointError(
                f"{path} is not the checkpoint it should be", f"its SHA-256 is {digest}, not {sha256}", _DAMAGED
            )
        if path.is_dir():
            state, about = _read_folder(path)
        elif path.suffix.lower() in (".pt", ".pth"):
            state, about = _read_torch(path), {}
        else:
            state, about = read_tensors(path)
    except OSError as error:
        raise unreadable(path, error) from error
    config, card = (about_ours(path, about)) if about else _about_official(path, state)
    return Checkpoint(config, sound(path, state), card, digest)


def load_into(network: nn.Module, state: Mapping[str, Tensor], *, allow_missing_adapters: bool = False) -> None:
    """Copy weights into a network, all of them or none.

    Parameters
    ----------
    network : Module
    state : mapping of str to Tensor
    allow_missing_adapters : bool
        Leave the network's adapters as they are where ``state`` has none: SAM2's weights into a network with adapters.

    Raises
    ------
    CheckpointError
        Naming the weights that are missing, unexpected or of another shape. The network is unchanged then.
    """
    own = network.state_dict()
    missing = {name for name in own if name not in state and allow_missing_adapters and _is_adapter(name)}
    check_fit({name: tensor for name, tensor in own.items() if name not in missing}, state)
    network.load_state_dict(dict(state), strict=False)


def check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Compare names and shapes of the weights that a network has and that it is to get.

    Raises
    ------
    CheckpointError
        Naming the weights that are missing, unexpected or of another shape.
    """
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    faults = [f"{len(names)} {kind} ({_some(names)})" for kind, names in groups.items() if names]
    if faults:
        raise CheckpointError(
            "The weights do not fit the network", "; ".join(faults), "Use the configuration that they were trained with"
        )


def adapt(base: Mapping[str, Tensor], config: ModelConfig) -> nn.Module:
    """A network with untrained adapters around SAM2's weights: it gives the very masks of its base until it is trained.

    Raises
    ------
    CheckpointError
        When the weights are not those of the base that ``config`` describes.
    """
    from napari_uniultra.model.build import build_network

    network = build_network(config)
    load_into(network, base, allow_missing_adapters=True)
    return network


def checkpoint_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 by which a checkpoint is known: of the file, or of the index of a folder of shards.

    Raises
    ------
    CheckpointError
        When there is none.
    """
    path = Path(path)
    try:
        return sha256_of(path / INDEX_NAME if path.is_dir() else path)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for a file that is missing or that the system refuses to read."""
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"There is no checkpoint at {error.filename or path}", fix="Check the path")
    return CheckpointError(f"{path} cannot be read", error.strerror or str(error), "Check the file")


def _is_adapter(name: str) -> bool:
    return name.startswith("image_encoder.trunk.patch_mixer.") or ".adapter." in name


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


# --- writing


def as_stored(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors as a file holds them, all finite or a CheckpointError."""
    stored = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state.items()}
    broken = [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            "The weights cannot be saved",
            f"{len(broken)} of them hold NaN, infinity or a number too large for {dtype} ({_some(broken)})",
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


# --- reading


def read_about(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file, with the JSON inside it parsed, without reading its tensors."""
    try:
        metadata = _checked_header(path)
    except OSError as error:
        raise unreadable(path, error) from error
    return {name: value if name == "format" else _json(path, value) for name, value in metadata.items()}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of one file, and its metadata with the JSON inside it parsed."""
    about = read_about(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged", str(error), _DAMAGED) from error
    return state, about


def _checked_header(path: Path) -> dict[str, str]:
    """A safetensors file's metadata, after looking at its header before any library allocates what it asks for."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= size - 8:
            raise CheckpointError(f"{path} is not a safetensors file, or is cut short", fix=_DAMAGED)
        if length > _MAX_HEADER_BYTES:
            raise CheckpointError(f"{path} is refused", f"its header of {length:,} bytes is far too long for a model")
        header = _json(path, file.read(length))
    if not isinstance(header, dict) or len(header) > _MAX_TENSORS:
        raise CheckpointError(f"{path} is refused", "its header is not that of a model")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path} is damaged", "its metadata is not text", _DAMAGED)
    return {name: metadata[name] for name in ("format", "config", "card", "adapter") if name in metadata}


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


def _read_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    index = folder / INDEX_NAME
    about = read_index(folder)
    shards = about.pop("shards", None)
    if not isinstance(shards, list) or not shards or not all(isinstance(shard, dict) for shard in shards):
        raise CheckpointError(f"{index} is damaged", "it does not list the model's shards", _DAMAGED)
    state: dict[str, Tensor] = {}
    for shard in shards:
        part = _read_shard(folder, shard)
        twice = sorted(set(state) & set(part))
        if twice:
            raise CheckpointError(f"{folder} is damaged", f"two shards hold {_some(twice)}", _DAMAGED)
        state.update(part)
    return state, about


def _read_shard(folder: Path, shard: Mapping[str, Any]) -> dict[str, Tensor]:
    name = str(shard.get("file"))
    if not _SHARD_NAME.fullmatch(name):  # also keeps paths out of the folder from being followed
        raise CheckpointError(f"{folder / INDEX_NAME} is refused", f"{name!r} is not the name of a shard")
    file = folder / name
    if file.stat().st_size != shard.get("size") or sha256_of(file) != shard.get("sha256"):
        raise CheckpointError(f"{file} is damaged", "its size or SHA-256 is not what the index says", _DAMAGED)
    return read_tensors(file)[0]


def _read_torch(path: Path) -> dict[str, Tensor]:
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
        raise CheckpointError(f"{path} is damaged", str(error).partition("\n")[0], _DAMAGED) from error
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
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or len(members) > _MAX_TENSORS:
        raise CheckpointError(f"{path} is refused", "its archive is not one that PyTorch writes")


def _json(path: Path, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged", "its description is not valid JSON", _DAMAGED) from error


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
        raise CheckpointError(f"{path} does not say which model it holds", "its configuration is missing", _DAMAGED)
    return ModelConfig.from_dict(config), card


def _about_official(path: Path, state: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Any]]:
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


def sound(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was read from ``path``: floating-point numbers, all finite as float32, or a CheckpointError."""
    strange = [name for name, tensor in state.items() if not tensor.is_floating_point() or tensor.is_sparse]
    if strange:
        raise CheckpointError(f"{path} is not a SAM2 checkpoint", f"{_some(strange)} hold no floating-point numbers")
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor.float()).all()]
    if broken:
        raise CheckpointError(f"{path} is damaged", f"{_some(broken)} hold NaN or infinity", _DAMAGED)
    return dict(state)
