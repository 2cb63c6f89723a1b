"""The paper's operation counts (Table III), counted the way its tool counts them."""

from __future__ import annotations

import pytest

from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import AdapterConfig, architecture
from napari_uniultra.training.ablation.cost import count_operations


@pytest.mark.parametrize(("name", "giga"), [("uniultra-mini", 7.378), ("uniultra-l", 847.474)])
def test_encoder_and_decoder_at_1024_px(name: str, giga: float) -> None:
    config = architecture(name, version="2.0", image_size=1024, adapter=AdapterConfig(layout="released"))
    assert count_operations(build_network(config))[0] / 1e9 == pytest.approx(giga, abs=5e-4)
