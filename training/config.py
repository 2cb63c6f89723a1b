"""A training run as plain data, read from YAML."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from napari_uniultra.errors import UniUltraError


class ConfigError(UniUltraError):
    """A training configuration cannot be used."""


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training.

    Parameters
    ----------
    output : str
        Folder for checkpoints and the log.
    architecture : str
        A name of ``napari_uniultra.model.config.ARCHITECTURES``.
    image_size : int
        Side of the network's input in pixels.
    image_sizes : tuple of int
        The sizes to train at, drawn evenly; empty for ``image_size`` alone. Small ones are cheap: a step at
        another size holds as many frames as cost about the same.
    start_from : str, optional
        A training checkpoint that this stage begins with.
    start_with : {"average", "network"}
        Its averaged weights, or those of its last step, which are further on where a stage was cut short.
    start_memory : bool
        Give the memory attention a start that suits clips; for the first stage with clips after one on stills.
    data : str, optional
        A folder in the layout of ``training.data.real``; its ``train`` part only. None trains on simulated data alone.
    simulated_pool : str, optional
        Folder that keeps simulated stills and clips, so that each is made once.
    simulated_stills, simulated_clips : int
        How many different ones there are in the end.
    simulated_ahead : int
        How many of them the first step may draw from; the number then grows evenly until half of the steps are done.
    simulated_share : float
        The share of samples that is simulated.
    clip_share : float
        The share of steps on clips through the memory; the others are on stills.
    batch : int
        Frames a step at ``image_size``: a clip step holds as many clips as fit.
    clip_frames : tuple of int
        Shortest and longest clip.
    steps, warmup, learning_rate, weight_decay, clip_gradient, ema_decay
        Of AdamW with cosine decay; ``ema_decay`` of the averaged weights, which are the ones to use.
    dropout : float
        In the memory attention. A short run from scratch does better, and on a CPU much faster, without.
    memory_rate : float
        The learning rate of the memory's own weights, relative to the others'.
    prior_steps : float
        The share of the run during which the box prior fades from every box to ``prior_floor`` of them.
    prior_floor : float
        The share of box prompts that come with the prior from then on.
    seed : int
        Every sample and prompt follows from it and from the step's number.
    save_every, log_every : int
        In steps.
    workers : int
        Processes that prepare data.
    """

    output: str
    architecture: str = "uniultra-mini"
    image_size: int = 256
    image_sizes: tuple[int, ...] = ()
    start_from: str | None = None
    start_with: str = "average"
    start_memory: bool = False
    data: str | None = None
    simulated_pool: str | None = None
    simulated_stills: int = 6000
    simulated_clips: int = 800
    simulated_ahead: int = 300
    simulated_share: float = 0.5
    clip_share: float = 0.0
    batch: int = 8
    clip_frames: tuple[int, int] = (3, 6)
    steps: int = 1000
    warmup: int = 100
    learning_rate: float = 6e-4
    final_learning_rate: float = 0.02
    weight_decay: float = 0.02
    clip_gradient: float = 1.0
    ema_decay: float = 0.998
    dropout: float = 0.0
    memory_rate: float = 1.0
    prior_steps: float = 0.6
    prior_floor: float = 0.5
    seed: int = 1
    save_every: int = 200
    log_every: int = 10
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("simulated_share", "clip_share", "prior_steps", "prior_floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", "it is a share", "Choose 0 to 1")
        if self.start_with not in ("average", "network"):
            raise ConfigError(f"start_with is {self.start_with!r}", fix="Choose 'average' or 'network'")
        if self.data is None and self.simulated_share < 1:
            raise ConfigError("No training data is named", fix="Set data to a folder, or simulated_share to 1")
        if not 2 <= self.clip_frames[0] <= self.clip_frames[1]:
            raise ConfigError(
                f"clip_frames is {self.clip_frames}", "a clip has two frames at least", "Give shortest, longest"
            )
        if any(size < 64 or size % 32 for size in (self.image_size, *self.image_sizes)):
            raise ConfigError("image_size and image_sizes must be multiples of 32, at least 64")
        if self.batch < 1 or self.steps < 1:
            raise ConfigError("batch and steps must be at least 1")

    def frames_at(self, size: int) -> int:
        """Frames a step at another input size."""
        return max(round(self.batch * (self.image_size / size) ** 2), 1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Raise ConfigError for unknown keys, naming the nearest known one."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                raise ConfigError(
                    f"There is no setting called {key!r}",
                    fix=f"Did you mean {near[0]!r}?" if near else f"Use {', '.join(known)}",
                )
        if "output" not in values:
            raise ConfigError("The setting 'output' is missing", fix="Name a folder for the checkpoints")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    @classmethod
    def from_yaml(cls, path: str | Path) -> TrainConfig:
        """Read a file; paths in it are relative to the working folder."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"The training configuration {path} cannot be read", str(error)) from error
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"The training configuration {path} holds no settings", fix="Write one 'name: value' a line"
            )
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)
