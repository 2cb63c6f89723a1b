"""Parameter groups, learning-rate schedules, averaged weights and averaged gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from napari_uniultra.training.config import ConfigError, OptimiserSettings

MEMORY = ("memory_attention.", "memory_encoder.", "maskmem_tpos_enc", "obj_ptr", "mask_downsample", "no_obj_")
_EARLY = 10  # steps: the average forgets the start faster than its decay says until about ten times as many are done


def is_memory(name: str) -> bool:
    """Whether a parameter of SAM2's network belongs to its memory, which only clips train."""
    return name.startswith(MEMORY)


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def parameter_groups(network: nn.Module, settings: OptimiserSettings) -> list[dict[str, Any]]:
    """Groups for the optimiser, each with its weight decay and its rate relative to the schedule's.

    Matrices and kernels decay; biases, norms and single embeddings do not.

    Raises
    ------
    ConfigError
        When nothing is trained, or a name in ``settings.rates`` fits no trained parameter.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    unused = set(settings.rates)
    for name, parameter in trainable(network).items():
        key = _rate_key(name, settings.rates)
        unused.discard(key)
        is_matrix = parameter.ndim >= 2 and min(parameter.shape[:2]) > 1
        groups.setdefault((is_matrix, settings.rates.get(key, 1.0)), []).append(parameter)
    if not groups:
        raise ConfigError("Nothing is left to train", fix="Choose another method, or memory: trained")
    if unused:
        raise ConfigError(
            f"optimiser.rates names {', '.join(sorted(unused))}", "no trained parameter has such a name", "Remove it"
        )
    return [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if is_matrix else 0.0,
            "relative_rate": float(rate),
        }
        for (is_matrix, rate), parameters in groups.items()
    ]


def _rate_key(name: str, rates: Mapping[str, float]) -> str:
    parts = name.split(".")
    return next((key for key in rates if key in parts or (key == "memory" and is_memory(name))), "")


def make_optimiser(groups: list[dict[str, Any]], settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Adam or AdamW over groups of `parameter_groups`."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    return kind(groups, lr=settings.learning_rate)


def learning_rate(settings: OptimiserSettings, step: int, steps: int) -> float:
    """Of the step that comes after ``step`` of ``steps``: a linear warm-up, then the schedule."""
    highest = settings.learning_rate
    if step < settings.warmup:
        return highest * (step + 1) / settings.warmup
    step -= settings.warmup
    if settings.schedule == "constant":
        return highest
    if settings.schedule == "exponential":
        return highest * settings.decay ** (step // settings.decay_every)
    done = min(step / max(steps - settings.warmup, 1), 1.0)
    return highest * (settings.final + (1 - settings.final) * (1 + math.cos(math.pi * done)) / 2)


class Average:
    """Exponential moving average of the trained weights: steadier than those of any one step, and the ones to use.

    Parameters
    ----------
    network : Module
    decay : float
        0 follows the network.

    Attributes
    ----------
    values : dict of str to Tensor
        The averages, by parameter name.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._parameters = trainable(network)
        self._decay = decay
        self.values = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number ``step``."""
        # A short memory at first, so that the average does not hold on to the start.
        decay = min(self._decay, (1 + step) / (_EARLY + step))
        torch._foreach_lerp_(list(self.values.values()), list(self._parameters.values()), 1 - decay)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take over averages, for a run that goes on."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block, the network has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter], fabric: Fabric) -> None:
    """Replace every process's gradients by their mean over all processes.

    A parameter may have a gradient in some processes only, when they draw batches of different kinds; the others then
    count as zero. Where no process has one there is none afterwards, as in a single process.
    """
    if fabric.world_size == 1:
        return
    has = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=fabric.device)
    used = fabric.all_reduce(has, reduce_op="sum").tolist()
    shared = [parameter for parameter, count in zip(parameters, used, strict=True) if count]
    for parameter in shared:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if not shared:
        return
    flat = torch.cat([parameter.grad.flatten() for parameter in shared])
    flat = fabric.all_reduce(flat, reduce_op="mean")
    for parameter, part in zip(shared, flat.split([parameter.numel() for parameter in shared]), strict=True):
        parameter.grad.copy_(part.view_as(parameter))
