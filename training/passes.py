"""Passes through SAM2's network as training and validation need them: encode a batch, decode stills, walk a clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napari_uniultra.model.preprocess import prepare_images
from napari_uniultra.model.resize import set_image_size
from napari_uniultra.training.prompting import Prompts

_POINTER_RANGE = 16  # sam2 scales the pointers' temporal code by min(frames, 16) - 1: train on what long loops use


@dataclass(frozen=True)
class Encoded:
    """Features of a batch's frames.

    Attributes
    ----------
    features, positions : list of Tensor
        (h * w, T * B, C) from fine to coarse, time before clip.
    sizes : list of (int, int)
        (h, w) of each level.
    clips : int
        B.
    """

    features: list[Tensor]
    positions: list[Tensor]
    sizes: list[tuple[int, int]]
    clips: int

    def at(self, frame: int) -> Encoded:
        """One frame of every clip."""
        own = slice(frame * self.clips, (frame + 1) * self.clips)
        features, positions = ([level[:, own] for level in levels] for levels in (self.features, self.positions))
        return Encoded(features, positions, self.sizes, self.clips)

    def repeated(self, count: int) -> Encoded:
        """One still as ``count`` of them, for as many objects."""
        features, positions = (
            [level.expand(-1, count, -1) for level in levels] for levels in (self.features, self.positions)
        )
        return Encoded(features, positions, self.sizes, count)


@dataclass(frozen=True)
class Answer:
    """What the network says of one frame of every clip.

    Attributes
    ----------
    logits, ious : (B, M, S/4, S/4) and (B, M)
        All masks that it offers, and their predicted IoU.
    best, best_full : (B, 1, S/4, S/4) and (B, 1, S, S)
        The logits of the best one.
    pointer : (B, 256)
    score : (B, 1)
        Logit of the object's presence.
    """

    logits: Tensor
    ious: Tensor
    best: Tensor
    best_full: Tensor
    pointer: Tensor
    score: Tensor


def encode(network: nn.Module, images: Tensor) -> Encoded:
    """Encode images (B, T, S, S) uint8; the network takes their size from now on."""
    size = images.shape[-1]
    if network.image_size != size:
        set_image_size(network, size)
    frames = images.transpose(0, 1).flatten(0, 1)
    encoded = network.forward_image(prepare_images(frames, size))
    _, features, positions, sizes = network._prepare_backbone_features(encoded)
    return Encoded(features, positions, sizes, len(images))


class Stills:
    """Stills that may be asked with several prompts."""

    def __init__(self, network: nn.Module, encoded: Encoded) -> None:
        self._network = network
        *fine, coarse = encoded.features
        self._fine = [_as_map(level, size) for level, size in zip(fine, encoded.sizes[:-1], strict=True)]
        self._coarse = _as_map(coarse + network.no_mem_embed, encoded.sizes[-1])

    def ask(self, prompts: Prompts, multimask: bool) -> Answer:
        """Decode one prompt a still; ``multimask`` offers three masks."""
        outputs = self._network._forward_sam_heads(
            backbone_features=self._coarse,
            point_inputs=prompts.inputs,
            mask_inputs=prompts.dense,
            high_res_features=self._fine,
            multimask_output=multimask,
        )
        return _answer(outputs)


class Clips:
    """Clips whose frames see those that were kept before them."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._memory: dict[str, dict[int, dict[str, Tensor]]] = {
            "cond_frame_outputs": {},
            "non_cond_frame_outputs": {},
        }

    def ask(self, frame: int, encoded: Encoded, prompts: Prompts | None, *, first: bool = False) -> Answer:
        """Decode a frame of every clip, with or without a prompt; ``first`` for one that starts without memory."""
        outputs = self._network._track_step(
            frame_idx=frame,
            is_init_cond_frame=first,
            current_vision_feats=encoded.features,
            current_vision_pos_embeds=encoded.positions,
            feat_sizes=encoded.sizes,
            point_inputs=prompts.inputs if prompts else None,
            mask_inputs=prompts.mask if prompts else None,
            output_dict=self._memory,
            num_frames=_POINTER_RANGE,
            track_in_reverse=False,
            prev_sam_mask_logits=prompts.dense if prompts else None,
        )
        return _answer(outputs[1])

    def keep(self, frame: int, encoded: Encoded, answer: Answer, prompts: Prompts | None, *, conditions: bool) -> None:
        """Remember an answer; every frame sees one that ``conditions`` the clip."""
        kept = {"pred_masks": answer.best, "obj_ptr": answer.pointer}
        inputs = prompts.inputs if prompts else None
        self._network._encode_memory_in_output(
            encoded.features, encoded.sizes, inputs, True, answer.best_full, answer.score, kept
        )
        self._memory["cond_frame_outputs" if conditions else "non_cond_frame_outputs"][frame] = kept


def recompute_trunk(network: nn.Module) -> None:
    """Make the image encoder's blocks keep their inputs only, and compute the rest again in the backward pass."""
    trunk = network.image_encoder.trunk
    trunk._block = partial(checkpoint, trunk._block, use_reentrant=False)


def _answer(outputs: tuple[Tensor, ...]) -> Answer:
    logits, _, ious, best, best_full, pointer, score = outputs
    return Answer(logits, ious, best, best_full, pointer, score)


def _as_map(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature.permute(1, 2, 0).unflatten(2, size)
