"""Where models come from: bundled with the package, added by the user, or downloaded when the user asks for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_uniultra.core.atomic import atomic_dir, write_error
from napari_uniultra.core.places import data_folder
from napari_uniultra.errors import CheckpointError, ResourceError
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.download import DOWNLOADS, Download, fetch, received
from napari_uniultra.model.loaded import Model
from napari_uniultra.model.room import check_room

if TYPE_CHECKING:  # listing models needs no torch
    from torch import Tensor, nn

    from napari_uniultra.model.adapter_file import AdapterFile
    from napari_uniultra.model.checkpoint import Checkpoint

DEFAULT_MODEL = "uniultra-mini"
INFO_NAME = "info.json"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without loading it.

    Attributes
    ----------
    name : str
    origin : {"bundled", "added", "downloadable"}
        A downloaded model counts as added.
    architecture : str
    image_size : int
        Side of its input in pixels; 0 when unknown.
    size_bytes : int
    licence, description : str
    path : Path, optional
        Its file or folder; None when it is not on this machine.
    sha256 : str
    parameters : int
        0 when unknown.
    """

    name: str
    origin: Literal["bundled", "added", "downloadable"]
    architecture: str
    image_size: int
    size_bytes: int
    licence: str
    description: str
    path: Path | None
    sha256: str
    parameters: int = 0


def models_folder() -> Path:
    """Where added models live."""
    return data_folder() / "models"


def bundled_folder() -> Path:
    """Where the models that come with the package live."""
    return Path(str(files("napari_uniultra.weights")))


def list_models() -> list[ModelInfo]:
    """Every model that can be loaded or downloaded: bundled ones first, then added, then downloadable ones."""
    present = [
        _read_info(folder, origin)
        for origin, parent in (("bundled", bundled_folder()), ("added", models_folder()))
        for folder in _model_folders(parent)
    ]
    names = {info.name for info in present}
    return present + [_downloadable(name) for name in DOWNLOADS if name not in names]


def find_model(name: str) -> ModelInfo:
    """The model of that name.

    Raises
    ------
    CheckpointError
        When there is none.
    """
    models = list_models()
    found = next((info for info in models if info.name == name), None)
    if found is not None:
        return found
    if name == "uniultra-l":
        raise CheckpointError(
            "There are no weights for 'uniultra-l' on this machine",
            "its authors have published none",
            "Train it from SAM2-L and add the result: uniultra weights add FILE --name uniultra-l",
        )
    raise CheckpointError(
        f"There is no model or file called {name!r}",
        f"the models are {', '.join(info.name for info in models)}",
        "Check the name or the path",
    )


def model_sha256(name: str | os.PathLike[str]) -> str:
    """The SHA-256 that `load_model` would report, without loading the model.

    Raises
    ------
    CheckpointError
        When there is no such model.
    """
    _, path, sha256 = _locate(name)
    if sha256 is None:
        from napari_uniultra.model.checkpoint import checkpoint_sha256

        sha256 = checkpoint_sha256(path)
    return sha256


def model_card(info: ModelInfo) -> dict[str, Any]:
    """What a model's file says of it: training data, licence, intended use; its weights are not read.

    Empty where the file says nothing, as official files do, or is not on this machine.

    Raises
    ------
    CheckpointError
        When it is damaged.
    """
    from napari_uniultra.model.checkpoint import read_about, read_index

    if info.path is None or info.path.suffix.lower() in (".pt", ".pth"):
        return {}
    card = (read_index if info.path.is_dir() else read_about)(info.path).get("card")
    return card if isinstance(card, dict) else {}


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
    from napari_uniultra.model.attempt import attempt
    from napari_uniultra.model.device import choose_device

    target = choose_device(device)
    label, path, sha256 = _locate(name)
    network, about = _open(label, path, sha256, look_beside=True)
    if not attempt(lambda: network.to(target))[0]:
        raise ResourceError(
            f"The model {label!r} does not fit into the memory of {target}",
            fix="Close other programs that use the GPU, choose a smaller model, or device='cpu'",
        )
    return Model(network, about.config, target, label, about.sha256, about.card, half, compiled)


def model_at(name: str | os.PathLike[str], device: str = "auto", image_size: int | None = None) -> Model:
    """A model by name or path, as `load_model` has it, at any input size.

    Raises
    ------
    CheckpointError, ResourceError
    """
    model = load_model(name, device)
    return model if image_size is None else model.at(image_size)


def add_model(path: str | os.PathLike[str], name: str | None = None) -> ModelInfo:
    """Copy a checkpoint into the user's models, after a full check, so that it can be loaded by name.

    Parameters
    ----------
    path : path
        A safetensors file, a folder of shards, or an official SAM2 PyTorch file.
    name : str, optional
        Small letters, digits, '.', '_' and '-'; by default made from the file's name.

    Raises
    ------
    CheckpointError
        When the checkpoint cannot be loaded, or the name cannot be used or is taken.
    WriteError
        When it cannot be copied.
    """
    path = Path(path)
    name = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._") if name is None else name
    _check_new_name(name)
    pack_model(path, models_folder() / name)
    return find_model(name)


