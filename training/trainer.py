"""The training loop: one stage, resumable at any step, with averaged weights."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import ModelConfig, architecture
from napari_uniultra.model.preprocess import prepare_images
from napari_uniultra.training.config import TrainConfig
from napari_uniultra.training.data.samples import Batch, Samples
from napari_uniultra.training.forward import Outcome, forward
from napari_uniultra.training.memory_start import start_memory_attention

CHECKPOINT = "last.pt"
LOG = "log.jsonl"
STOP = "STOP"  # a file of this name in the output folder ends the run after the step in progress, with a checkpoint
_MEMORY = ("memory_attention.", "memory_encoder.", "maskmem_tpos_enc", "obj_ptr", "mask_downsample", "no_obj_")
_INITIAL_SCORE = 2.0  # logit: objects are there more often than not, and an absent one's mask gets no gradient


class Trainer:
    """One stage of training.

    Parameters
    ----------
    config : TrainConfig
        Where its output folder holds a checkpoint of the same configuration, `run` goes on from there.

    Attributes
    ----------
    network : nn.Module
    average : dict of str to Tensor
        Exponential moving average of the weights: the ones to use.
    step : int
        Steps done.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.model_config = model_config(config)
        self.folder = Path(config.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.network = build_network(self.model_config).train()
        _expect_objects(self.network)
        _set_dropout(self.network, config.dropout)
        if config.start_from:
            self.network.load_state_dict(load_training_checkpoint(config.start_from)[config.start_with])
        if config.start_memory and not (self.folder / CHECKPOINT).exists():
            start_memory_attention(self.network, _typical_images(config))
        self._sized = {size: self._tied(size) for size in config.image_sizes}
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(_parameter_groups(self.network, config), lr=config.learning_rate)
        self.step = 0
        if (self.folder / CHECKPOINT).exists():
            self._resume()

    def run(self, until: int | None = None, on_step: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Train up to step ``until``, or to the end. ``on_step`` gets each line of the log."""
        end = min(until or self.config.steps, self.config.steps)
        samples = Samples(self.config)
        loader = DataLoader(
            samples,
            batch_size=None,
            sampler=_From(self.step, end),
            num_workers=self.config.workers,
            prefetch_factor=6 if self.config.workers else None,
            worker_init_fn=_one_thread if self.config.workers else None,
        )
        recent: list[Outcome] = []
        started = time.monotonic()
        for batch in loader:
            recent.append(self._train_step(batch))
            if self.step % self.config.log_every == 0 or self.step == end:
                line = {
                    **_summary(recent),
                    "step": self.step,
                    "rate": self.learning_rate(),
                    "seconds": time.monotonic() - started,
                }
                self._log(line)
                if on_step:
                    on_step(line)
                recent = []
            if self.step % self.config.save_every == 0:
                self.save()
            if (self.folder / STOP).exists():
                break
        self.save()

    def learning_rate(self) -> float:
        """Of the next step: linear warm-up, then a cosine."""
        config = self.config
        if self.step < config.warmup:
            return config.learning_rate * (self.step + 1) / config.warmup
        done = (self.step - config.warmup) / max(config.steps - config.warmup, 1)
        low = config.final_learning_rate
        return config.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)

    def prior_share(self) -> float:
        """The share of boxes that come with the prior, now: 1 at first, then fading to ``prior_floor``."""
        config = self.config
        faded = min(1.0, self.step / max(config.prior_steps * config.steps, 1))
        return 1 - faded * (1 - config.prior_floor)

    def save(self) -> None:
        """Write the checkpoint, in one go."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "config": self.config.to_dict(),
            "model_config": self.model_config.to_dict(),
        }
        temporary = self.folder / (CHECKPOINT + ".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.folder / CHECKPOINT)

    def _train_step(self, batch: Batch) -> Outcome:
        # Everything random in a step follows from its number, so that a resumed run repeats an uninterrupted one.
        seed = self.config.seed * 1_000_003 + self.step
        torch.manual_seed(seed)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate() * group["relative_rate"]
        network = self._sized.get(batch.images.shape[-1], self.network)
        outcome = forward(network, batch, torch.Generator().manual_seed(seed), self.prior_share())
        self.optimiser.zero_grad(set_to_none=True)
        outcome.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_gradient)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        self._update_average()
        outcome.loss = outcome.loss.detach()
        return outcome

    def _tied(self, size: int) -> nn.Module:
        """A network for another input size that shares the parameters."""
        network = build_network(self.model_config.with_(image_size=size)).train()
        network.load_state_dict(self.network.state_dict(keep_vars=True), assign=True)
        _set_dropout(network, self.config.dropout)
        return network

    @torch.no_grad()
    def _update_average(self) -> None:
        # A short memory at first, so that the average does not hold on to the random start.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        state = self.network.state_dict()
        for name, value in self.average.items():
            if value.is_floating_point():
                value.lerp_(state[name], 1 - decay)
            else:
                value.copy_(state[name])

    def _resume(self) -> None:
        state = load_training_checkpoint(self.folder / CHECKPOINT)
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def _log(self, line: dict[str, Any]) -> None:
        with open(self.folder / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def model_config(config: TrainConfig) -> ModelConfig:
    """The network that a stage trains."""
    return architecture(config.architecture, image_size=config.image_size, box_prior=True, mask_prior=True)


def load_training_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `Trainer.save` wrote.

    Raises
    ------
    CheckpointError
        If it is missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no training checkpoint {path}") from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"The training checkpoint {path} cannot be read", str(error)) from error


class _From(Sampler[int]):
    """The steps from ``first`` up to ``end``."""

    def __init__(self, first: int, end: int) -> None:
        self.range = range(first, end)

    def __iter__(self) -> Iterator[int]:
        return iter(self.range)

    def __len__(self) -> int:
        return len(self.range)


def _typical_images(config: TrainConfig) -> Tensor:
    batch = Samples(replace(config, clip_share=0.0, image_sizes=(), seed=config.seed + 1, batch=16))[0]
    return prepare_images(batch.images[:, 0], config.image_size)


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)


def _expect_objects(network: nn.Module) -> None:
    nn.init.constant_(network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, _INITIAL_SCORE)


def _set_dropout(network: nn.Module, share: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        elif hasattr(module, "dropout_p"):  # sam2's attention
            module.dropout_p = share


def _parameter_groups(network: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Matrices and kernels decay; biases, norms and single embeddings do not. The memory has a rate of its own."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim >= 2 and min(parameter.shape[:2]) > 1
            groups.setdefault((is_matrix, name.startswith(_MEMORY)), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if is_matrix else 0.0,
            "relative_rate": config.memory_rate if is_memory else 1.0,
        }
        for (is_matrix, is_memory), parameters in groups.items()
    ]


def _summary(outcomes: list[Outcome]) -> dict[str, Any]:
    dice: dict[str, list[float]] = {}
    for outcome in outcomes:
        for name, values in outcome.dice.items():
            dice.setdefault(name, []).extend(values)
    errors: list[float] = [error for outcome in outcomes for error in outcome.iou_error]
    loss: Tensor = torch.stack([outcome.loss for outcome in outcomes]).mean()
    return {
        "loss": round(float(loss), 4),
        "dice": {name: [round(sum(values) / len(values), 4), len(values)] for name, values in sorted(dice.items())},
        "iou_error": round(sum(errors) / max(len(errors), 1), 4),
    }
