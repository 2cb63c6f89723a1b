"""A distillation from its settings to a student: the match, then the joint stage if there is one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.training.config import FineTuneConfig, ModelSettings
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.training.distillation.task import MATCHED, STUDENT, Distill
from napari_uniultra.training.events import Listener
from napari_uniultra.training.finetune import MODEL, FineTune
from napari_uniultra.training.peft_methods.settings import MethodSettings
from napari_uniultra.training.trainer import Trainer

JOINT = "joint"  # the second stage's folder within the output folder
_ENDED = ("done", "no improvement")


def distil(config: DistillConfig, listeners: Sequence[Listener] = (), restart: bool = False) -> str:
    """Run, or go on with, both stages; the student is ``student.safetensors`` in the output folder.

    The match is a run in the output folder itself, and the joint stage one in its folder ``joint``.

    Parameters
    ----------
    listeners : sequence of callable
        As `Trainer` takes them.
    restart : bool
        Begin both anew.

    Returns
    -------
    str
        Why the last stage that ran ended, as `Trainer.fit` says.

    Raises
    ------
    UniUltraError
        As `Trainer` raises.
    """
    reason = Trainer(config, Distill(config), listeners=listeners, restart=restart).fit()
    if reason not in _ENDED or not config.joint.steps:
        return reason
    second = joint_config(config)
    trainer = Trainer(second, FineTune(second), listeners=listeners, restart=restart)
    reason = trainer.fit()
    if reason in _ENDED and trainer.fabric.is_global_zero:
        with atomic_path(Path(config.output) / STUDENT) as path:
            shutil.copyfile(trainer.folder / MODEL, path)
    return reason


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