def pack_model(path: str | os.PathLike[str], folder: Path, *, move: bool = False) -> None:
    """Check a checkpoint and put it, with what `list_models` tells of it, into a new folder.

    Parameters
    ----------
    path : path
    folder : Path
        Must not exist yet. Its name is the model's name.
    move : bool
        Move the file instead of copying it.

    Raises
    ------
    CheckpointError, WriteError
        As `add_model`.
    """
    path = Path(path)
    network, about = _open(folder.name, path, look_beside=False)
    with atomic_dir(folder) as new:
        for source, target in _files_of(path):
            (shutil.move if move else shutil.copyfile)(source, new / target)
        size = sum(file.stat().st_size for file in new.iterdir())
        info = {
            "architecture": about.config.architecture,
            "image_size": about.config.image_size,
            "size_bytes": size,
            "licence": str(about.card.get("licence", "unknown")),
            "description": str(about.card.get("description", "")),
            "sha256": about.sha256,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        }
        (new / INFO_NAME).write_text(json.dumps(info, indent=1), encoding="utf-8")


def remove_model(name: str) -> None:
    """Delete an added or downloaded model from the user's models.

    Raises
    ------
    CheckpointError
        When no such model was added.
    WriteError
        When it cannot be deleted.
    """
    if name not in [folder.name for folder in _model_folders(models_folder())]:
        raise CheckpointError(f"No model called {name!r} was added", fix="See `uniultra weights list`")
    folder = models_folder() / name
    doomed = folder.with_name(f".{uuid.uuid4().hex[:12]}.partial")  # gone at once, however long deleting takes
    try:
        os.replace(folder, doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise write_error(folder, error) from error


def download_model(
    name: str, progress: Callable[[int, int], None] | None = None, source: Download | None = None
) -> ModelInfo:
    """Download official SAM2 weights (by Meta, Apache-2.0), check them and add them.

    A download that was cut short goes on where it stopped when it is asked for again.

    Parameters
    ----------
    name : str
        One of the eight official sizes, such as "sam2.1-tiny".
    progress : callable, optional
        Called with the bytes there are and the bytes in all. What it raises stops the download.
    source : Download, optional
        Another place to get the same model from, such as a mirror.

    Raises
    ------
    ResourceError
        When there is no network, the server does not answer, or the disk is full.
    CheckpointError
        When there is no such download, or what came is not what was expected.
    WriteError
        When it cannot be written.
    """
    if name not in DOWNLOADS:
        raise CheckpointError(f"{name!r} cannot be downloaded", fix=f"Choose one of {', '.join(DOWNLOADS)}")
    _check_new_name(name, is_download=True)
    file = fetch(source or DOWNLOADS[name], _download_target(name), progress)
    try:
        pack_model(file, models_folder() / name, move=True)
    except CheckpointError:  # it is another model; whatever else went wrong, the file need not come again
        file.unlink(missing_ok=True)
        raise
    finally:
        with suppress(OSError):
            file.parent.rmdir()  # unless it is still there
    return find_model(name)


def bytes_received(name: str) -> int:
    """How much of a download is there already, from an earlier try that was cut short; it goes on from there."""
    return received(_download_target(name))


def _download_target(name: str) -> Path:
    return models_folder().parent / "downloads" / name / "model.pt"


def _locate(name: str | os.PathLike[str]) -> tuple[str, Path, str | None]:
    """A model's label, the path of its checkpoint, and the SHA-256 that it must have."""
    known = {info.name for info in list_models()}
    if isinstance(name, os.PathLike) or (name not in known and os.path.exists(name)):
        return Path(name).stem, Path(name), None
    info = find_model(name)
    if info.path is None:
        raise CheckpointError(
            f"The weights of {name!r} are not on this machine",
            f"they are {info.size_bytes / 1e6:.0f} MB, by Meta, under the licence {info.licence}",
            f"Download them once: uniultra weights download {name}",
        )
    return name, info.path, info.sha256


@dataclass(frozen=True)
class _About:
    """What a file says of the network that it holds."""

    config: ModelConfig
    card: dict[str, Any]
    sha256: str


def _open(label: str, path: Path, sha256: str | None = None, *, look_beside: bool) -> tuple[nn.Module, _About]:
    """The network of a checkpoint or an adapter file, with its weights, on the CPU."""
    from napari_uniultra.model.attempt import attempt

    is_open, opened = attempt(lambda: _read(label, path, sha256, look_beside))
    if not is_open:
        raise ResourceError(
            f"There is too little memory for the model {label!r}", fix="Close other programs, or choose a smaller model"
        )
    return opened


def _read(label: str, path: Path, sha256: str | None, look_beside: bool) -> tuple[nn.Module, _About]:
    from napari_uniultra.model.adapter_file import is_adapter_file, read_adapter_file
    from napari_uniultra.model.checkpoint import read_checkpoint

    if not is_adapter_file(path):
        checkpoint = read_checkpoint(path, sha256)
        return _network_of(label, checkpoint, path), _About(checkpoint.config, checkpoint.card, checkpoint.sha256)
    # Methods are known to the training package alone.
    from napari_uniultra.training.peft_methods.adapter_file import restore

    adapter = read_adapter_file(path, sha256)
    found = _find_base(adapter, path, look_beside)
    base = _open(adapter.base_name, found, adapter.base_sha256, look_beside=look_beside)[0].state_dict()
    check_room(label, _stored(adapter.tensors), _weights(base) + _weights(adapter.tensors))
    network, config = restore(adapter, base)
    return network, _About(config, dict(adapter.card), adapter.sha256)


def _stored(state: Mapping[str, Tensor]) -> int:
    """Bytes of weights as they are stored."""
    return sum(tensor.nbytes for tensor in state.values())


def _weights(state: Mapping[str, Tensor]) -> int:
    """How many weights there are."""
    return sum(tensor.numel() for tensor in state.values())


def _find_base(adapter: AdapterFile, path: Path, look_beside: bool) -> Path:
    """Where an adapter's base is: among the models, or in the adapter's own folder."""
    from napari_uniultra.model.checkpoint import INDEX_NAME, checkpoint_sha256

    models = [info for info in list_models() if info.sha256 == adapter.base_sha256]
    present = [info.path for info in models if info.path is not None]
    if present:
        return present[0]
    beside = sorted(path.parent.iterdir()) if look_beside else []
    for other in beside:
        is_checkpoint = other.suffix.lower() in (".safetensors", ".pt", ".pth") or (other / INDEX_NAME).is_file()
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
    import torch

    from napari_uniultra.model.attempt import attempt
    from napari_uniultra.model.build import build_network
    from napari_uniultra.model.checkpoint import load_into

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


def _check_new_name(name: str, *, is_download: bool = False) -> None:
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"A model cannot be called {name!r}", fix="Use small letters, digits, '.', '_' and '-', 64 at most"
        )
    present = {info.name: info.origin for info in list_models()}
    origin = present.get(name)
    if origin == "downloadable" and not is_download:
        raise CheckpointError(f"The name {name!r} is kept for the official weights", fix="Choose another name")
    if origin in ("bundled", "added"):
        raise CheckpointError(
            f"There is already a model called {name!r}",
            fix="Choose another name" if origin == "bundled" else "Remove that one first, or choose another name",
        )


