"""Untrained networks of the tables' models: what a model costs does not depend on what it learnt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from torch import nn

from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import ARCHITECTURES, ModelConfig, architecture
from napari_uniultra.model.device import copied_to
from napari_uniultra.training.ablation.cost import parameter_count
from napari_uniultra.training.ablation.plan import Plan
from napari_uniultra.training.base import Base, load_base
from napari_uniultra.training.config import ModelSettings
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.training.distillation.match import Distiller
from napari_uniultra.training.distillation.student import student_config
from napari_uniultra.training.peft_methods import apply_method


@dataclass(frozen=True)
class Counts:
    """Parameters of a model.

    Attributes
    ----------
    trained : int
        With the necks of a distillation, which are dropped afterwards; 0 for a model as it is.
    total : int
    """

    trained: int
    total: int

    @property
    def share(self) -> float:
        """Of the trained ones, 0 to 1."""
        return self.trained / self.total


def untrained(plan: Plan, with_values: bool = True, with_method: bool = True) -> nn.Module:
    """The network of a model with the weights that its training starts from, or random ones where there are none yet.

    Parameters
    ----------
    with_values : bool
        Else all tensors are on the meta device, which takes no memory.
    with_method : bool
        With what a fine-tuning method adds.

    Raises
    ------
    CheckpointError
    """
    if isinstance(plan.settings, DistillConfig):
        network = build_network(student_config(plan.settings.student, _config_of(plan.teacher)))
        return network if with_values else copied_to(network, "meta")
    base = load_base(_scratch(plan.settings.model)) if with_values else _shapes(_scratch(plan.settings.model))
    if plan.kind == "finetune" and with_method:
        apply_method(base.network, base.config, plan.settings.method)
    return base.network.eval()


def count_parameters(plan: Plan) -> Counts:
    """What is trained of a model, and all of it.

    Raises
    ------
    CheckpointError, ConfigError
    """
    network = untrained(plan, with_values=False)
    if plan.kind == "base":
        return Counts(0, parameter_count(network))
    trained = network
    if isinstance(plan.settings, DistillConfig):
        network.requires_grad_(False)
        network.image_encoder.requires_grad_(True)
        teacher = untrained(plan.teacher, with_values=False)
        trained = Distiller(network, teacher.image_encoder, plan.settings.match.names)
    own = sum(parameter.numel() for parameter in trained.parameters() if parameter.requires_grad)
    return Counts(own, parameter_count(network))


def _scratch(model: ModelSettings) -> ModelSettings:
    """Without the weights of a model of the zoo, which need not be on this machine."""
    if model.base not in ARCHITECTURES:
        return model
    return replace(model, base=None, architecture=model.architecture or model.base)


def _config_of(plan: Plan) -> ModelConfig:
    """A teacher's configuration, but for its adapters."""
    model = _scratch(plan.settings.model)
    return architecture(model.architecture) if model.base is None else load_base(model).config


def _shapes(model: ModelSettings) -> Base:
    base = _valueless_base(model)
    return replace(base, network=copied_to(base.network, "meta"))


@lru_cache(maxsize=2)
def _valueless_base(model: ModelSettings) -> Base:
    """Building a large network takes seconds, and the rows of a table often share one."""
    base = load_base(model)
    return replace(base, network=copied_to(base.network, "meta"))
