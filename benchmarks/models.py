"""The models that are measured; how fast one is does not depend on its weights."""

from __future__ import annotations

from typing import Any

from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.config import ARCHITECTURES


def benchmark_model(name: str, device: str, image_size: int | None = None) -> Any:
    """A model of the zoo at an input size, or an architecture with random weights where there are none for it.

    Raises
    ------
    CheckpointError
        When there is neither.
    ResourceError
        When the machine has no such device.
    """
    from napari_uniultra.model.load import model_at

    try:
        return model_at(name, device, image_size)
    except CheckpointError:
        if name not in ARCHITECTURES:
            raise
    return _random_model(name, device, image_size)


def with_full_memory(model: Any) -> Any:
    """A model's architecture with SAM2's own memory, with random weights."""
    return _random_model(model.config.architecture, str(model.device), model.config.image_size)


def _random_model(name: str, device: str, image_size: int | None) -> Any:
    import torch

    from napari_uniultra.model.build import build_network
    from napari_uniultra.model.config import architecture
    from napari_uniultra.model.device import choose_device
    from napari_uniultra.model.loaded import Model

    config, target = architecture(name), choose_device(device)
    config = config.with_(image_size=image_size or config.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(config)
    return Model(network.to(target), config, target, f"{name} (random weights)", "", {})
