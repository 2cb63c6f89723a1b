"""The settings of a fine-tuning: one group for each concern, read from YAML by `settings.read_file`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

import yaml

from napari_uniultra.core.settings import ConfigError, setting
from napari_uniultra.model.choices import DEFAULT_MODEL
from napari_uniultra.training.data.settings import DataSettings, PromptSettings
from napari_uniultra.training.peft_methods.settings import MethodSettings

__all__ = ["ConfigError", "FineTuneConfig", "LossSettings", "ModelSettings", "OptimiserSettings", "RunSettings"]

PRESETS = Path(str(files("napari_uniultra.training"))) / "presets"


@dataclass(frozen=True)
class ModelSettings:
    """The network and the weights it starts from."""

    base: str | None = setting(
        DEFAULT_MODEL,
        help="Weights to start from: a model's name, a checkpoint, or the folder of an earlier run; empty for random.",
    )
    weights: str = setting(
        "average",
        choices=("average", "network"),
        help="Of an earlier run: its averaged weights, or those of its last step, which are further on if it was cut.",
    )
    architecture: str | None = setting(
        None, help="Network to build, such as uniultra-l; empty for the base's own. Adapters the base lacks are new."
    )
    image_size: int | None = setting(
        None, low=64, high=4096, help="Side of the input in pixels, a multiple of 32; empty for the base's own."
    )
    width: int | None = setting(
        None, low=8, high=512, help="Width of the trunk's first stage; empty for the architecture's own."
    )
    box_prior: bool | None = setting(
        None, help="Give a box also as its inscribed ellipse, for networks from scratch; empty for the base's own."
    )
    mask_prior: bool | None = setting(
        None, help="Give a tracked object's last mask as a prompt, for networks from scratch; empty for the base's own."
    )
    motion_prior: bool | None = setting(
        None, help="Look for a tracked object by the image, for networks with a mask prior; empty for the base's own."
    )
    close_views: bool | None = setting(
        None, help="Look closely at what is clicked and tracked, for networks trained so; empty for the base's own."
    )
    solid: bool | None = setting(
        None,
        help="Fill small holes in masks, drop small pieces, for networks of solid structures; empty for the base's.",
    )
    smooth: float | None = setting(
        None,
        low=0,
        high=4,
        help="Width of the Gaussian that smooths outlines, in pixels of the mask logits; empty for the base's.",
    )
    rotary_grid: int | None = setting(
        None,
        low=1,
        high=256,
        help="Feature map's side that the memory's rotary positions span at every input size; empty for the base's.",
    )
    light_memory: bool = setting(
        False, help="Replace a full memory by a light one, which tracks faster, and starts as a part of the full one."
    )
    start_memory: bool = setting(
        False, help="Give a memory that was never trained a start that suits clips, when the run begins."
    )
    dropout: float = setting(0.0, low=0, high=0.9, help="Share of values that the memory attention drops in training.")

    def __post_init__(self) -> None:
        if self.base is None and self.architecture is None:
            raise ConfigError("model.base and model.architecture are empty", fix="Name one of them")
        if self.image_size is not None and self.image_size % 32:
            raise ConfigError(f"model.image_size is {self.image_size}", fix="Choose a multiple of 32")


@dataclass(frozen=True)
class LossSettings:
    """What is minimised; all terms are computed in float32 from logits."""

    mask: str = setting(
        "dice_bce",
        choices=("dice_bce", "focal_dice", "released", "sam2lora"),
        help="Mask loss: dice + cross-entropy; focal + dice as the paper says; the form in its authors' code; "
        "cross-entropy + dice + focal Tversky as in SAM2LoRA.",
    )
    focal_weight: float = setting(20.0, low=0, help="Weight of focal loss beside dice, as SAM has it.")
    focal_alpha: float = setting(0.25, low=0, high=1, help="Weight of the pixels inside in the focal loss.")
    focal_gamma: float = setting(2.0, low=0, high=5, help="How little the focal loss heeds easy pixels; 0: not at all.")
    tversky_alpha: float = setting(0.7, low=0, high=1, help="Weight of missed pixels against surplus ones (Tversky).")
    tversky_gamma: float = setting(0.75, low=0.1, high=5, help="Exponent of the focal Tversky loss.")
    iou: float = setting(0.4, low=0, help="Weight of the error of the predicted IoU.")
    object_score: float = setting(0.1, low=0, help="Weight of the score that says whether the object is there.")


@dataclass(frozen=True)
class OptimiserSettings:
    """How weights follow from gradients."""

    name: str = setting("adamw", choices=("adam", "adamw"), help="Adam, or AdamW with decoupled weight decay.")
    learning_rate: float = setting(1e-4, low=0, help="Highest learning rate.")
    weight_decay: float = setting(0.02, low=0, help="Of matrices and kernels; biases, norms and embeddings have none.")
    schedule: str = setting(
        "cosine", choices=("constant", "exponential", "cosine"), help="How the learning rate falls after the warm-up."
    )
    warmup: int = setting(0, low=0, help="Steps over which the learning rate rises from zero.")
    final: float = setting(0.02, low=0, high=1, help="Where the cosine ends, as a share of the highest rate.")
    decay: float = setting(0.98, low=0.1, high=1, help="What the exponential schedule multiplies the rate by.")
    decay_every: int = setting(100, low=1, help="Steps between two such multiplications; the paper's is an epoch.")
    rates: Mapping[str, float] = setting(
        factory=dict,
        help="Learning rates relative to the others', by a part of a parameter's name such as adapter, or 'memory'.",
    )
    clip_gradient: float = setting(1.0, low=0, help="Largest norm of the gradient; 0 does not limit it.")
    ema_decay: float = setting(0.998, low=0, high=0.99999, help="Of the averaged weights; 0 does not average.")
    sharpness: float = setting(
        0.0, low=0, high=1, help="Radius of sharpness-aware minimisation (0.05 is usual); 0 is off. Doubles the time."
    )

    def __post_init__(self) -> None:
        for name, rate in self.rates.items():
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or rate < 0:
                raise ConfigError(f"optimiser.rates.{name} is {rate!r}", fix="Give a number of 0 or more")


@dataclass(frozen=True)
class RunSettings:
    """How long a run is, where it computes, and what it writes when."""

    steps: int = setting(1000, low=1, help="Steps in all; a step is one change of the weights.")
    seed: int = setting(1, low=0, help="Every sample and prompt follows from it and from the step's number.")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1 or mps; torchrun gives each process its own GPU.")
    precision: str = setting(
        "fp32", choices=("fp32", "bf16", "fp16"), help="Of the network's arithmetic; weights and losses stay fp32."
    )
    accumulate: int = setting(1, low=1, help="Batches whose gradients are added up before a step.")
    activation_checkpointing: bool = setting(
        False, help="Compute the trunk twice instead of keeping its activations: far less memory, a third more time."
    )
    threads: int = setting(0, low=0, help="CPU threads for computing; 0 leaves it to PyTorch.")
    deterministic: bool = setting(
        False, help="Use only kernels that give the same result every time on a GPU; slower. A CPU's always do."
    )
    log_every: int = setting(10, low=1, help="Steps between two lines of progress.")
    save_every: int = setting(200, low=1, help="Steps between two checkpoints; at every stop there is one anyway.")
    validate_every: int = setting(0, low=0, help="Steps between two validations; 0 for none.")
    validation_cases: int = setting(100, low=1, help="Cases of the val part that a validation looks at, at most.")
    validation_frames: int = setting(
        0, low=0, help="Frames of each loop to track from one box in a validation; 0 tracks none."
    )
    overlays: int = setting(4, low=0, help="Pictures that each validation draws.")
    monitor: str = setting(
        "dice", help="Validation metric that decides which weights are best; an ..error or ..loss counts downwards."
    )
    keep: str = setting(
        "best", choices=("best", "last"), help="Weights to export: the best validated ones, or the last step's."
    )
    early_stopping: int = setting(0, low=0, help="Stop after this many validations without a better one; 0 never does.")
    max_minutes: float = setting(0.0, low=0, help="Stop with a checkpoint before this many minutes; 0 has no limit.")
    bad_steps: int = setting(5, low=1, help="Steps in a row whose loss is not a number before the run gives up.")

    def __post_init__(self) -> None:
        if self.early_stopping and not self.validate_every:
            raise ConfigError("run.early_stopping needs validations", fix="Set run.validate_every")


@dataclass(frozen=True)
class FineTuneConfig:
    """A fine-tuning, as ``uniultra train`` reads it."""

    output: str = setting(help="Folder for checkpoints, progress and the exported model.")
    model: ModelSettings = setting(factory=ModelSettings, help="The network and the weights it starts from.")
    method: MethodSettings = setting(factory=MethodSettings, help="Which parameters are trained.")
    data: DataSettings = setting(factory=DataSettings, help="What it learns from.")
    prompts: PromptSettings = setting(factory=PromptSettings, help="How a person's prompts are imitated.")
    loss: LossSettings = setting(factory=LossSettings, help="What is minimised.")
    optimiser: OptimiserSettings = setting(factory=OptimiserSettings, help="How weights follow from gradients.")
    run: RunSettings = setting(factory=RunSettings, help="How long, where, and what is written when.")

    @property
    def sources(self) -> tuple[str, ...]:
        """The models that it begins with, by name or path."""
        return (self.model.base,) if self.model.base else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What does less than it says, in words."""
        if self.method.memory == "frozen" or self.data.clip_share:
            return ()
        return ("method.memory is trained, but data.clip_share is 0: only clips train the memory; it stays as it is.",)


def find_config(name: str, kind: type = FineTuneConfig) -> Path:
    """A configuration by its path, or a preset of the package by its name.

    Parameters
    ----------
    kind : type
        What it configures: `FineTuneConfig` or `DistillConfig`. Presets of the other are not found.

    Raises
    ------
    ConfigError
        When there is neither.
    """
    path = Path(name)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return path
    presets = {file.stem: _groups(file) for file in PRESETS.glob("*.yaml")}
    known = sorted(stem for stem, groups in presets.items() if groups <= {item.name for item in fields(kind)})
    if name in known:
        return PRESETS / f"{name}.yaml"
    why = "that is a preset for `uniultra distill`" if "teacher" in presets.get(name, ()) else ""
    raise ConfigError(f"There is no configuration {name!r}", why, f"Name a YAML file, or one of {', '.join(known)}")


def _groups(file: Path) -> set[str]:
    return set(yaml.safe_load(file.read_text(encoding="utf-8")))
