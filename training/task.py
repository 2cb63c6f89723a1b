"""What the trainer asks of a task, such as fine-tuning or distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Generator, Tensor, nn

from napari_uniultra.model.config import ModelConfig
from napari_uniultra.training.config import OptimiserSettings, RunSettings
from napari_uniultra.training.data.samples import Batch
from napari_uniultra.training.data.settings import DataSettings


@dataclass
class Outcome:
    """The loss of a batch and what the log shows of it.

    Attributes
    ----------
    loss : Tensor
        A scalar with its graph.
    terms : dict of str to float or Tensor
        Parts of the loss, by name, detached.
    dice : dict of str to list of float
        By the kind of prompt.
    iou_error : list of float
        How far predicted IoUs were off.
    after_backward : callable, optional
        What is to be done once the step's gradients are there, before the weights change.
    """

    loss: Tensor
    terms: dict[str, float | Tensor] = field(default_factory=dict)
    dice: dict[str, list[float]] = field(default_factory=dict)
    iou_error: list[float] = field(default_factory=list)
    after_backward: Callable[[], None] | None = None


@dataclass
class Validation:
    """What a validation found.

    Attributes
    ----------
    metrics : dict of str to float
    pictures : list of (H, W, 3) uint8
        For a person to look at. They are numbered, never named after a case.
    skipped : list of (str, str)
        Cases that could not be read, and why.
    """

    metrics: dict[str, float]
    pictures: list[np.ndarray] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


class Task(Protocol):
    """What is trained, and how.

    Attributes
    ----------
    network : Module
        Built on the CPU; the trainer moves it. Its state dict is what checkpoints hold, and ``requires_grad`` decides
        what is trained and averaged. What only helps to train, such as a teacher, stays outside of it.
    model_config : ModelConfig
        Of what is exported.
    about : dict
        What checkpoints keep of it besides, such as the ``card`` of what is exported.
    """

    network: nn.Module
    model_config: ModelConfig
    about: dict[str, Any]

    def loss(self, batch: Batch, generator: Generator, progress: float) -> Outcome:
        """The loss of a batch that lies on the network's device, under the run's autocast.

        Everything random comes from ``generator``, which is on the CPU, or from torch's own, which is seeded alike.
        ``progress`` goes from 0 to 1 over the run.
        """

    def parameter_groups(self, optimiser: OptimiserSettings) -> list[dict[str, Any]]:
        """As `optim.parameter_groups` gives them."""

    def validate(self, run: RunSettings) -> Validation | None:
        """Look at the val part; None where there is none.

        The network has the averaged weights, is in evaluation mode, and under the run's autocast.
        """

    def export(self, state: Mapping[str, Tensor], folder: Path) -> list[Path]:
        """Write what a user wants of the network's ``state``: a model that the viewer loads, an adapter.

        Returns the files that were written, the model first.
        """


class TaskConfig(Protocol):
    """What the settings of every task have; `config.FineTuneConfig` is one.

    Attributes
    ----------
    sources : tuple of str
        The models that the task begins with, by name or path.
    warnings : tuple of str
        What of the settings does less than it says, in words.
    """

    output: str
    data: DataSettings
    optimiser: OptimiserSettings
    run: RunSettings

    @property
    def sources(self) -> tuple[str, ...]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...
