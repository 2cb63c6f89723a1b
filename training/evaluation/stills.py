"""Answers on single frames: the model's, and the ellipse inscribed in the same box."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from napari_uniultra.core.prompts import ellipse_in_box
from napari_uniultra.core.types import Prompt
from napari_uniultra.errors import UniUltraError
from napari_uniultra.model.preprocess import masks_at
from napari_uniultra.segment.fallback import run_with_fallback
from napari_uniultra.segment.predictor import Predictor
from napari_uniultra.segment.session import CineSession
from napari_uniultra.training.evaluation.answers import ERROR, IMAGE, FrameAnswer
from napari_uniultra.training.evaluation.cases import LabelledCase
from napari_uniultra.training.evaluation.prompts import drawn_prompt
from napari_uniultra.training.evaluation.settings import BOX, NONE, WITH_BOX, EvaluationSettings

MODEL, ELLIPSE = "model", "ellipse"


def asked(settings: EvaluationSettings) -> list[tuple[str, float]]:
    """The kinds of prompts with their jitter in px at 1024, each once; NaN where there is no box."""
    kinds = [(kind, settings.jitter if kind in WITH_BOX else float("nan")) for kind in dict.fromkeys(settings.prompts)]
    kinds += [(BOX, jitter) for jitter in settings.jitter_sweep if (BOX, jitter) not in kinds]
    return kinds


def still_answers(case: LabelledCase, settings: EvaluationSettings, model: Any = None) -> Iterator[FrameAnswer]:
    """Every annotated frame on its own, with each kind of prompt; without a model the ellipses alone."""
    segmenter = None if model is None else _Segmenter(case, model)
    for index in case.annotated:
        truth = case.truth(index)
        for kind, jitter in asked(settings):
            key = (case.name, case.numbers[index])
            drawn = {
                name: drawn_prompt(kind, mask, jitter, settings.seed, (*key, name)) for name, mask in truth.items()
            }
            if segmenter is not None and kind == NONE:
                yield segmenter.unprompted(index)
            elif segmenter is not None and drawn:
                yield segmenter.prompted(index, kind, drawn, jitter)
            if kind in WITH_BOX and drawn:
                ellipses = {name: ellipse_in_box(prompt.box, case.cine.shape_hw) for name, prompt in drawn.items()}
                yield FrameAnswer(ELLIPSE, kind, index, ellipses, drawn=drawn, jitter=jitter)


class _Segmenter:
    """The viewer's session on a case, asked for one object at a time and then made to forget it."""

    def __init__(self, case: LabelledCase, model: Any) -> None:
        self._case, self._session = case, CineSession(case.cine, model)

    def prompted(self, index: int, kind: str, drawn: dict[str, Prompt], jitter: float) -> FrameAnswer:
        """From what was drawn of every object."""
        masks, ious, failures = {}, {}, {}
        for name, prompt in drawn.items():
            try:
                step = self._session.set_prompt(1, index, prompt)
            except UniUltraError:
                failures[name] = ERROR
                continue
            masks[name], ious[name] = step.masks[1], step.predicted_iou[1]
            self._session.remove_object(1)
        return FrameAnswer(MODEL, kind, index, masks, ious, drawn, failures, jitter)

    def unprompted(self, index: int) -> FrameAnswer:
        """The paper's "no prompt": one mask for the whole image."""
        try:
            mask, iou = run_with_fallback(self._session, lambda: self._unconditioned(index), lambda _notice: None)
        except UniUltraError:
            return FrameAnswer(MODEL, NONE, index, {}, failures={IMAGE: ERROR})
        return FrameAnswer(MODEL, NONE, index, {IMAGE: mask}, {IMAGE: iou})

    def _unconditioned(self, index: int) -> tuple[np.ndarray, float]:
        frame, predictor = self._case.cine.frame(index), Predictor(self._session.model)
        embedding = predictor.embed(frame)
        answer = predictor.track(embedding, predictor.unconditioned(embedding))
        mask: np.ndarray = (masks_at(answer.logits, frame.shape[:2])[0] > 0).cpu().numpy()
        return mask, float(answer.predicted_iou[0])
