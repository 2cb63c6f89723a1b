"""Results on their way from the device to the CPU's memory, while the device goes on computing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_uniultra.core.types import Prompt
from napari_uniultra.model.config import Curve
from napari_uniultra.model.preprocess import masks_at
from napari_uniultra.segment.predictor import HalfPrecisionError, Prediction
from napari_uniultra.segment.results import PackedMask, Result, expected_iou
from napari_uniultra.segment.smooth import smoothed
from napari_uniultra.segment.solid import solid_mask
from napari_uniultra.segment.view import View


class Incoming:
    """The results of a prediction for B objects in one view.

    Their download begins at once, behind what the device has been given to do so far; only `result` waits for it.

    Parameters
    ----------
    prediction : Prediction
    view : View
        What was looked at.
    model : Model
        It made the prediction.
    given : (H, W) bool, optional
        The one object's mask, which its result has instead of the predicted one.
    """

    def __init__(self, prediction: Prediction, view: View, model: Any, given: np.ndarray | None = None) -> None:
        self._view, self._model, self._given = view, model, given
        tensors = [prediction.predicted_iou, prediction.object_score[:, 0], prediction.pointer]
        if given is None:
            tensors.append(masks_at(smoothed(prediction.logits, model.config.smooth), view.shape_hw) > 0)
        self._download = _Download(*tensors)

    def result(self, index: int, whole: View, curve: Curve, *, reverse: bool, asked: Prompt | None = None) -> Result:
        """The result for one object.

        Parameters
        ----------
        index : int
            Among the B objects.
        whole : View
            All of the frame.
        curve : Curve
            What the network's own estimates of the IoU mean.
        reverse : bool
            Whether the frame was reached backwards in time.
        asked : Prompt, optional
            What was asked, in pixels of the view.

        Raises
        ------
        HalfPrecisionError
            If numbers were too large for the half precision of the model.
        """
        ious, scores, pointers, *masks = self._download.wait()
        if self._model.half and not np.isfinite(scores[index]):
            raise HalfPrecisionError
        mask = self._given
        if mask is None:
            inside = masks[0][index]
            inside = solid_mask(inside, asked) if self._model.config.solid else inside
            mask = self._view.put(inside, whole.shape_hw)
        return Result(
            mask=PackedMask.pack(mask),
            predicted_iou=expected_iou(float(ious[index]), curve),
            object_score=float(scores[index]),
            pointer=pointers[index].copy(),
            reverse=reverse,
            view=None if self._view == whole else self._view,
        )


class _Download:
    """Copies of tensors in the CPU's memory. On CUDA they arrive while the device computes; elsewhere at once."""

    def __init__(self, *tensors: Tensor) -> None:
        on_cuda = tensors[0].is_cuda
        self._copies = [tensor.to("cpu", non_blocking=on_cuda) for tensor in tensors]
        self._arrived = torch.cuda.Event() if on_cuda else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(tensors[0].device))

    def wait(self) -> Sequence[np.ndarray]:
        """The tensors as arrays."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return [copy.numpy() for copy in self._copies]
