"""Small pictures of the best and the worst answers: the image with the outlines of the truth and of what was found."""

from __future__ import annotations

import heapq
import io
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from PIL import Image

from napari_uniultra.core.metrics import boundary
from napari_uniultra.core.palette import colour_of
from napari_uniultra.training.data.cases import grey
from napari_uniultra.training.evaluation.answers import IMAGE, FrameAnswer
from napari_uniultra.training.evaluation.cases import LabelledCase
from napari_uniultra.training.evaluation.scores import Score
from napari_uniultra.training.evaluation.stills import ELLIPSE

TRUTH_COLOUR, FOUND_COLOUR = colour_of(2), colour_of(1)
_WIDTH = 300  # pixels
_BOX_COLOUR = (255, 255, 255)


@dataclass(frozen=True)
class Picture:
    """One answer on one frame.

    Attributes
    ----------
    score : Score
        Of the image as a whole.
    png : bytes
    """

    score: Score
    png: bytes


class Gallery:
    """Keeps the ``count`` worst and best answers of each data set, kind of prompt and method, as pictures."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._kept: dict[tuple[str, str, str, bool], list[tuple]] = defaultdict(list)

    def offer(self, case: LabelledCase, answer: FrameAnswer, score: Score, jitter: float) -> None:
        """Keep an answer if it is among the worst or best; boxes of another jitter and the ellipses are left out."""
        if not self.count or answer.method == ELLIPSE or not (math.isnan(score.jitter) or score.jitter == jitter):
            return
        png = b""
        for is_worst in (True, False):
            kept = self._kept[score.data_set, score.prompt, score.method, is_worst]
            # The heap's first is the one to give up; names decide between equals, so that the order does not.
            rank = (-score.dice if is_worst else score.dice, score.case, score.frame)
            if len(kept) == self.count and rank <= kept[0][0]:
                continue
            png = png or draw(case, answer)
            (heapq.heappushpop if len(kept) == self.count else heapq.heappush)(kept, (rank, Picture(score, png)))

    def pictures(self) -> dict[tuple[str, str, str], tuple[list[Picture], list[Picture]]]:
        """(data set, prompt, method) to the worst, worst first, and the best, best first; none is in both."""
        found = {}
        for data_set, prompt, method in dict.fromkeys(key[:3] for key in self._kept):
            worst, best = (
                [picture for _, picture in sorted(self._kept[data_set, prompt, method, is_worst], reverse=True)]
                for is_worst in (True, False)
            )
            shown = {(picture.score.case, picture.score.frame) for picture in worst}
            best = [picture for picture in best if (picture.score.case, picture.score.frame) not in shown]
            found[data_set, prompt, method] = worst, best
        return found


def draw(case: LabelledCase, answer: FrameAnswer) -> bytes:
    """A PNG of the frame with the outlines of the truth and of the answer over it, and the boxes that were drawn."""
    image = grey(case.cine.frame(answer.index))
    height, width = image.shape
    row_mm, column_mm = case.spacing_mm or (1.0, 1.0)
    size = (_WIDTH, max(1, round(_WIDTH * height * row_mm / (width * column_mm))))
    picture = np.repeat(np.asarray(Image.fromarray(image).resize(size))[..., None], 3, axis=2)
    for prompt in answer.drawn.values():
        if prompt.box is not None:
            _outline_box(picture, np.array(prompt.box) * ((size[0] / width, size[1] / height) * 2))
    found = [answer.masks[IMAGE]] if IMAGE in answer.masks else list(answer.masks.values())
    for masks, colour in ((case.truth(answer.index).values(), TRUTH_COLOUR), (found, FOUND_COLOUR)):
        for mask in masks:  # outlines are drawn after shrinking, or they vanish
            picture[boundary(np.asarray(Image.fromarray(mask).resize(size)))] = colour
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def _outline_box(picture: np.ndarray, box: np.ndarray) -> None:
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = np.clip(box.astype(int), 0, [width - 1, height - 1, width - 1, height - 1])
    picture[[y0, y1], x0 : x1 + 1 : 3] = _BOX_COLOUR  # dotted
    picture[y0 : y1 + 1 : 3, [x0, x1]] = _BOX_COLOUR
