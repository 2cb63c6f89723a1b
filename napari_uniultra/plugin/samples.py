"""The loops under File > Open Sample > UniUltra."""

from __future__ import annotations

from napari_uniultra import sample_data
from napari_uniultra.io.readers import read_cine
from napari_uniultra.plugin.reader import LayerData, image_layer


def liver_sweep() -> list[LayerData]:
    """A real loop: a sweep of the probe over the liver."""
    return [image_layer(read_cine(sample_data.liver_sweep_path()), "Liver sweep")]


def simulated_loop() -> list[LayerData]:
    """A simulated loop, whose exact masks are known."""
    return [image_layer(read_cine(sample_data.simulated_loop_path()), "Simulated loop")]
