"""Distillation as a task of the trainer: the teacher looks at the same frames, and its features are the goal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.preprocess import prepare_images
from napari_uniultra.training.card import make_card
from napari_uniultra.training.config import OptimiserSettings, RunSettings
from napari_uniultra.training.data.samples import Batch
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.training.distillation.match import Distiller, match_losses, weighted_sum
from napari_uniultra.training.distillation.student import build_student, load_teacher, student_config
from napari_uniultra.training.distillation.taps import encode
from napari_uniultra.training.layout import MATCHED, STUDENT
from napari_uniultra.training.optim import parameter_groups
from napari_uniultra.training.task import Outcome, Validation
from napari_uniultra.training.validation import Validator

_PREFIX = "student."
_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Distill:
    """Trains a student's image encoder, and the necks beside it, to do what the teacher's does (Eq. 4).

    Attributes
    ----------
    network : Distiller
        The student with its necks. The teacher is no part of it, so that checkpoints stay small.
    model_config : ModelConfig
        The student's.
    about : dict
        ``card``, the student's.
    """

    def __init__(self, config: DistillConfig) -> None:
        self.config = config
        teacher = load_teacher(config.teacher)
        self.model_config = student_config(config.student, teacher.config)
        student = build_student(self.model_config, config.student, teacher.network, config.run.seed)
        self._teacher = teacher.network.image_encoder
        description = f"{self.model_config.architecture}, distilled from {teacher.name}"
        card = make_card(description, teacher.card, config.data)  # now: manifests may be worked on while it trains
        self.about: dict[str, Any] = {"card": card}
        self._validator: Validator | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            self.network = Distiller(student, self._teacher, config.match.names)

    def loss(self, batch: Batch, generator: Generator, progress: float) -> Outcome:
        """Eq. 4 on all frames of the batch, and the neck's match."""
        match = self.config.match
        frames = batch.images.flatten(0, 1)
        student = self.network(prepare_images(frames, frames.shape[-1]))
        losses = match_losses(student, self._goal(frames), match.normalise)
        total = weighted_sum(losses, match.stage_weight, match.fpn_weight)
        return Outcome(total, terms={name: loss.detach() for name, loss in losses.items()})

    @torch.no_grad()
    def _goal(self, frames: Tensor) -> dict[str, Tensor]:
        """The teacher's features of frames (B, S, S) uint8."""
        settings = self.config.teacher
        self._teacher = self._teacher.to(frames.device)
        images = prepare_images(frames, settings.image_size or frames.shape[-1])
        dtype = _PRECISIONS.get(settings.precision) if frames.device.type == "cuda" else None
        with torch.autocast(frames.device.type, dtype, enabled=dtype is not None):
            return encode(self._teacher, images, self.network.names)

    def parameter_groups(self, optimiser: OptimiserSettings) -> list[dict[str, Any]]:
        """The student's image encoder and the necks."""
        return parameter_groups(self.network, optimiser)

    def validate(self, run: RunSettings) -> Validation | None:
        """How well the student segments the val part from boxes."""
        if self._validator is None:
            self._validator = Validator(self.model_config, self.config.data, run)
        return self._validator(self.network.student)

    def export(self, state: Mapping[str, Tensor], folder: Path) -> list[Path]:
        """Write the student without its necks."""
        student = {name[len(_PREFIX) :]: value for name, value in state.items() if name.startswith(_PREFIX)}
        path = folder / (MATCHED if self.config.joint.steps else STUDENT)
        save_checkpoint(path, student, self.model_config, self.about["card"])
        return [path]
