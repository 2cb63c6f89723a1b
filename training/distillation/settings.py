"""The settings that only a distillation has."""

from __future__ import annotations

from dataclasses import dataclass

from napari_uniultra.core.settings import ConfigError, setting
from napari_uniultra.training.distillation.taps import STAGES, TERMS, feature_names


@dataclass(frozen=True)
class TeacherSettings:
    """The model to learn from; it stays as it is."""

    checkpoint: str = setting(help="A model's name or a checkpoint's path; the paper's teacher is UniUltra-L.")
    image_size: int | None = setting(
        None, low=64, high=4096, help="Side of the teacher's input in pixels; empty for the student's."
    )
    precision: str = setting(
        "bf16", choices=("fp32", "bf16", "fp16"), help="Precision of the teacher on a GPU; on a CPU it is fp32."
    )


@dataclass(frozen=True)
class StudentSettings:
    """The model that learns. Prompt encoder, mask decoder and memory are the teacher's."""

    architecture: str = setting("uniultra-mini", help="A name of the zoo; `uniultra weights list` shows some.")
    embedding: int = setting(
        128, low=64, high=4096, help="Channels of the encoder's last stage, a multiple of 8 (Fig. 5: 640 to 128)."
    )
    image_size: int = setting(512, low=64, high=4096, help="Side of the input in pixels, a multiple of 32.")
    start: str | None = setting(
        None, help="A model's name or a checkpoint's path whose image encoder the student starts with."
    )

    def __post_init__(self) -> None:
        if self.embedding % 8:
            raise ConfigError(
                f"student.embedding is {self.embedding}",
                "each of the three later stages doubles it",
                "Choose a multiple of 8",
            )


@dataclass(frozen=True)
class MatchSettings:
    """What of the student's image encoder is to be like the teacher's."""

    integration: bool = setting(True, help="Match blocks with their adapters (D1 of Eq. 4).")
    hiera: bool = setting(True, help="Match blocks without their adapters (D2 of Eq. 4).")
    adapter: bool = setting(True, help="Match adapters alone (D3 of Eq. 4).")
    stages: tuple[int, ...] = setting(
        (1, 2, 3), choices=STAGES, help="The stages, from fine to coarse, at which they are matched (Table X)."
    )
    fpn_levels: tuple[int, ...] = setting(
        STAGES, choices=STAGES, help="Levels of the neck, from fine to coarse, to match as the released code does."
    )
    stage_weight: float = setting(1.0, low=0, help="Weight of Eq. 4.")
    fpn_weight: float = setting(1.0, low=0, help="Weight of the neck's match.")
    normalise: bool = setting(
        False, help="Divide features by the teacher's root mean square, so that all stages count alike."
    )

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError(
                "Nothing is to be matched",
                "every term of Eq. 4 and every level of the neck is off",
                "Switch on match.integration, match.hiera or match.adapter at a stage, or name match.fpn_levels",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features to match."""
        return feature_names([term for term in TERMS if getattr(self, term)], self.stages, self.fpn_levels)


@dataclass(frozen=True)
class JointSettings:
    """The stage after it, that tunes the whole student with the mask loss."""

    steps: int = setting(0, low=0, help="Steps of the joint stage; 0 for none.")
    learning_rate: float = setting(1e-4, low=0, high=1, help="Its highest learning rate.")
    memory: str = setting("frozen", choices=("frozen", "trained"), help="Whether it trains the memory; clips need it.")
