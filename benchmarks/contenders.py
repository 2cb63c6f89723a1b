"""Ours and the official predictor behind one face, on the same weights and the very same frames."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager, redirect_stderr
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
    """`CineSession` with its default settings."""

    name = "napari-uniultra"

    def __init__(self, model: Any) -> None:
        self._model = model

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


class Official:
    """sam2's ``SAM2VideoPredictor``, which is given frames that are prepared as ours are, from memory."""

    name = "sam2"

    def __init__(self, model: Any) -> None:
        from sam2.sam2_video_predictor import SAM2VideoPredictor

        arguments = network_arguments(model.config)
        self._predictor = SAM2VideoPredictor(**arguments, add_all_frames_to_correct_as_cond=True)
        self._predictor.load_state_dict(model.network.state_dict())
        self._predictor.eval().to(model.device)
        # The official code would compute with the adapters' trunk, which is ours; the rest is sam2's.
        self._size = model.config.image_size

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
        with redirect_stderr(StringIO()):  # its progress bar
            for frame, ids, masks in self._predictor.propagate_in_video(self.state):
                yield frame, {i: (masks[n, 0] > 0).cpu().numpy() for n, i in enumerate(ids)}


@contextmanager
def _frames_from_memory(frames: np.ndarray, image_size: int) -> Any:
    """Let the official predictor open an array: by itself it reads only MP4 files and folders of JPEG images.

    It keeps every frame as a float tensor, as it does for files.
    """
    from sam2 import sam2_video_predictor

    def load(**_: Any) -> tuple[torch.Tensor, int, int]:
        images = torch.cat([prepare_images(torch.from_numpy(np.array(frame))[None], image_size) for frame in frames])
        return images, *frames.shape[1:3]

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
