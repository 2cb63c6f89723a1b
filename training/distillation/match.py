"""Eq. 4: a student's features, through necks, against its teacher's."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_uniultra.training.distillation.taps import encode, feature_width

_EPS = 1e-6


def make_neck(student_width: int, teacher_width: int) -> nn.Module:
    """The adaptation between two widths (Section III-C): a 3 x 3 and a 1 x 1 convolution, (B, Ds, h, w) to
    (B, Dt, h, w)."""
    return nn.Sequential(
        nn.Conv2d(student_width, teacher_width, kernel_size=3, padding=1),
        nn.Conv2d(teacher_width, teacher_width, kernel_size=1),
    )


class Distiller(nn.Module):
    """A student with the necks that bring its features to its teacher's widths.

    The necks serve the training only. The neck's maps of student and teacher are equally wide and need none.

    Parameters
    ----------
    student : SAM2Base
    teacher_encoder : ImageEncoder
        For the widths; it is not kept.
    names : collection of str
        The features to match, as `feature_names` gives them.
    """

    def __init__(self, student: nn.Module, teacher_encoder: nn.Module, names: Collection[str]) -> None:
        super().__init__()
        self.student = student
        self.names = tuple(names)
        self.necks = nn.ModuleDict(
            {
                name: make_neck(feature_width(student.image_encoder, name), feature_width(teacher_encoder, name))
                for name in self.names
                if not name.startswith("fpn")
            }
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, S, S) to the student's features at the teacher's widths, (B, D, h, w) each."""
        features = encode(self.student.image_encoder, images, self.names)
        return {name: self.necks[name](value) if name in self.necks else value for name, value in features.items()}


def match_losses(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], normalise: bool = False
) -> dict[str, Tensor]:
    """The squared differences of Eq. 4, one by one, in float32.

    Each is the mean over all elements, as in the released code: with the sum that Eq. 4 writes, the finest stage would
    weigh 16 times as much as the third for its size alone.

    Parameters
    ----------
    student, teacher : mapping of str to Tensor
        Features of the same names and widths, (B, D, h, w). A teacher's of another size are averaged to the student's.
    normalise : bool
        Divide both by the root mean square of the teacher's, so that stages of small values count as much as others.
    """
    losses = {}
    for name, own in student.items():
        goal = teacher[name].float()
        if goal.shape[-2:] != own.shape[-2:]:
            goal = F.interpolate(goal, own.shape[-2:], mode="area")
        loss = (own.float() - goal).square().mean()
        losses[name] = loss / goal.square().mean().clamp(min=_EPS) if normalise else loss
    return losses


def weighted_sum(losses: Mapping[str, Tensor], stage_weight: float, fpn_weight: float) -> Tensor:
    """One loss of all: the sum over the stages' features, and that over the neck's maps, with a weight each."""
    weights = [fpn_weight if name.startswith("fpn") else stage_weight for name in losses]
    return torch.stack([weight * loss for weight, loss in zip(weights, losses.values(), strict=True)]).sum()
