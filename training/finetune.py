"""Fine-tuning as a task of the trainer: a base, a method that says what of it is trained, and the mask loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from napari_uniultra.core.settings import ConfigError
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.preprocess import prepare_images
from napari_uniultra.training.base import Base, load_base, read_start
from napari_uniultra.training.card import make_card
from napari_uniultra.training.checkpoints import ADAPTER, MODEL
from napari_uniultra.training.config import FineTuneConfig, OptimiserSettings, RunSettings
from napari_uniultra.training.data.samples import Batch, Samples
from napari_uniultra.training.forward import SegmentationLoss
from napari_uniultra.training.memory_start import start_memory_attention
from napari_uniultra.training.optim import parameter_groups
from napari_uniultra.training.passes import recompute_trunk
from napari_uniultra.training.peft_methods import apply_method
from napari_uniultra.training.peft_methods.adapter_file import merged_state, save_adapter
from napari_uniultra.training.peft_methods.method import Method
from napari_uniultra.training.task import Outcome, Validation
from napari_uniultra.training.validation import Validator

_TYPICAL = 16  # stills that the memory's start is fitted to


class FineTune:
    """Trains a network to segment as prompted.

    Parameters
    ----------
    config : FineTuneConfig

    Attributes
    ----------
    network : SAM2Base
        With the method's parts.
    model_config : ModelConfig
        Of the network without them, or of the one they become when they are merged.
    method : Method
    about : dict
        ``card``, of what is exported.

    Raises
    ------
    CheckpointError, ConfigError, ReadError
    """

    def __init__(self, config: FineTuneConfig) -> None:
        self.config = config
        self._base: Base = load_base(config.model, config.run.seed)
        self.network: nn.Module = self._base.network
        if config.model.start_memory:
            start_memory_attention(self.network, self._typical_images())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            self.method: Method = apply_method(self.network, self._base.config, config.method)
        if not (self.method.can_merge or self._base.sha256):
            raise ConfigError(
                f"The result of method {config.method.name} could not be saved",
                "it cannot be merged, and an adapter needs a model of the zoo or a checkpoint as its base",
                f"Set model.base to one, such as the {MODEL} in a run's folder",
            )
        self.model_config = self.method.config
        if config.run.activation_checkpointing:
            recompute_trunk(self.network)
        self._loss = SegmentationLoss(self.model_config, config.prompts, config.loss)
        self._validator: Validator | None = None
        card = self._make_card()  # now: the manifests may be worked on while it trains
        self.about: dict[str, Any] = {"card": card}

    def loss(self, batch: Batch, generator: Generator, progress: float) -> Outcome:
        """The segmentation loss, and what the method adds."""
        outcome = self._loss(self.network, batch, generator, progress)
        extra = self.method.extra_loss(self.network)
        if extra is not None:
            outcome.loss = outcome.loss + extra
            outcome.terms["method"] = extra.detach()
        outcome.after_backward = lambda: self.method.after_backward(self.network, progress)
        return outcome

    def parameter_groups(self, optimiser: OptimiserSettings) -> list[dict[str, Any]]:
        """With the method's own relative rates, where the settings say nothing else."""
        return parameter_groups(self.network, replace(optimiser, rates={**self.method.rates, **optimiser.rates}))

    def validate(self, run: RunSettings) -> Validation | None:
        """Boxes on the val part, and tracking; see `validation.Validator`."""
        if self._validator is None:
            self._validator = Validator(self.model_config, self.config.data, run)
        return self._validator(self.network)

    def export(self, state: Mapping[str, Tensor], folder: Path) -> list[Path]:
        """Write the whole model, where the method can be merged, and what it changed of its base, where that is less.

        Raises
        ------
        CheckpointError, WriteError
        """
        model, adapter = folder / MODEL, folder / ADAPTER
        files, card = [], self.about["card"]
        if self.method.can_merge:
            save_checkpoint(model, merged_state(self.method, self.network, state), self.model_config, card)
            files.append(model)
        if self._base.sha256 and self.config.method.name != "full":
            base = read_start(self.config.model)
            save_adapter(adapter, self.method, state, base.state, base.sha256, base.name, card)
            files.append(adapter)
        return files

    def _make_card(self) -> dict[str, Any]:
        base, config = self._base, self.config
        started = f"{base.name} ({base.sha256[:12]})" if base.sha256 else base.name or "random weights"
        description = f"{self.model_config.architecture}, fine-tuned by {config.method.name} from {started}"
        return make_card(description, base.card, config.data)

    def _typical_images(self) -> Tensor:
        config, size = self.config, self._base.config.image_size
        data = replace(config.data, clip_share=0.0, image_sizes=(), batch=_TYPICAL)
        batch = Samples(data, size, 1, config.run.seed + 1)[0].to("cpu")
        return prepare_images(batch.images[:, 0], size)
