"""Ours and the official predictor behind one face, on the same weights and the very same frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from typing import Any, Protocol

import numpy as np
import torch

from napari_uniultra.core.types import Box, Cine
from napari_uniultra.model.build import network_arguments
from napari_uniultra.model.preprocess import prepare_images
from napari_uniultra.segment.session import CineSession


class Contender(Protocol):
    """What is timed."""

    name: str

    def open(self, frames: np.ndarray) -> None:
        """Begin with a loop (T, H, W) uint8."""

    def embed(self, frame: int) -> None:
        """Embed a frame anew."""

    def box(self, object_id: int, frame: int, box: Box) -> np.ndarray:
        """A box to a mask (H, W) bool."""

    def propagate(self) -> Any:
        """Iterate over the loop, one finished frame at a time: (frame, {object id: (H, W) bool})."""


class Ours:
    """`CineSession` with its default settings, on whole frames, as sam2 sees them."""

    name = "napari-uniultra"

    closely = False

    def __init__(self, model: Any) -> None:
        self._model = replace(model, config=model.config.with_(close_views=self.closely))

    def open(self, frames: np.ndarray) -> None:
        self.session = CineSession(Cine(frames), self._model)

    def embed(self, frame: int) -> None:
        self.session.free_memory()
        self.session.embed(frame)

    def box(self, object_id: int, frame: int, box: Box) -> np.ndarray:
        self.session.set_prompt(object_id, frame, None)
        return self.session.add_box(object_id, frame, box).masks[object_id]

    def propagate(self) -> Any:
        for step in self.session.propagate():
            yield step.frame, step.masks


class OursClosely(Ours):
    """The same in close-ups."""

    name = "napari-uniultra, close-ups"
    closely = True


# As `CineSession` does it: a corrected frame conditions the others.
_OPTIONS = dict(add_all_frames_to_correct_as_cond=True)


class Official:
    """sam2's ``SAM2VideoPredictor``, which is given frames that are prepared as ours are, from memory."""

    name = "sam2"

    def __init__(self, model: Any) -> None:
        from sam2.sam2_video_predictor import SAM2VideoPredictor

        self._prepare(SAM2VideoPredictor(**network_arguments(model.config), **_OPTIONS), model)

    def _prepare(self, predictor: Any, model: Any) -> None:
        # The official code would compute with the adapters' trunk, which is ours; the rest is sam2's.
        self._predictor, self._size = predictor, model.config.image_size
        self._predictor.load_state_dict(model.network.state_dict())
        self._predictor.eval().to(model.device)

    def open(self, frames: np.ndarray) -> None:
        with _frames_from_memory(frames, self._size):
            self.state = self._predictor.init_state(video_path="")

    def embed(self, frame: int) -> None:
        self.state["cached_features"].clear()
        with torch.inference_mode():
            self._predictor._get_image_feature(self.state, frame, 1)

    def box(self, object_id: int, frame: int, box: Box) -> np.ndarray:
        _, ids, masks = self._predictor.add_new_points_or_box(self.state, frame, object_id, box=np.array(box))
        return (masks[ids.index(object_id), 0] > 0).cpu().numpy()

    def propagate(self) -> Any:
        steps = self._predictor.propagate_in_video(self.state)
        for frame, ids, masks in _each_within(steps, lambda: redirect_stderr(StringIO())):  # its progress bar
            yield frame, {i: (masks[n, 0] > 0).cpu().numpy() for n, i in enumerate(ids)}


class OfficialOptimised(Official):
    """sam2 as its ``vos_optimized=True`` and its own benchmark have it: compiled, in bfloat16, with TF32 on a GPU."""

    name = "sam2, vos_optimized"

    def __init__(self, model: Any) -> None:
        from sam2.sam2_video_predictor import SAM2VideoPredictorVOS

        arguments = {**network_arguments(model.config), "compile_image_encoder": True}
        with redirect_stdout(StringIO()):  # it prints that it compiles
            self._prepare(SAM2VideoPredictorVOS(**arguments, **_OPTIONS), model)
        self._device = model.device.type

    def box(self, object_id: int, frame: int, box: Box) -> np.ndarray:
        with self._fast():
            return super().box(object_id, frame, box)

    def embed(self, frame: int) -> None:
        with self._fast():
            super().embed(frame)

    def open(self, frames: np.ndarray) -> None:
        with self._fast():
            super().open(frames)

    def propagate(self) -> Any:
        return _each_within(super().propagate(), self._fast)  # what is timed in turn with it keeps its own precision

    @contextmanager
    def _fast(self) -> Any:
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        try:
            with torch.autocast(self._device, torch.bfloat16):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _each_within(steps: Iterator[Any], context: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """The steps, each computed within a context that is left before the next one is asked for."""
    while True:
        with context():
            step = next(steps, None)
        if step is None:
            return
        yield step


@contextmanager
def _frames_from_memory(frames: np.ndarray, image_size: int) -> Any:
    """Let the official predictor open an array: by itself it reads only MP4 files and folders of JPEG images.

    It keeps every frame as a float tensor on its device, as it does for files.
    """
    from sam2 import sam2_video_predictor

    def load(compute_device: torch.device, **_: Any) -> tuple[torch.Tensor, int, int]:
        images = torch.cat([prepare_images(torch.from_numpy(np.array(frame))[None], image_size) for frame in frames])
        return images.to(compute_device), *frames.shape[1:3]

    original = sam2_video_predictor.load_video_frames
    sam2_video_predictor.load_video_frames = load
    try:
        yield
    finally:
        sam2_video_predictor.load_video_frames = original


def prompt(contender: Contender, boxes: Sequence[Box]) -> None:
    """Draw one box for each object on the first frame."""
    for object_id, box in enumerate(boxes, start=1):
        contender.box(object_id, 0, box)
