"""What a table will take, before anything is trained: runs, parameters, and about how long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from napari_uniultra.core.duration import duration
from napari_uniultra.model.device import choose_device
from napari_uniultra.training.ablation.cost import count_operations
from napari_uniultra.training.ablation.make import Workshop
from napari_uniultra.training.ablation.plan import Asked, Plan, plan_row, plans_of
from napari_uniultra.training.ablation.presets import TableSettings
from napari_uniultra.training.ablation.scores import chosen_sets
from napari_uniultra.training.ablation.shapes import Counts, count_parameters, untrained
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.training.evaluation.tables import markdown

_SIDE = 1024  # of the matrices that are multiplied to see how fast the device is
_REACHED = 0.3  # the share of that speed that trainings were seen to reach, roughly
_BACKWARD = 3  # a step costs about as much as three forward passes
_HEADS = ["row", "model", "kind", "steps", "trained, M", "all, M", "trained, %", "time, about", "state"]


@dataclass(frozen=True)
class Estimate:
    """One model of a table.

    Attributes
    ----------
    plan : Plan
    counts : Counts
    steps : int
    seconds : float
        For its training, or what is not certain of it: everything.
    is_made : bool
    """

    plan: Plan
    counts: Counts
    steps: int
    seconds: float
    is_made: bool


def estimate_table(table: TableSettings, asked: Asked, workshop: Workshop) -> list[Estimate]:
    """Every model that a table needs, teachers among them; nothing is trained.

    Raises
    ------
    UniUltraError
        When the settings do not fit together.
    """
    rate = _REACHED * multiplications_per_second(choose_device(asked.device))
    return [_estimate(plan, rate, workshop) for plan in plans_of(table, asked)]


def multiplications_per_second(device: torch.device, seconds: float = 0.2) -> float:
    """How many multiply-accumulates a second large matrices reach here."""
    left = torch.rand(_SIDE, _SIDE, device=device)
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or count < 2:
        (left @ left)[0, 0].item()  # waits for a GPU
        count += 1
    return count * _SIDE**3 / passed


def describe(estimates: Sequence[Estimate], table: TableSettings, asked: Asked) -> str:
    """As text: a Markdown table, what is shared, and what is scored."""
    labels = _labels(table, asked)
    cells = [
        [
            ", ".join(labels.get(own.plan.fingerprint, ["(teacher)"])),
            own.plan.folder,
            own.plan.kind,
            str(own.steps),
            f"{own.counts.trained / 1e6:.2f}",
            f"{own.counts.total / 1e6:.2f}",
            f"{100 * own.counts.share:.2f}",
            "-" if own.is_made else duration(own.seconds),
            "finished" if own.is_made else "to do",
        ]
        for own in estimates
    ]
    left = sum(own.seconds for own in estimates if not own.is_made)
    lines = [table.title, "", markdown(_HEADS, cells), "", f"In all about {duration(left)}, for training alone."]
    if table.metrics:
        sets = chosen_sets(table.data_sets, asked)
        listed = ", ".join(f"{name} ({len(cases)})" for name, cases in sets.items())
        lines.append(f"Scored on the part {asked.part!r}: {listed}.")
    return "\n".join(lines)


def _estimate(plan: Plan, rate: float, workshop: Workshop) -> Estimate:
    counts, run = count_parameters(plan), plan.settings.run
    if plan.kind == "base":
        return Estimate(plan, counts, 0, 0.0, True)
    frames = plan.settings.data.batch * run.accumulate
    work = _BACKWARD * _operations(plan)
    steps = run.steps
    if isinstance(plan.settings, DistillConfig):
        steps += plan.settings.joint.steps
        work += _operations(plan.teacher)
    return Estimate(plan, counts, steps, steps * frames * work / rate, workshop.is_made(plan))


def _labels(table: TableSettings, asked: Asked) -> dict[str, list[str]]:
    """The rows of each model, by its fingerprint."""
    found: dict[str, list[str]] = {}
    for row in table.rows:
        plan = plan_row(row, asked)
        if plan is not None:
            found.setdefault(plan.fingerprint, []).append(row.label)
    return found


def _operations(plan: Plan) -> int:
    """Without a method's parts: they add little, and a gate between experts cannot be counted without values."""
    return count_operations(untrained(plan, with_values=False, with_method=False))[0]
