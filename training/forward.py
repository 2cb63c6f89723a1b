"""The loss of a batch: stills through the decoder, clips through the memory, prompted and corrected as by a person."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from napari_uniultra.model.config import ModelConfig
from napari_uniultra.training.config import LossSettings
from napari_uniultra.training.data.samples import Batch
from napari_uniultra.training.data.settings import PromptSettings
from napari_uniultra.training.losses import mask_iou, segmentation_loss
from napari_uniultra.training.passes import Answer, Clips, Stills, encode
from napari_uniultra.training.plain_attention import attention_for
from napari_uniultra.training.prompting import Prompter, Prompts, carried, chance, corrected, followed
from napari_uniultra.training.task import Outcome

# The share of other prompts that train the three masks too: sam2 falls back on them where the single one is unstable.
_MULTIMASK = 0.3
_CARRIED = 0.7  # the share of tracked frames that also get the mask prior, in networks that know it


class SegmentationLoss:
    """How well a network segments a batch as prompted.

    Parameters
    ----------
    config : ModelConfig
        The network's; says which priors it knows.
    prompts : PromptSettings
    loss : LossSettings
    """

    def __init__(self, config: ModelConfig, prompts: PromptSettings, loss: LossSettings) -> None:
        self._config, self._prompts, self._loss = config, prompts, loss
        self._prompter = Prompter(prompts, config)

    def __call__(self, network: nn.Module, batch: Batch, generator: Generator, progress: float) -> Outcome:
        """The loss of a batch on the network's device; see `task.Task.loss`."""
        score = _Score(batch.masks, self._loss)
        compute = self._clips if batch.is_clip else self._stills
        with attention_for(batch.images.device):
            compute(network, batch, generator, progress, score)
        return score.outcome()

    def _stills(self, network: nn.Module, batch: Batch, generator: Generator, progress: float, score: _Score) -> None:
        masks = batch.masks[:, 0]
        stills = Stills(network, encode(network, batch.images))
        for prompts in self._prompter.for_stills(masks, generator, progress):
            answer = stills.ask(prompts, _offers_three(prompts, generator))
            score.add(prompts.name, 0, answer)
            if chance(self._prompts.corrections, generator):
                prompts = corrected(prompts, masks, answer.best, generator)
                score.add(prompts.name, 0, stills.ask(prompts, _offers_three(prompts, generator)))

    def _clips(self, network: nn.Module, batch: Batch, generator: Generator, progress: float, score: _Score) -> None:
        """SAM2's scheme: some frames are prompted, the others tracked, and some of all corrected by a click.

        The prompted frames come first, and every frame sees them; a corrected frame is as good as a prompted one.
        """
        encoded, clips = encode(network, batch.images), Clips(network)
        first = self._conditioning(batch.masks, generator)
        before: dict[int, Tensor] = {}
        for frame in (*first, *(frame for frame in range(batch.images.shape[1]) if frame not in first)):
            masks, features = batch.masks[:, frame], encoded.at(frame)
            if frame in first:
                prompts = self._prompter.for_clip(masks, generator, progress)
                name = f"first {prompts.name}"
            else:
                prompts = self._carried(before.get(frame - 1), masks, generator)
                name = prompts.name if prompts else "tracked"
            answer = clips.ask(frame, features, prompts, first=frame in first)
            is_given = prompts is not None and prompts.mask is not None
            if not is_given:  # else the answer is the truth itself
                score.add(name, frame, answer)
            if frame not in first:
                prompts = None
            if is_corrected := not is_given and chance(self._prompts.clip_corrections, generator):
                prompts = corrected(prompts or Prompts("tracked"), masks, answer.best, generator)
                answer = clips.ask(frame, features, prompts, first=frame in first)
                score.add(f"{name.split(',')[0]}, corrected", frame, answer)
            before[frame] = answer.best
            clips.keep(frame, features, answer, prompts, conditions=frame in first or is_corrected)

    def _conditioning(self, masks: Tensor, generator: Generator) -> list[int]:
        """The frames to prompt: the first, and some of those on which all objects are."""
        most = self._prompts.conditioning_frames
        count = int(torch.randint(most, (), generator=generator)) if most > 1 else 0
        full = masks.flatten(2).any(dim=2).all(dim=0).nonzero()[:, 0].tolist()
        others = [frame for frame in full if frame > 0]
        order = torch.randperm(len(others), generator=generator).tolist()
        return [0, *sorted(others[index] for index in order[:count])]

    def _carried(self, previous: Tensor | None, masks: Tensor, generator: Generator) -> Prompts | None:
        if previous is None or not self._config.mask_prior or not chance(_CARRIED, generator):
            return None
        if self._prompts.followed and chance(self._prompts.followed, generator):
            return followed(previous, masks, generator)
        return carried(previous)


def _offers_three(prompts: Prompts, generator: Generator) -> bool:
    # As sam2's own rule: up to one point asks for three masks, of which the best by predicted IoU is taken.
    is_ambiguous = prompts.points is None or prompts.points.shape[1] <= 1
    return is_ambiguous or chance(_MULTIMASK, generator)


class _Score:
    """Gathers the losses and scores of several predictions against their truths (B, T, S, S)."""

    def __init__(self, masks: Tensor, settings: LossSettings) -> None:
        side = masks.shape[-1] // 2
        small = F.interpolate(masks.flatten(0, 1)[:, None].float(), (side, side), mode="area")
        self._targets = small.view(*masks.shape[:2], side, side)
        self._settings = settings
        self._terms: list[dict[str, Tensor]] = []
        self._dice: dict[str, list[float]] = {}
        self._iou_error: list[float] = []

    def add(self, name: str, frame: int, answer: Answer) -> None:
        """One prediction; ``name`` says how it was prompted."""
        targets = self._targets[:, frame]
        self._terms.append(segmentation_loss(answer.logits, answer.ious, answer.score, targets, self._settings))
        with torch.no_grad():
            shown = F.interpolate(answer.best.float(), targets.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
            iou = mask_iou(shown > 0, targets >= 0.5)
            self._dice.setdefault(name, []).extend((2 * iou / (1 + iou)).tolist())
            self._iou_error.extend((answer.ious.float().amax(dim=1) - iou).abs().tolist())

    def outcome(self) -> Outcome:
        """The mean over the predictions."""
        terms = {name: torch.stack([each[name] for each in self._terms]).mean() for name in self._terms[0]}
        loss = torch.stack(list(terms.values())).sum()
        return Outcome(loss, {name: term.detach() for name, term in terms.items()}, self._dice, self._iou_error)
