"""Teacher and student: what is loaded, and what the student takes over."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import ModelConfig, architecture
from napari_uniultra.model.fit import load_into
from napari_uniultra.training.base import Base, load_base
from napari_uniultra.training.config import ModelSettings
from napari_uniultra.training.distillation.settings import StudentSettings, TeacherSettings

_ENCODER = "image_encoder."
_ENCODER_FIELDS = (
    "embed_dim",
    "num_heads",
    "stages",
    "global_att_blocks",
    "window_spec",
    "window_pos_embed_bkg_spatial_size",
    "adapter",
)
_WIDTH_GROWTH = 8  # of Hiera: each of the three later stages is twice as wide as the one before


def load_teacher(settings: TeacherSettings) -> Base:
    """The teacher, frozen, in evaluation mode, on the CPU.

    Raises
    ------
    CheckpointError
        When there is none of that name, or it is damaged.
    """
    teacher = load_base(ModelSettings(base=settings.checkpoint))
    teacher.network.requires_grad_(False).eval()
    return teacher


def student_config(settings: StudentSettings, teacher: ModelConfig) -> ModelConfig:
    """The student's configuration: its own image encoder and input size, and the rest as the teacher has it."""
    encoder = architecture(settings.architecture, embed_dim=settings.embedding // _WIDTH_GROWTH)
    return teacher.with_(
        image_size=settings.image_size, **{name: getattr(encoder, name) for name in ("architecture", *_ENCODER_FIELDS)}
    )


def build_student(config: ModelConfig, settings: StudentSettings, teacher: nn.Module, seed: int = 0) -> nn.Module:
    """A student with the teacher's prompt encoder, mask decoder and memory.

    Its image encoder is ``settings.start``'s, or random by ``seed``. It alone is trained.

    Raises
    ------
    CheckpointError
        When the starting weights are not those of such an image encoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(config)
    state = network.state_dict()
    state.update(_part(teacher.state_dict(), of_encoder=False))
    if settings.start is not None:
        state.update(_started(settings.start, network))
    load_into(network, state)
    network.requires_grad_(False)
    network.image_encoder.requires_grad_(True)
    return network


def _started(start: str, network: nn.Module) -> dict[str, Tensor]:
    found = _part(load_base(ModelSettings(base=start)).network.state_dict(), of_encoder=True)
    wanted = _part(network.state_dict(), of_encoder=True)
    if {name: value.shape for name, value in found.items()} != {name: value.shape for name, value in wanted.items()}:
        raise CheckpointError(
            f"The student cannot start with {start}",
            "its image encoder is of another width, depth or kind",
            "Choose student.architecture and student.embedding as that model has them, or leave student.start out",
        )
    return found


def _part(state: Mapping[str, Tensor], of_encoder: bool) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.startswith(_ENCODER) == of_encoder}
