"""What every fine-tuning method is: what it adds to a network, what it trains there, and how it is folded away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from napari_uniultra.core.settings import ConfigError
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.training.peft_methods.settings import MethodSettings

_ENCODER = "image_encoder."
_CONSTANT = ".dense_kernels."  # of the released layout: the fixed edge kernels, stored but never trained


@dataclass(frozen=True)
class NoOptions:
    """A method that has nothing to choose."""


class Method:
    """One method, applied to one network; subclasses say what differs.

    Attributes
    ----------
    title : str
        For tables.
    Options : type
        A frozen dataclass of `settings.setting` fields.
    trains_decoder : bool
        Whether everything outside the image encoder is trained too, as in all rows of the paper's Table V.
    starts_equal : bool
        Whether the network gives what it gave before until it is trained.
    can_merge : bool
        Whether the result can be written as a plain checkpoint of ``config``.
    rates : mapping of str to float
        Learning rates relative to the others', by a part of a parameter's name, as ``optimiser.rates`` takes them.
    settings : MethodSettings
    options : Options
    base_config, config : ModelConfig
        Of the network before and after.
    """

    title: ClassVar[str] = ""
    Options: ClassVar[type] = NoOptions
    trains_decoder: ClassVar[bool] = True
    starts_equal: ClassVar[bool] = True
    can_merge: ClassVar[bool] = True
    rates: ClassVar[Mapping[str, float]] = {}

    def __init__(self, settings: MethodSettings, options: Any, config: ModelConfig) -> None:
        self.settings = settings
        self.options = options
        self.base_config = self.config = config
        self._added: frozenset[str] = frozenset()

    def apply(self, network: nn.Module) -> None:
        """Add the method's parts to a network, in place, and leave only what is to be trained with a gradient."""
        from napari_uniultra.training.optim import is_memory  # it imports the settings, and those this package

        device = next(network.parameters()).device
        before = set(network.state_dict())
        network.requires_grad_(False)
        self.inject(network)
        network.to(device).train(network.training)  # new modules are on the CPU and in training mode
        self._added = frozenset(name for name in network.state_dict() if self.base_name(name) not in before)
        trains_memory = self.settings.memory == "trained"
        for name, parameter in network.named_parameters():
            is_trained = trains_memory if is_memory(name) else self.trains(name)
            parameter.requires_grad_(is_trained and _CONSTANT not in name)

    def inject(self, network: nn.Module) -> None:
        """Add the method's parts; by default there are none."""

    def trains(self, name: str) -> bool:
        """Whether a parameter is trained; not asked of the memory's, which ``settings.memory`` decides."""
        return name in self._added or (self.trains_decoder and not name.startswith(_ENCODER))

    def base_name(self, name: str) -> str:
        """What a weight was called before the method was applied."""
        return name

    def extra_loss(self, network: nn.Module) -> Tensor | None:
        """What the method adds to the loss of the forward pass just made, or None."""
        return None

    def after_backward(self, network: nn.Module, progress: float) -> None:
        """To be called when gradients are there, before the step; ``progress`` goes from 0 to 1 over the run."""

    def merge(self, network: nn.Module) -> None:
        """Fold the method's parts into the weights, in place: a plain network of ``config`` remains.

        Raises
        ------
        ConfigError
            When this method cannot.
        """
        if not self.can_merge:
            raise ConfigError(
                f"The method {self.settings.name} cannot be merged into plain weights",
                "what it adds is no part of the network's architecture",
                "Save it as an adapter, which loads with its base",
            )
        self.fold(network)

    def fold(self, network: nn.Module) -> None:
        """The work of `merge`; by default the network is a plain one already."""


def trainable_parameters(network: nn.Module) -> tuple[int, float]:
    """How many parameters are trained, and their share of all parameters (0 to 1)."""
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return trained, trained / sum(parameter.numel() for parameter in network.parameters())
