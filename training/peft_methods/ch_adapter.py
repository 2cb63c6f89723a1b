"""CH-Adapters, UniUltra's own method: context and edges beside every block's MLP (arXiv 2511.15771, Eqs. 1 to 3)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from torch import nn

from napari_uniultra.core.settings import ConfigError, setting
from napari_uniultra.model.config import AdapterConfig
from napari_uniultra.training.peft_methods.method import Method

_DEFAULT = AdapterConfig()


@dataclass(frozen=True)
class Options:
    """The adapters to add to a plain SAM2; a network that has adapters keeps and trains its own."""

    operator: str = setting(
        _DEFAULT.operator, choices=("sobel", "laplace", "canny"), help="Edge operator (Table VIII)."
    )
    directions: tuple[str, ...] = setting(
        _DEFAULT.directions,
        choices=_DEFAULT.directions,
        help="Sobel directions (Table VI); none of them leaves the context branch alone.",
    )
    reduction: str = setting(
        _DEFAULT.reduction,
        choices=("magnitude", "sum"),
        help="How directions are joined: root of the sum of squares, or Eq. 2's plain sum.",
    )
    scale: float = setting(_DEFAULT.scale, low=0, high=10, help="Weight of the adapters beside the MLPs.")
    hidden_ratio: float = setting(
        _DEFAULT.hidden_ratio, low=1 / 64, high=4, help="Hidden width of the context branch over the block's width."
    )
    edge_channels: int = setting(
        _DEFAULT.edge_channels, low=1, high=64, help="Channels that the embedded patches are reduced to."
    )
    layout: str = setting(
        _DEFAULT.layout,
        choices=("corrected", "released"),
        help="released also stores the edge kernels in every adapter, as the paper's counts have it.",
    )


class CHAdapterMethod(Method):
    """Trains the CH-Adapters and everything outside the image encoder."""

    title = "CH-Adapter"
    Options = Options

    def inject(self, network: nn.Module) -> None:
        asked = AdapterConfig(**asdict(self.options))
        own = self.base_config.adapter
        if own is None:
            network.image_encoder.trunk.add_adapters(asked)
            self.config = self.base_config.with_(adapter=asked)
        elif replace(asked, layout=own.layout) != own:
            differing = [name for name, value in asdict(own).items() if getattr(asked, name) != value]
            raise ConfigError(
                "The network has CH-Adapters of another kind",
                f"its {', '.join(f'{name} is {getattr(own, name)!r}' for name in differing)}",
                "Set method.options to that, or start from a plain SAM2",
            )

    def trains(self, name: str) -> bool:
        return super().trains(name) or ".adapter." in name or ".patch_mixer." in name


METHOD = CHAdapterMethod
