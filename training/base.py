"""The network a run begins with: a model of the zoo, a checkpoint, an earlier run's weights, or random ones."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import LIGHT_MEMORY, ModelConfig, architecture
from napari_uniultra.model.fit import load_into
from napari_uniultra.model.load import load_model
from napari_uniultra.training.checkpoints import load_training_checkpoint
from napari_uniultra.training.config import ModelSettings
from napari_uniultra.training.layout import ADAPTER, CHECKPOINT, MODEL, STUDENT
from napari_uniultra.training.memory_lighten import lighten_memory

_INITIAL_SCORE = 2.0  # logit: objects are there more often than not, and an absent one's mask gets no gradient
# What `architecture` decides; the rest of a configuration stays the base's.
_TRUNK = ("embed_dim", "num_heads", "stages", "global_att_blocks", "window_spec", "window_pos_embed_bkg_spatial_size")
_OPTIONAL = (
    "image_size", "box_prior", "mask_prior", "motion_prior", "close_views", "solid", "smooth", "rotary_grid",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Base:
    """A network to train, on the CPU.

    Attributes
    ----------
    network : SAM2Base
    config : ModelConfig
        That it was built from.
    name : str
        Of the checkpoint or the run's folder that its weights are from; "" for random ones.
    sha256 : str
        Of the checkpoint that its weights are; "" for random ones, those of a run's state, and parts of others.
    card : dict
        What that checkpoint or run says of itself.
    """

    network: nn.Module
    config: ModelConfig
    name: str
    sha256: str
    card: dict[str, Any]


def load_base(settings: ModelSettings, seed: int = 0) -> Base:
    """Build the network, with its weights; new parts of it are random, by ``seed``.

    Raises
    ------
    CheckpointError
        When the base is missing, damaged, or does not fit the architecture.
    """
    start = read_start(settings)
    config = changed_config(start.config, settings)
    if config.memory != start.config.memory and start.state is not None:
        start = replace(start, state=lighten_memory(start.state, config.memory), sha256="")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(config)
    if start.state is None:
        nn.init.constant_(network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, _INITIAL_SCORE)
    else:
        load_into(network, start.state, allow_missing_adapters=True)
    set_dropout(network, settings.dropout)
    return Base(network, config, start.name, start.sha256, start.card)


@dataclass(frozen=True, eq=False)
class Start:
    """Weights to start from, as they are stored; ``state`` is None for random ones."""

    state: Mapping[str, Tensor] | None
    config: ModelConfig
    name: str = ""
    sha256: str = ""
    card: dict[str, Any] = field(default_factory=dict)


def read_start(settings: ModelSettings) -> Start:
    """Read what ``settings.base`` names.

    Raises
    ------
    CheckpointError
    """
    if settings.base is None:
        return Start(None, architecture(settings.architecture))
    folder = Path(settings.base)
    if not (folder / CHECKPOINT).is_file():
        return _read_model(settings.base)
    run = load_training_checkpoint(folder / CHECKPOINT)
    state, config = run[settings.weights], ModelConfig.from_dict(run["model_config"])
    if state.keys() <= _parts(config):
        return Start(state, config, folder.resolve().name, card=run.get("about", {}).get("card", {}))
    return _read_model(_exported(folder))


def _parts(config: ModelConfig) -> Set[str]:
    """The names of what a network's state holds."""
    with torch.random.fork_rng(devices=[]):
        return build_network(config).state_dict().keys()


def _exported(folder: Path) -> str:
    """The model of a run whose state is no network's alone: its method added parts, or it is a distillation's."""
    found = [folder / name for name in (MODEL, ADAPTER, STUDENT) if (folder / name).is_file()]
    if not found:
        raise CheckpointError(
            f"The run in {folder} has no model to begin with",
            "its state holds more than a network, and it has exported nothing yet",
            "Go on with it to its end",
        )
    return str(found[0])


def _read_model(name: str) -> Start:
    model = load_model(name, "cpu")
    return Start(model.network.state_dict(), model.config, model.name, model.sha256, model.card)


def changed_config(config: ModelConfig, settings: ModelSettings) -> ModelConfig:
    """The base's configuration with what the settings say otherwise."""
    if settings.architecture is not None and settings.architecture != config.architecture:
        wanted = architecture(settings.architecture)
        names = (*_TRUNK, "architecture", "adapter")
        config = config.with_(**{name: getattr(wanted, name) for name in names})
    changes = {name: getattr(settings, name) for name in _OPTIONAL if getattr(settings, name) is not None}
    if settings.width is not None:
        changes["embed_dim"] = settings.width
    if settings.light_memory:
        changes["memory"] = LIGHT_MEMORY
    return config.with_(**changes)


def set_dropout(network: nn.Module, share: float) -> None:
    """The share of values that every dropout of a network drops in training."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        elif hasattr(module, "dropout_p"):  # sam2's attention
            module.dropout_p = share