def _model_folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if _NAME.fullmatch(path.name) and (path / INFO_NAME).is_file())


def _read_info(folder: Path, origin: Literal["bundled", "added"]) -> ModelInfo:
    try:
        data = json.loads((folder / INFO_NAME).read_text(encoding="utf-8"))
        return ModelInfo(name=folder.name, origin=origin, path=_checkpoint_in(folder), **data)
    except (OSError, ValueError, TypeError):  # listing the others must go on
        return ModelInfo(
            folder.name, origin, "unknown", 0, 0, "unknown", "damaged: remove and add it again", folder, ""
        )


def _checkpoint_in(folder: Path) -> Path:
    """The checkpoint in a model's folder: the folder itself when it holds shards."""
    single = [folder / f"model{suffix}" for suffix in (".safetensors", ".pt")]
    return next((path for path in single if path.is_file()), folder)


def _files_of(path: Path) -> list[tuple[Path, str]]:
    """What to copy of a checkpoint that has been read: the files, and their names in the model's folder."""
    if not path.is_dir():
        return [(path, "model.pt" if path.suffix.lower() in (".pt", ".pth") else "model.safetensors")]
    from napari_uniultra.model.checkpoint import INDEX_NAME

    index = json.loads((path / INDEX_NAME).read_bytes())
    return [(path / name, name) for name in (INDEX_NAME, *(shard["file"] for shard in index["shards"]))]


def _downloadable(name: str) -> ModelInfo:
    from napari_uniultra.model.config import architecture

    download = DOWNLOADS[name]
    return ModelInfo(
        name=name,
        origin="downloadable",
        architecture=name,
        image_size=architecture(name).image_size,
        size_bytes=download.size,
        licence=download.licence,
        description="Official SAM2 weights by Meta, for natural images and video",
        path=None,
        sha256=download.sha256,
        parameters=download.parameters,
    )


def as_dict(info: ModelInfo) -> dict[str, Any]:
    """A model's facts as JSON-ready data."""
    return {**asdict(info), "path": None if info.path is None else str(info.path)}
