"""Devices beside the CPU: nothing is computed, or left behind, on the wrong one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import architecture
from napari_uniultra.model.device import copied_to


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("same_masks", "uniultra-mini"),
        ("same_masks", "sam2.1-tiny"),
        ("same_masks", "sam2-tiny"),
        ("fallback", "uniultra-mini"),
        ("fallback", "sam2.1-tiny"),
    ],
)
def test_on_a_virtual_device(task: str, model: str) -> None:
    script = Path(__file__).with_name("on_virtual_device.py")
    done = subprocess.run([sys.executable, script, task, model], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_copy_shares_nothing_with_its_network() -> None:
    network = build_network(architecture("uniultra-mini", image_size=64))
    twin = copied_to(network, "cpu")
    for own, other in zip(network.modules(), twin.modules(), strict=True):
        for first, second in zip(tree_leaves(vars(own)), tree_leaves(vars(other)), strict=True):
            if isinstance(first, torch.Tensor):
                assert torch.equal(first, second)
                assert first.data_ptr() != second.data_ptr()
    assert {value.device.type for value in copied_to(network, "meta").state_dict().values()} == {"meta"}


@pytest.mark.parametrize("name", ["uniultra-mini", "sam2.1-tiny"])
def test_a_network_for_the_cpu_asks_for_no_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # of this PyTorch, which fails when it is used
    assert next(build_network(architecture(name)).parameters()).device == torch.device("cpu")
