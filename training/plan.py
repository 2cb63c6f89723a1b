"""What a run will do, before it is started: what is trained, on what, for how long, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_uniultra.core.words import counted
from napari_uniultra.errors import UniUltraError
from napari_uniultra.training.data.cases import PARTS, Case, OpenCase
from napari_uniultra.training.data.importers import open_manifests
from napari_uniultra.training.data.overlap import same_subjects
from napari_uniultra.training.data.settings import DataSettings

if TYPE_CHECKING:
    from napari_uniultra.training.trainer import Trainer

_LOOKED_AT = 60  # cases of a part whose masks are read
_TRIED_CASES = 3  # of a validation that is tried
_FEW_SUBJECTS, _FEW_FRAMES = 3, 20
_LONG_S = 24 * 3600.0
_MB = 1 << 20


@dataclass(frozen=True)
class PartCount:
    """How much of the data a part of the split holds.

    Attributes
    ----------
    part : str
        ``train``, ``val``, ``test``, or "" for cases in none.
    subjects, cases, frames : int
        Frames are the annotated ones.
    unreadable : int
        Cases that cannot be opened; a run leaves them out.
    """

    part: str
    subjects: int
    cases: int
    frames: int
    unreadable: int


@dataclass(frozen=True)
class Plan:
    """What a run will be like on this machine.

    Attributes
    ----------
    parts : tuple of PartCount
    trained, parameters : int
        Parameters that are trained, and all of the network.
    steps : int
        That are left.
    step_seconds : float
        Of one of them.
    seconds : float
        For all of them, validations included, as far as trying a few says.
    memory_mb, free_mb : float
        What the run takes at its largest, and what there is: of the graphics card, else of the computer.
    device : str
        In words.
    gpus : int
        NVIDIA cards of this computer.
    warnings : tuple of str
        What a person should know before the run begins, in words.
    """

    parts: tuple[PartCount, ...]
    trained: int
    parameters: int
    steps: int
    step_seconds: float
    seconds: float
    memory_mb: float
    free_mb: float
    device: str
    gpus: int
    warnings: tuple[str, ...]


def make_plan(trainer: Trainer) -> Plan:
    """Look at the data and try a few steps. The trainer's weights change, and nothing is written.

    Raises
    ------
    ReadError
        When the data cannot be used.
    ResourceError
        When there is not enough memory.
    """
    import torch

    from napari_uniultra.training.peft_methods.method import trainable_parameters

    config = trainer.config
    parts = tuple(count_parts(config.data)) if config.data.manifests else ()
    trained, share = trainable_parameters(trainer.network)
    steps = max(config.run.steps - trainer.step, 0)
    free_mb = _free_mb(trainer)  # before it is taken
    step_seconds = trainer.measure() if steps else 0.0
    seconds = steps * step_seconds + (_validation_seconds(trainer, parts, steps) if steps else 0.0)
    memory_mb = _memory_mb(trainer)
    warnings = [*config.warnings, *_data_warnings(config.data, parts, bool(config.run.validate_every))]
    if memory_mb > free_mb:
        warnings.append(
            f"Memory may run out: about {memory_mb / 1024:.1f} GB are needed, {free_mb / 1024:.1f} GB are free."
        )
    if seconds > _LONG_S:
        warnings.append(f"This takes about {seconds / 3600:.0f} hours here. Fewer steps or a smaller input take less.")
    return Plan(
        parts=parts,
        trained=trained,
        parameters=round(trained / share) if share else 0,
        steps=steps,
        step_seconds=step_seconds,
        seconds=seconds,
        memory_mb=memory_mb,
        free_mb=free_mb,
        device=trainer.device_name,
        gpus=torch.cuda.device_count(),
        warnings=tuple(warnings),
    )


def count_parts(data: DataSettings) -> list[PartCount]:
    """Subjects, cases and annotated frames of each part that holds any.

    Raises
    ------
    ReadError
        When a manifest cannot be used.
    """
    manifest = open_manifests(data.manifests)
    parts = [(part, manifest.part(part)) for part in (*PARTS, "")]
    return [_count(part, cases) for part, cases in parts if cases]


def _count(part: str, cases: tuple[Case, ...]) -> PartCount:
    frames = list(_frames(cases))
    subjects = len({case.group for case in cases})
    return PartCount(part, subjects, len(cases), sum(frames), frames.count(0))


def _frames(cases: tuple[Case, ...]) -> Iterator[int]:
    """Annotated frames of each case; 0 for one that cannot be opened."""
    for case in cases:
        try:
            yield len(OpenCase(case).frames)
        except UniUltraError:
            yield 0


def _data_warnings(data: DataSettings, parts: tuple[PartCount, ...], validates: bool) -> Iterator[str]:
    """What of the data makes for a poor result, or for one that looks better than it is."""
    if not data.manifests:
        return
    by_part = {part.part: part for part in parts}
    train, val = by_part.get("train"), by_part.get("val")
    if train is None:
        yield "No case is in the train part: there is nothing to learn from."
    elif train.subjects < _FEW_SUBJECTS or train.frames < _FEW_FRAMES:
        seen = f"{counted(train.frames, 'annotated frame')} of {counted(train.subjects, 'subject')}"
        yield f"Little to learn from ({seen}): the model may suit these loops and no others."
    if val is None and validates:
        yield "No case is in the val part: nothing will show whether the model gets better."
    elif val is not None and val.subjects < 2:
        yield "Validation looks at a single subject: its Dice says little of others."
    for part in parts:
        if part.unreadable:
            cases = counted(part.cases, "case")
            yield f"{part.unreadable:,} of {cases} of the {part.part or 'undivided'} part cannot be read."
    manifest = open_manifests(data.manifests)
    cases = [case for case in manifest.cases if case.part in ("train", "val")]
    if cases and not any(case.subject for case in cases):
        yield "No subject is named: images of one person may be in two parts, and Dice then looks better than it is."
    yield from same_subjects(cases)
    for part in ("train", "val"):
        if part in by_part and _is_empty(manifest.part(part)):
            yield f"All masks of the {part} part that were looked at are empty, or cannot be read."


def _is_empty(cases: tuple[Case, ...]) -> bool:
    """Whether no mask of a part shows a structure; of a large part, some cases stand for all."""
    for case in cases[:: max(len(cases) // _LOOKED_AT, 1)]:
        opened = OpenCase(case)
        try:
            if any(len(opened.annotated(frame).masks) for frame in opened.frames):
                return False
        except UniUltraError:
            continue
    return True


def _validation_seconds(trainer: Trainer, parts: tuple[PartCount, ...], steps: int) -> float:
    """For the validations before, between and after the steps."""
    every = trainer.config.run.validate_every
    cases = min(sum(part.cases for part in parts if part.part == "val"), trainer.config.run.validation_cases)
    if not (every and cases):
        return 0.0
    tried = min(cases, _TRIED_CASES)
    took = trainer.measure_validation(replace(trainer.config.run, validation_cases=tried, overlays=0))
    return (steps // every + 1) * took * cases / tried


def _memory_mb(trainer: Trainer) -> float:
    """The most that was taken so far, by the run and the processes that prepare its data."""
    import torch

    if trainer.fabric.device.type == "cuda":
        return torch.cuda.max_memory_reserved(trainer.fabric.device) / _MB
    import psutil

    own = psutil.Process()
    memory = own.memory_info()
    peak = getattr(memory, "peak_wset", 0) or _peak_bytes()
    children = 0
    for child in own.children(recursive=True):
        try:
            children += child.memory_info().rss
        except psutil.Error:
            continue
    return (max(peak, memory.rss) + children) / _MB


def _peak_bytes() -> int:
    """The largest resident size of this process so far; 0 where the system does not tell."""
    import sys

    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _free_mb(trainer: Trainer) -> float:
    """What a run could take: what is free now, and what this process has taken so far."""
    import torch

    if trainer.fabric.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(trainer.fabric.device)
        return (free + torch.cuda.memory_reserved(trainer.fabric.device)) / _MB
    import psutil

    return (psutil.virtual_memory().available + psutil.Process().memory_info().rss) / _MB
