"""A distillation from its settings to a student: the match, then the joint stage if there is one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.training.config import FineTuneConfig, ModelSettings
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.training.distillation.task import Distill
from napari_uniultra.training.events import Listener
from napari_uniultra.training.finetune import FineTune
from napari_uniultra.training.layout import JOINT, MATCHED, MODEL, STUDENT
from napari_uniultra.training.peft_methods.settings import MethodSettings
from napari_uniultra.training.trainer import Trainer

_ENDED = ("done", "no improvement")


class Ended(NamedTuple):
    """How a distillation ended: the last stage that ran, and why it ended, as `Trainer.fit` says."""

    trainer: Trainer
    reason: str

    @property
    def is_complete(self) -> bool:
        """Whether that stage came to its end."""
        return self.reason in _ENDED


def distil(config: DistillConfig, listeners: Sequence[Listener] = (), restart: bool = False) -> Ended:
    """Run, or go on with, both stages; the student is ``student.safetensors`` in the output folder.

    The match is a run in the output folder itself, and the joint stage one in its folder ``joint``.

    Parameters
    ----------
    listeners : sequence of callable
        As `Trainer` takes them.
    restart : bool
        Begin both anew.

    Raises
    ------
    UniUltraError
        As `Trainer` raises.
    """
    first = _fitted(Trainer(config, Distill(config), listeners=listeners, restart=restart))
    if not first.is_complete or not config.joint.steps:
        return first
    settings = joint_config(config)
    second = _fitted(Trainer(settings, FineTune(settings), listeners=listeners, restart=restart))
    if second.is_complete and second.trainer.fabric.is_global_zero:
        with atomic_path(Path(config.output) / STUDENT) as path:
            shutil.copyfile(second.trainer.folder / MODEL, path)
    return second


def _fitted(trainer: Trainer) -> Ended:
    return Ended(trainer, trainer.fit())


def joint_config(config: DistillConfig) -> FineTuneConfig:
    """The second stage: all of the student learns from masks, image encoder and decoder together."""
    output = Path(config.output)
    return FineTuneConfig(
        output=str(output / JOINT),
        model=ModelSettings(base=str(output / MATCHED)),
        method=MethodSettings(name="full", memory=config.joint.memory),
        data=config.data,
        prompts=config.prompts,
        loss=config.loss,
        optimiser=replace(config.optimiser, learning_rate=config.joint.learning_rate, rates={}),
        run=replace(config.run, steps=config.joint.steps),
    )
