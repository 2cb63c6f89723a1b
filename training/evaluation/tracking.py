"""Answers on the frames of a loop, tracked from one box on the first annotated frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Annotated frames after the first one, as tracking goes forward.

    With ``corrected``, every tenth annotated frame is made right (the truth is given as a mask) when tracking has
    reached it, and tracking goes on from there; frames that came before are not tracked again. Frames with a prompt
    are not scored. A loop too short for a correction has no answers then.
    """
    first, *others = case.annotated
    corrections = others[_CORRECT_EVERY - 1 :: _CORRECT_EVERY] if corrected else []
    names = list(case.truth(first))
    if not names or (corrected and not corrections):  # nothing to draw a box around, or to correct
        return
    prompt, last_prompt, scored = (CORRECTED if corrected else TRACKED), first, set()
    try:
        for step, last_prompt in _steps(case, settings, model, names, corrections):
            if step.frame in others and step.frame not in corrections:
                since = case.numbers[step.frame] - case.numbers[last_prompt]
                masks = {name: step.masks[number] for number, name in enumerate(names, 1)}
                ious = {name: step.predicted_iou[number] for number, name in enumerate(names, 1)}
                scored.add(step.frame)
                yield FrameAnswer(MODEL, prompt, step.frame, masks, ious, since_prompt=since)
    except UniUltraError:
        for index in others:
            if index not in scored and index not in corrections:
                since = case.numbers[index] - case.numbers[last_prompt]
                yield FrameAnswer(MODEL, prompt, index, {}, failures=dict.fromkeys(names, ERROR), since_prompt=since)


def _steps(
    case: LabelledCase, settings: EvaluationSettings, model: Any, names: Sequence[str], corrections: Sequence[int]
) -> Iterator[tuple[Step, int]]:
    """Each finished frame, with the position of the last frame before it that had a prompt."""
    session = CineSession(case.cine, model)
    session.zoom = settings.zoom
    start, truth = case.annotated[0], case.truth(case.annotated[0])
    for number, name in enumerate(names, 1):
        key = (case.name, case.numbers[start], name)
        session.set_prompt(number, start, drawn_prompt(BOX, truth[name], settings.jitter, settings.seed, key))
    for correction in corrections:
        for step in session.propagate("forward", start=start, stop=correction - 1):
            yield step, start
        start, truth = correction, case.truth(correction)
        for number, name in enumerate(names, 1):
            if name in truth:
                session.set_prompt(number, start, Prompt(mask=truth[name]))
    for step in session.propagate("forward", start=start):
        yield step, start
