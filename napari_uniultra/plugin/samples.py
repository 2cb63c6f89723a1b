"""The loops under File > Open Sample > UniUltra."""

from __future__ import annotations

from napari_uniultra import sample_data
from napari_uniultra.io.readers import read_cine
from napari_uniultra.plugin.reader import LayerData, shown


def heart() -> list[LayerData]:
    """A real loop: the beating heart in an apical four-chamber view."""
    return shown(read_cine(sample_data.heart_path()), "Beating heart")


def simulated_loop() -> list[LayerData]:
    """A simulated loop, whose exact masks are known."""
    return shown(read_cine(sample_data.simulated_path()), "Simulated loop")
