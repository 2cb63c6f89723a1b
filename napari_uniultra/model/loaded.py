"""A model that is loaded: what a session computes with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from napari_uniultra.model.config import ModelConfig

if TYPE_CHECKING:  # looking at what models there are needs no torch
    import torch
    from torch import nn

    from napari_uniultra.model.parts import Parts


@dataclass(frozen=True, eq=False)
class Model:
    """A network with weights on a device, ready to segment.

    Attributes
    ----------
    network : SAM2Base
        In evaluation mode.
    config : ModelConfig
    device : torch.device
    name : str
    sha256 : str
        Of its checkpoint: results name it, so that they can be traced to the very weights.
    card : dict
        Training data, licence, version, intended use, normalisation.
    half : bool
        Compute matrix products and convolutions in float16, and the rest in float32.
    compiled : bool
        Compile what tracking computes (`model.compiled`), for GPUs.
    """

    network: nn.Module
    config: ModelConfig
    device: torch.device
    name: str
    sha256: str
    card: dict[str, Any]
    half: bool = False
    compiled: bool = False

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.config.image_size

    @cached_property
    def parts(self) -> Parts:
        """What inference computes with, made when it is first asked for."""
        from napari_uniultra.model.parts import Parts

        return Parts(self.network, self.image_size, self.device, self.compiled)

    def at(self, image_size: int) -> Model:
        """The same weights for an input of another size; made once for each."""
        if image_size == self.image_size:
            return self
        if image_size not in self._at_sizes:
            from napari_uniultra.model.resize import network_at

            network, config = network_at(self.network, image_size), self.config.with_(image_size=image_size)
            self._at_sizes[image_size] = replace(self, network=network, config=config)
        return self._at_sizes[image_size]

    @cached_property
    def _at_sizes(self) -> dict[int, Model]:
        return {}
