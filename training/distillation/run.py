"""A distillation from its settings to a student: the match, then the joint stage if there is one."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.training.checkpoints import load_training_checkpoint
from napari_uniultra.training.config import FineTuneConfig, ModelSettings
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.training.distillation.task import Distill
from napari_uniultra.training.ending import Ending
from napari_uniultra.training.events import Listener
from napari_uniultra.training.finetune import FineTune
from napari_uniultra.training.layout import CHECKPOINT, JOINT, MATCHED, MODEL, STUDENT
from napari_uniultra.training.peft_methods.settings import MethodSettings
from napari_uniultra.training.trainer import Trainer


class Ended(NamedTuple):
    """How a distillation ended: the last stage that ran, and why it ended."""

    trainer: Trainer
    reason: Ending

    @property
    def is_complete(self) -> bool:
        """Whether that stage came to its end."""
        return self.reason.is_complete


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
    began = time.monotonic()
    first = _fitted(Trainer(config, Distill(config), listeners=listeners, restart=restart))
    if not first.is_complete or not config.joint.steps:
        return first
    minutes = config.run.max_minutes and config.run.max_minutes - (time.monotonic() - began) / 60
    minutes = first.trainer.fabric.broadcast(minutes)  # all processes go on, or none
    late = first.trainer.late_stop or (Ending.TIME if minutes < 0 else None)
    if late:
        return Ended(first.trainer, late)
    second = _fitted(_joint_trainer(config, minutes, listeners))
    if second.is_complete and second.trainer.fabric.is_global_zero:
        with atomic_path(Path(config.output) / STUDENT) as path:
            shutil.copyfile(second.trainer.folder / MODEL, path)
    return second


def _joint_trainer(config: DistillConfig, minutes: float, listeners: Sequence[Listener]) -> Trainer:
    """Of the second stage, for so many minutes; it goes on with what began with this very student, or begins anew."""
    settings = joint_config(config)
    settings = replace(settings, run=replace(settings.run, max_minutes=minutes))
    folder, task = Path(settings.output), FineTune(settings)
    task.about["matched"] = _weights_sha256(folder.parent / MATCHED)
    restart = _began_with(folder) not in ("", task.about["matched"])
    return Trainer(settings, task, listeners=listeners, restart=restart, stage_of=folder.parent)


def _began_with(folder: Path) -> str:
    """The SHA-256 of the matched student's weights that the joint stage in a folder began with; "" if unknown."""
    if not (folder / CHECKPOINT).is_file():
        return ""
    return load_training_checkpoint(folder / CHECKPOINT).get("about", {}).get("matched", "")


def _weights_sha256(path: Path) -> str:
    """Of what follows a checkpoint's header, which safetensors orders anew each time it is written."""
    with open(path, "rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), os.SEEK_CUR)
        return hashlib.file_digest(file, "sha256").hexdigest()


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
