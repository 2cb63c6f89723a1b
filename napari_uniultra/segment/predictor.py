"""One frame at a time: embed it, turn prompts into masks, remember a mask, attend to what is remembered.

NumPy frames and prompts go in, tensors on the model's device go between the verbs; there is no state but constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_uniultra.core.prompts import BOX_LABELS, model_xy
from napari_uniultra.core.types import Prompt
from napari_uniultra.model.inference import FrameEmbedding
from napari_uniultra.model.preprocess import prepare_images, prepare_masks
from napari_uniultra.model.prior import CARRIED_MARGIN, box_prior, boxes_of, mask_prior
from napari_uniultra.segment.memory import MemoryPlan

NO_OBJECT_LOGIT = -1024.0  # SAM2's mask logit everywhere when the object is not in the frame
_CLAMP = 32.0  # of earlier logits that start a correction, as in the official predictor
MASK_LOGIT = 10.0  # of a mask given by the user, as in the official predictor


class HalfPrecisionError(ArithmeticError):
    """Numbers were too large for half precision: the object score of the answer is not finite."""


def _inferring(verb: Callable[..., Any]) -> Callable[..., Any]:
    """A predictor's verb without gradients, in half precision where its model has it."""

    @wraps(verb)
    def run(self: Predictor, *args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(), torch.autocast(self.model.device.type, torch.float16, enabled=self.model.half):
            return verb(self, *args, **kwargs)

    return run


@dataclass(frozen=True)
class Prediction:
    """The decoder's answer for B objects.

    Attributes
    ----------
    logits : Tensor
        (B, 1, 4s, 4s) mask logits; above 0 is inside.
    predicted_iou : Tensor
        (B,) 0 to 1
    object_score : Tensor
        (B, 1) logits
    pointer : Tensor
        (B, 256)
    """

    logits: Tensor
    predicted_iou: Tensor
    object_score: Tensor
    pointer: Tensor


class Predictor:
    """The verbs of segmentation over one loaded model.

    Parameters
    ----------
    model : Model
        A network with its configuration and device, as ``load_model`` gives it.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._network = network = model.network
        self._size = model.config.image_size
        self._grid = self._size // 16
        with torch.inference_mode():
            self._parts = model.parts
            blank = torch.empty(1, 1, self._grid, self._grid, device=model.device)
            image_position = network.image_encoder.neck.position_encoding(blank)
            remembered = F.avg_pool2d(blank, model.config.memory.pool)
            memory_position = network.memory_encoder.position_encoding(remembered)
            self._image_position = _tokens(image_position)
            self._memory_position = _tokens(memory_position)
            self._dense_position = network.sam_prompt_encoder.get_dense_pe()

    @property
    def image_size(self) -> int:
        """Side of the network's input in pixels."""
        return self._size

    @property
    def signed_pointers(self) -> bool:
        """Whether the network tells pointers of the past from those of the future."""
        return self._network.use_signed_tpos_enc_to_obj_ptrs

    @_inferring
    def embed(self, frame: np.ndarray) -> FrameEmbedding:
        """Embed a frame, (H, W) or (H, W, 3) uint8."""
        return self._parts.encoder(prepare_images(uploaded(frame, self.model.device)[None], self._size))

    @_inferring
    def unconditioned(self, embedding: FrameEmbedding) -> Tensor:
        """Features (1, 256, s, s) of a frame that remembers nothing."""
        return embedding.image + self._network.no_mem_embed.view(1, -1, 1, 1)

    @_inferring
    def predict(
        self,
        embedding: FrameEmbedding,
        features: Tensor,
        prompt: Prompt,
        shape_hw: tuple[int, int],
        earlier_logits: Tensor | None = None,
        rounds_done: int = 0,
    ) -> Prediction:
        """Box and points to a mask, for one object.

        Points that came in several rounds are replayed: each round starts from the logits of the one before, so the
        answer depends on the prompt alone and not on when it was asked.

        Parameters
        ----------
        embedding, features
            The frame's embedding, and its features with or without memory.
        prompt : Prompt
            A box, points, or both; a mask counts through ``earlier_logits``.
        shape_hw : (int, int)
            The frame's size, which the prompt's coordinates refer to.
        earlier_logits : Tensor, optional
            (1, 1, 4s, 4s): what a correction starts from.
        rounds_done : int
            Of the prompt's rounds, those that gave the earlier logits and need no replay.
        """
        for points_so_far in (prompt.rounds or (len(prompt.points),))[rounds_done:]:
            if not points_so_far and prompt.box is None:
                continue  # the round in which a mask was given: its logits are the earlier ones
            coordinates, labels = self._point_inputs(prompt, points_so_far, shape_hw)
            dense = earlier_logits.clamp(-_CLAMP, _CLAMP) if earlier_logits is not None else None
            if dense is None and prompt.box is not None and self.model.config.box_prior:
                dense = box_prior(coordinates[:, :2].reshape(1, 4), self._size)
            prediction = self._decode(embedding, features, coordinates, labels, dense, points=labels.shape[1])
            earlier_logits = prediction.logits
        return prediction

    def _point_inputs(self, prompt: Prompt, count: int, shape_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """SAM2's point prompts: a box is its two corners; (1, N, 2) in model pixels and (1, N)."""
        xy, labels = list(prompt.points[:count]), list(prompt.labels[:count])
        if prompt.box is not None:
            xy = [prompt.box[:2], prompt.box[2:], *xy]
            labels = [*BOX_LABELS, *labels]
        coordinates = model_xy(np.array(xy, dtype=float).reshape(-1, 2), shape_hw, self._size)
        device = self.model.device
        return torch.from_numpy(coordinates)[None].to(device), torch.tensor([labels], dtype=torch.int32, device=device)

    @_inferring
    def track(
        self, embedding: FrameEmbedding, features: Tensor, before: Tensor | None = None, *, jumped: bool = False
    ) -> Prediction:
        """Masks on a frame without prompts, from features (B, 256, s, s) that remember B objects.

        ``before`` has the objects' logits (B, 1, 4s, 4s) on the frame before, for models with a mask prior. Those of
        objects that ``jumped`` were moved to where they are now, and count as boxes too.
        """
        if jumped:
            coordinates, labels = boxes_of(before, self._size, CARRIED_MARGIN)
        else:
            batch = features.shape[0]
            coordinates = torch.zeros(batch, 1, 2, device=features.device)
            labels = -torch.ones(batch, 1, dtype=torch.int32, device=features.device)
        dense = None if before is None else mask_prior(before)
        return self._decode(embedding, features, coordinates, labels, dense, points=2 if jumped else 0)

    @_inferring
    def accept_mask(self, embedding: FrameEmbedding, mask: np.ndarray) -> Prediction:
        """Take a mask (H, W) bool as the answer: its logits are +-10 and its pointer comes from the decoder."""
        values = prepare_masks(torch.from_numpy(np.array(mask))[None].to(self.model.device), self._size)
        low_res, _, iou, _, _, pointer, score = self._network._use_mask_as_output(
            embedding.image, list(embedding.high_res), values
        )
        return self._checked(Prediction(low_res.float(), iou[:, 0].float(), score.float(), pointer.float()))

    def _decode(
        self,
        embedding: FrameEmbedding,
        features: Tensor,
        coordinates: Tensor,
        labels: Tensor,
        dense: Tensor | None,
        *,
        points: int,
    ) -> Prediction:
        """Masks for B objects; the one with most has so many ``points``, as they are not counted on the device."""
        network, batch = self._network, features.shape[0]
        multimask = network.multimask_min_pt_num <= points <= network.multimask_max_pt_num
        sparse, dense_embedding = network.sam_prompt_encoder(points=(coordinates, labels), boxes=None, masks=dense)
        decoder = network.sam_mask_decoder if points else self._parts.mask_decoder
        logits, ious, tokens, score = decoder(
            image_embeddings=features,
            image_pe=self._dense_position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense_embedding,
            multimask_output=multimask,
            repeat_image=False,
            high_res_features=[level.expand(batch, -1, -1, -1) for level in embedding.high_res],
        )
        ious, score = ious.float(), score.float()
        best = ious.argmax(dim=-1)
        rows = torch.arange(batch, device=features.device)
        present = (score > 0).float()
        chosen = torch.where(present[:, :, None, None] > 0, logits[rows, best][:, None].float(), NO_OBJECT_LOGIT)
        token = tokens[rows, best if tokens.shape[1] > 1 else torch.zeros_like(best)]
        pointer = present * network.obj_ptr_proj(token) + (1 - present) * network.no_obj_ptr
        return self._checked(Prediction(chosen, ious[rows, best], score, pointer.float()), logits)

    def _checked(self, prediction: Prediction, *others: Tensor) -> Prediction:
        """The prediction; in half precision with NaN for logits and score where it, or one of ``others``, overflowed.

        So the device need not be asked before the answer is read, nor does a further round hide it.
        """
        if not self.model.half:
            return prediction
        parts = (prediction.logits, prediction.object_score, prediction.pointer, *others)
        is_finite = torch.stack([part.flatten(1).isfinite().all(dim=1) for part in parts]).all(dim=0)[:, None]
        return replace(
            prediction,
            logits=prediction.logits.where(is_finite[..., None, None], torch.nan),
            object_score=prediction.object_score.where(is_finite, torch.nan),
        )

    @_inferring
    def remember(self, embedding: FrameEmbedding, logits: Tensor, object_score: Tensor, *, prompted: bool) -> Tensor:
        """Encode masks into memory features (B, 64, m, m) bfloat16; a prompted mask counts as certain.

        Parameters
        ----------
        embedding : FrameEmbedding
        logits : Tensor
            (B, 1, 4s, 4s)
        object_score : Tensor
            (B, 1) logits
        prompted : bool
            Whether the user gave or accepted the masks.
        """
        network = self._network
        masks = F.interpolate(logits, (self._size, self._size), mode="bilinear", align_corners=False)
        masks = (masks > 0).float() if prompted else masks.sigmoid()
        masks = masks * network.sigmoid_scale_for_mem_enc + network.sigmoid_bias_for_mem_enc
        pixels = embedding.image.expand(masks.shape[0], -1, -1, -1)
        features = self._parts.memory_encoder(pixels, masks, skip_mask_sigmoid=True)["vision_features"]
        if network.no_obj_embed_spatial is not None:
            absent = (object_score <= 0).float()[:, :, None, None]
            features = features + absent * network.no_obj_embed_spatial[:, :, None, None]
        return features.to(torch.bfloat16)

    @_inferring
    def attend(
        self,
        embedding: FrameEmbedding,
        plan: MemoryPlan,
        spatial: Sequence[Sequence[Tensor]],
        pointers: Sequence[Sequence[np.ndarray]],
        num_frames: int,
    ) -> Tensor:
        """Features (B, 256, s, s) of a frame that remembers B objects with the same memory layout.

        Parameters
        ----------
        embedding : FrameEmbedding
        plan : MemoryPlan
            The layout that the objects share.
        spatial, pointers
            For each object, the memory features, (1, 64, m, m), of ``plan.spatial`` and the pointers, (256,), of
            ``plan.pointers``.
        num_frames : int
            Frames of the loop; it scales the temporal code of the pointers.
        """
        network, batch = self._network, len(spatial)
        memory, position = [], []
        for slot, (distance, _) in enumerate(plan.spatial):
            features = torch.cat([own[slot].float() for own in spatial])  # autocast knows no mixed halves
            memory.append(_tokens(features))
            code = self._memory_position + network.maskmem_tpos_enc[distance - 1]  # the last one's if it is 0
            position.append(code.expand(-1, batch, -1))
        pointer_tokens = 0
        if plan.pointers:
            tokens, code = self._pointer_tokens(plan, pointers, num_frames)
            memory.append(tokens)
            position.append(code)
            pointer_tokens = tokens.shape[0]
        same_for_all = 1 if self._parts.shares_frame else batch
        attended = self._parts.memory_attention(
            curr=_tokens(embedding.image).expand(-1, same_for_all, -1),
            curr_pos=self._image_position.expand(-1, same_for_all, -1),
            memory=torch.cat(memory),
            memory_pos=torch.cat(position),
            num_obj_ptr_tokens=pointer_tokens,
        )
        return attended.permute(1, 2, 0).reshape(batch, -1, self._grid, self._grid)

    def _pointer_tokens(
        self, plan: MemoryPlan, pointers: Sequence[Sequence[np.ndarray]], num_frames: int
    ) -> tuple[Tensor, Tensor]:
        """Object pointers split into memory-wide tokens, (N, B, 64), and their temporal codes."""
        network, batch = self._network, len(pointers)
        stacked = uploaded(np.stack([np.stack(own) for own in pointers], axis=1), self.model.device)  # (P, B, 256)
        count, _, dim = stacked.shape
        split = dim // network.mem_dim
        tokens = stacked.reshape(count, batch, split, network.mem_dim).permute(0, 2, 1, 3).flatten(0, 1)
        if not network.add_tpos_enc_to_obj_ptrs:
            return tokens, torch.zeros_like(tokens)
        distances = torch.tensor([float(distance) for distance, _ in plan.pointers], device=stacked.device)
        longest = min(num_frames, network.max_obj_ptrs_in_encoder) - 1
        code = network.obj_ptr_tpos_proj(sine_code(distances / max(longest, 1), dim))
        return tokens, code[:, None].expand(-1, batch, -1).repeat_interleave(split, dim=0)


def uploaded(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of an array on a device. CUDA gets it while it computes, and Python does not wait for that."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def sine_code(positions: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """SAM2's one-dimensional sine code: positions (N,) to (N, dim)."""
    exponents = torch.arange(dim // 2, dtype=torch.float32, device=positions.device)
    phases = positions[:, None] / temperature ** (2 * (exponents // 2) / (dim // 2))
    return torch.cat([phases.sin(), phases.cos()], dim=-1)


def _tokens(maps: Tensor) -> Tensor:
    """(B, C, h, w) to SAM2's (h * w, B, C)."""
    return maps.flatten(2).permute(2, 0, 1)
