"""Which models there are, and what is known of each without loading it: bundled, added by the user, or downloadable.

Needs no torch.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from napari_uniultra.core.places import data_folder
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.about import checkpoint_sha256, is_torch_file, read_about, read_index
from napari_uniultra.model.config import architecture
from napari_uniultra.model.download import DOWNLOADS

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


def locate(name: str | os.PathLike[str]) -> tuple[str, Path, str | None]:
    """A model's label, the path of its checkpoint, and the SHA-256 that it must have where that is known.

    Raises
    ------
    CheckpointError
        When there is no such model, or it is not on this machine.
    """
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


def model_sha256(name: str | os.PathLike[str]) -> str:
    """The SHA-256 that `load_model` would report, without loading the model.

    Raises
    ------
    CheckpointError
        When there is no such model.
    """
    _, path, sha256 = locate(name)
    if sha256 is None:
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
    if info.path is None or is_torch_file(info.path):
        return {}
    card = (read_index if info.path.is_dir() else read_about)(info.path).get("card")
    return card if isinstance(card, dict) else {}


def as_dict(info: ModelInfo) -> dict[str, Any]:
    """A model's facts as JSON-ready data."""
    return {**asdict(info), "path": None if info.path is None else str(info.path)}


def check_new_name(name: str, *, is_download: bool = False) -> None:
    """Refuse a name for a model to come that cannot be used or is taken.

    Raises
    ------
    CheckpointError
    """
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


def _downloadable(name: str) -> ModelInfo:
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
