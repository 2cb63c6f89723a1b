"""Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412): descend by the gradient at a worst neighbour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def worst_neighbour(parameters: Sequence[nn.Parameter], radius: float) -> Iterator[None]:
    """Within the block, the weights stand ``radius`` up their gradient (the paper's Eq. 2); then they are as before.

    Whatever happens in the block, the weights come back bit for bit. The gradients stay: clear them before computing
    those that count. A common factor of the gradients, such as fp16's loss scale, does not matter.

    Parameters
    ----------
    parameters : sequence of Parameter
        With their gradients; those without one stay where they are.
    radius : float
        rho of the paper: the Euclidean norm of the whole move.
    """
    moved = [parameter for parameter in parameters if parameter.grad is not None]
    with torch.no_grad():
        before = [parameter.detach().clone() for parameter in moved]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in moved])
        if torch.isfinite(norm) and norm > 0:
            for parameter in moved:
                parameter.add_(parameter.grad * (radius / norm))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(moved, before, strict=True):
                parameter.copy_(value)
