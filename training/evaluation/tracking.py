"""Answers on the frames of a loop, tracked from one box for each object on the first annotated frame that shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from napari_uniultra.core.types import Prompt, Step
from napari_uniultra.errors import UniUltraError
from napari_uniultra.segment.session import CineSession
from napari_uniultra.training.evaluation.answers import ERROR, FrameAnswer
from napari_uniultra.training.evaluation.cases import LabelledCase
from napari_uniultra.training.evaluation.prompts import drawn_prompt
from napari_uniultra.training.evaluation.settings import BOX, EvaluationSettings
from napari_uniultra.training.evaluation.stills import MODEL

TRACKED, CORRECTED = "tracked", "tracked, 1 in 10 corrected"
_CORRECT_EVERY = 10  # annotated frames


def tracked_answers(
    case: LabelledCase, settings: EvaluationSettings, model: Any, corrected: bool = False
) -> Iterator[FrameAnswer]:
    """Annotated frames after each object's first one, as tracking goes forward.

    With ``corrected``, every tenth annotated frame is made right (the truth is given as a mask) when tracking has
    reached it, and tracking goes on from there; frames that came before are not tracked again. An object is not scored
    on a frame with a prompt of its own. A loop too short for a correction has no answers then.
    """
    if not case.starts:
        return
    first = min(case.starts.values())
    later = [index for index in case.annotated if index > first]
    corrections = later[_CORRECT_EVERY - 1 :: _CORRECT_EVERY] if corrected else []
    if corrected and not corrections:
        return
    prompt, last_prompt, scored = (CORRECTED if corrected else TRACKED), first, first
    to_score = [index for index in later if index not in corrections]
    try:
        for step, last_prompt in _steps(case, settings, model, corrections):
            if step.frame in to_score:
                since = case.numbers[step.frame] - case.numbers[last_prompt]
                numbers = _tracked(case, step.frame)
                masks = {name: step.masks[number] for name, number in numbers.items()}
                ious = {name: step.predicted_iou[number] for name, number in numbers.items()}
                scored = step.frame
                yield FrameAnswer(MODEL, prompt, step.frame, masks, ious, since_prompt=since)
    except UniUltraError:
        for index in (index for index in to_score if index > scored):
            since = case.numbers[index] - case.numbers[last_prompt]
            failures = dict.fromkeys(_tracked(case, index), ERROR)
            yield FrameAnswer(MODEL, prompt, index, {}, failures=failures, since_prompt=since)


def _tracked(case: LabelledCase, index: int) -> dict[str, int]:
    """The objects that are tracked to a frame, as they were first seen before it, and their numbers in the session."""
    return {name: number for number, (name, start) in enumerate(case.starts.items(), 1) if start < index}


def _steps(
    case: LabelledCase, settings: EvaluationSettings, model: Any, corrections: Sequence[int]
) -> Iterator[tuple[Step, int]]:
    """Each finished frame, with the position of the last frame before it that had a prompt."""
    session = CineSession(case.cine, model)
    session.zoom = settings.zoom
    prompted = sorted({*case.starts.values(), *corrections})
    for start, following in pairwise([*prompted, len(case.cine)]):
        for name, prompt in _prompts(case, settings, start, is_correction=start in corrections).items():
            session.set_prompt(list(case.starts).index(name) + 1, start, prompt)
        for step in session.propagate("forward", start=start, stop=following - 1):
            yield step, start


def _prompts(case: LabelledCase, settings: EvaluationSettings, index: int, *, is_correction: bool) -> dict[str, Prompt]:
    """What is given on a frame: the truth of all objects as a correction, else a box for each that starts there."""
    truth = case.truth(index)
    if is_correction:
        return {name: Prompt(mask=mask) for name, mask in truth.items()}
    key = case.name, case.numbers[index]
    return {
        name: drawn_prompt(BOX, mask, settings.jitter, settings.seed, (*key, name))
        for name, mask in truth.items()
        if case.starts[name] == index
    }
