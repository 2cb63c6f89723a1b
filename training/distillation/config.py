"""A distillation as plain data, read from YAML."""

from __future__ import annotations

from dataclasses import dataclass

from napari_uniultra.core.settings import ConfigError, setting
from napari_uniultra.training.config import LossSettings, OptimiserSettings, RunSettings
from napari_uniultra.training.data.settings import DataSettings, PromptSettings
from napari_uniultra.training.distillation.settings import (
    JointSettings,
    MatchSettings,
    StudentSettings,
    TeacherSettings,
)


@dataclass(frozen=True)
class DistillConfig:
    """A distillation, as ``uniultra distill`` reads it."""

    output: str = setting(help="Folder for checkpoints, progress and the student.")
    teacher: TeacherSettings = setting(help="The model to learn from.")
    student: StudentSettings = setting(factory=StudentSettings, help="The model that learns.")
    match: MatchSettings = setting(factory=MatchSettings, help="What is to be alike.")
    joint: JointSettings = setting(factory=JointSettings, help="The stage with the mask loss that may follow.")
    data: DataSettings = setting(factory=DataSettings, help="What it learns from.")
    prompts: PromptSettings = setting(factory=PromptSettings, help="Prompts of the joint stage.")
    loss: LossSettings = setting(factory=LossSettings, help="Loss of the joint stage.")
    optimiser: OptimiserSettings = setting(factory=OptimiserSettings, help="How weights follow from gradients.")
    run: RunSettings = setting(factory=RunSettings, help="How long, where, and what is written when.")

    def __post_init__(self) -> None:
        if self.joint.steps and self.joint.memory == "trained" and not self.data.clip_share:
            raise ConfigError(
                "joint.memory is trained, and data.clip_share is 0",
                "only clips train the memory",
                "Raise data.clip_share, or set joint.memory to frozen",
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """The models that it begins with, by name or path."""
        return (self.teacher.checkpoint, *filter(None, [self.student.start]))

    @property
    def warnings(self) -> tuple[str, ...]:
        """None so far."""
        return ()
