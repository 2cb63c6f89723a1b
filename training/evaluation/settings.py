"""What an evaluation asks, how it scores, and what enters its means."""

from __future__ import annotations

from dataclasses import dataclass, replace

from napari_uniultra.core.settings import setting

NONE, POINT, THREE_POINTS, BOX, BOX_POINT = "none", "point", "3points", "box", "box+point"
PROMPTS = (NONE, POINT, THREE_POINTS, BOX, BOX_POINT)  # the rows of the paper's Table IX
WITH_BOX = (BOX, BOX_POINT)
JITTER_AT = 1024  # the image's side that jitter in pixels refers to, as in the paper
SWEEP = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0)


@dataclass(frozen=True)
class EvaluationSettings:
    """One evaluation; the defaults score in the image's own pixels and drop nothing."""

    part: str = setting("val", help="Part of the data to score; 'all' takes every case.")
    prompts: tuple[str, ...] = setting((BOX,), choices=PROMPTS, help="Kinds of prompts on single frames.")
    jitter: float = setting(20.0, low=0, high=512, help="How far a box's side moves outwards at most, in px at 1024.")
    jitter_sweep: tuple[float, ...] = setting(
        (), low=0, high=512, help="Further jitters to score boxes with, in px at 1024."
    )
    stills: bool = setting(True, help="Score every annotated frame on its own.")
    tracking: bool = setting(True, help="Track through loops, each object from a box on the first frame that shows it.")
    corrections: bool = setting(False, help="Also track with every tenth annotated frame corrected.")
    every: int = setting(1, low=1, help="Track through every n-th frame of a loop, and the annotated ones.")
    image_size: int | None = setting(None, low=64, help="The network's input size in px; empty for the model's own.")
    zoom: bool | None = setting(
        None, help="Track small structures in close views that follow them; empty for as the model was trained."
    )
    canvas: int | None = setting(
        None, low=32, help="Stretch images and truths to a square of this many px before anything else."
    )
    smooth: float = setting(0.0, low=0, help="Added to both sides of the fractions Dice and IoU.")
    drop_infinite: bool = setting(
        False, help="Leave infinite distances out of the means; else the image's diagonal stands in for them."
    )
    tolerance_px: float = setting(2.0, low=0, help="Tolerance of NSD in px.")
    tolerance_mm: float = setting(1.0, low=0, help="Tolerance of NSD in mm.")
    resamples: int = setting(2000, low=100, help="Resamples of the bootstrap.")
    pictures: int = setting(4, low=0, high=50, help="Best and worst cases to picture for each data set; 0 for none.")
    seed: int = setting(0, low=0, help="Decides every box, click and resample.")

    def as_paper(self) -> EvaluationSettings:
        """With the paper's conventions: images, truths and input at 1024 px, smooth 1, infinite distances dropped.

        A box's sides are jittered by 0 to 20 px, as its text says. It scores images, not loops.
        """
        size = self.image_size or JITTER_AT
        return replace(self, canvas=JITTER_AT, image_size=size, smooth=1.0, drop_infinite=True, tracking=False)
