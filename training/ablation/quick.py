"""The network of a quick run: small, with random weights, in place of every model that a table starts from."""

from __future__ import annotations

from pathlib import Path

import torch

from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import MemoryConfig, architecture

QUICK_SIZE = 64  # pixels
_FILE = "quick.safetensors"


def quick_start(folder: str | Path) -> str:
    """The path of the network's checkpoint in a folder, where it is written if it is not there yet.

    Raises
    ------
    WriteError
    """
    path = Path(folder) / _FILE
    if not path.exists():
        config = architecture(
            "sam2-tiny",
            image_size=QUICK_SIZE,
            embed_dim=16,
            stages=(1, 1, 2, 1),
            global_att_blocks=(3,),
            memory=MemoryConfig(layers=1, feedforward=64),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build_network(config)
        save_checkpoint(path, network, config, {"description": "random weights, for quick runs of the paper's tables"})
    return str(path)
