"""Devices beside the CPU: nothing is computed, or left behind, on the wrong one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from napari_uniultra.cli import main
from napari_uniultra.errors import ResourceError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import architecture
from napari_uniultra.model.device import available_devices, choose_device, copied_to, is_built_for


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


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((8, 6), ["sm_75", "sm_86"], True),
        ((8, 9), ["sm_75", "sm_86"], True),  # later minor numbers run what was built for earlier ones
        ((8, 0), ["sm_86"], False),
        ((6, 1), ["sm_75", "sm_86", "compute_90"], False),  # an old laptop's
        ((12, 0), ["sm_75", "sm_90"], False),
        ((12, 0), ["sm_75", "compute_90"], True),
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),
        ((10, 3), ["sm_100f"], True),
        ((9, 0), ["gfx90a", "gfx1100"], True),  # AMD's
        ((8, 6), [], True),
    ],
)
def test_which_gpus_a_pytorch_is_built_for(
    capability: tuple[int, int], architectures: list[str], expected: bool
) -> None:
    assert is_built_for(capability, architectures) == expected


def test_a_gpu_that_pytorch_is_not_built_for_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Quadro P620")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_86"])
    assert "cuda" not in available_devices()
    assert choose_device("auto") == torch.device(available_devices()[0])
    with pytest.raises(ResourceError, match="no code for Quadro P620"):
        choose_device("cuda")
    assert main(["doctor"]) in (0, 6)
    assert "no code for Quadro P620" in capsys.readouterr().out
