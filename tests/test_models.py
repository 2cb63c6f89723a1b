"""The networks: the paper's parameter counts, the official SAM2 models, and the trunk beside sam2's own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from sam2.modeling.backbones.hieradet import Hiera

from napari_uniultra import Cine, CineSession
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import ARCHITECTURES, AdapterConfig, ModelConfig, architecture
from napari_uniultra.model.fit import load_into
from napari_uniultra.model.loaded import Model

OFFICIAL = [name for name, config in ARCHITECTURES.items() if config.adapter is None]


def count(module: torch.nn.Module, *parts: str) -> int:
    """Parameters of a module, or of those whose name holds one of ``parts``."""
    return sum(p.numel() for name, p in module.named_parameters() if not parts or any(part in name for part in parts))


def released(name: str) -> ModelConfig:
    """The layout that the paper's numbers count: dense edge kernels in every adapter, on SAM2 2.0."""
    return architecture(name, version="2.0", adapter=AdapterConfig(layout="released"))


# --- the paper's counts


@pytest.fixture(scope="module")
def large_released() -> torch.nn.Module:
    return build_network(released("uniultra-l"))


@pytest.fixture(scope="module")
def mini_released() -> torch.nn.Module:
    return build_network(released("uniultra-mini"))


SAM2_LARGE, SAM2_LARGE_ENCODER = 224_430_130, 212_703_280
OUTSIDE_ENCODER = 11_726_850


def test_uniultra_l_counts_as_in_the_paper(large_released: torch.nn.Module) -> None:
    assert count(large_released) == 233_529_710
    assert count(large_released.image_encoder) == 221_802_860
    mlps = count(large_released, "adapter.down", "adapter.up")
    channel_mixers = count(large_released, "channel_mixer")
    patch_mixer = count(large_released, "patch_mixer")
    outside = count(large_released) - count(large_released.image_encoder)
    assert (mlps, channel_mixers, patch_mixer, outside) == (8_929_944, 136_800, 5_188, OUTSIDE_ENCODER)
    trainable = mlps + channel_mixers + patch_mixer + outside
    assert trainable == 20_798_782  # "20.80 M"
    assert round(100 * trainable / count(large_released), 4) == 8.9063  # "8.91 %"


def test_dense_kernels_are_no_trainable_parameters(large_released: torch.nn.Module) -> None:
    """The released layout counts them; nothing may train them."""
    kernels = {name: p for name, p in large_released.named_parameters() if "dense_kernels" in name}
    assert len(kernels) == 4 * 48
    assert {tuple(p.shape) for p in kernels.values()} == {(4, 4, 3, 3)}
    assert not any(p.requires_grad for p in kernels.values())


def test_uniultra_mini_counts_as_in_the_paper(mini_released: torch.nn.Module) -> None:
    encoder = mini_released.image_encoder
    assert count(mini_released) == 12_591_370
    assert count(encoder) == 864_520  # "0.86 M"
    assert count(encoder.trunk) == 802_056
    assert count(encoder.trunk, "adapter.") == 43_684
    assert count(encoder.trunk, "patch_mixer") == 580
    assert count(encoder.neck) == 62_464
    # "94.08 % smaller" compares the whole of the one with the encoder of the other
    assert round(100 * (1 - count(mini_released) / SAM2_LARGE_ENCODER), 4) == 94.0803
    assert round(100 * (1 - count(mini_released) / SAM2_LARGE), 2) == 94.39


def test_table_v_rows_that_reproduce(large_released: torch.nn.Module) -> None:
    assert round(100 * OUTSIDE_ENCODER / SAM2_LARGE, 2) == 5.23  # decoder only, 11.73 M
    mlps = count(large_released, "adapter.down", "adapter.up")
    assert round((mlps + OUTSIDE_ENCODER) / 1e6, 2) == 20.66  # adapter
    assert round(100 * (mlps + OUTSIDE_ENCODER) / (SAM2_LARGE + mlps), 2) == 8.85


@pytest.mark.parametrize("name", ["uniultra-mini", "uniultra-l"])
def test_corrected_layout_lacks_only_the_dense_kernels(name: str, request: pytest.FixtureRequest) -> None:
    """Depthwise kernels are constants, so that our counts are smaller by 4 x (4, 4, 3, 3) an adapter."""
    dense = request.getfixturevalue("large_released" if name == "uniultra-l" else "mini_released")
    ours = build_network(architecture(name, version="2.0"))
    blocks = len(ours.image_encoder.trunk.blocks)
    assert count(ours) == count(dense) - blocks * 4 * 4 * 4 * 3 * 3
    assert count(ours) == {"uniultra-mini": 12_584_458, "uniultra-l": 233_502_062}[name]
    assert set(dense.state_dict()) - set(ours.state_dict()) == {
        f"image_encoder.trunk.blocks.{block}.adapter.dense_kernels.{kernel}"
        for block in range(blocks)
        for kernel in range(4)
    }


@pytest.mark.parametrize("name", ["uniultra-mini", "sam2-tiny"])
def test_version_21_adds_three_small_modules(name: str) -> None:
    old, new = (build_network(architecture(name, version=version)) for version in ("2.0", "2.1"))
    assert set(new.state_dict()) - set(old.state_dict()) == {
        "no_obj_embed_spatial",
        "obj_ptr_tpos_proj.weight",
        "obj_ptr_tpos_proj.bias",
    }
    assert count(new) - count(old) == 64 + 256 * 64 + 64


# --- the official models

OFFICIAL_COUNTS = {
    "sam2-tiny": 38_945_986,
    "sam2-small": 46_043_842,
    "sam2-base-plus": 80_833_666,
    "sam2-large": SAM2_LARGE,
    "sam2.1-tiny": 38_962_498,
    "sam2.1-small": 46_060_354,
    "sam2.1-base-plus": 80_850_178,
    "sam2.1-large": 224_446_642,
}

REFERENCE = """
import json, sys
from pathlib import Path
import sam2
from hydra.utils import instantiate
from omegaconf import OmegaConf

SIZES = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}

def settings(network):
    return {
        f"{name}.{key}": value
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_") and isinstance(value, (int, float, str, bool))
    }

found = {}
for name in sys.argv[1:]:
    version, size = name.split("-", 1)
    file = Path(sam2.__file__).parent / "configs" / version / f"{version}_hiera_{SIZES[size]}.yaml"
    config = OmegaConf.load(file).model
    config["binarize_mask_from_pts_for_mem_enc"] = True  # build_sam2_video_predictor sets these
    config["sam_mask_decoder_extra_args"] = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    network = instantiate(config, _recursive_=True).eval()
    found[name] = {
        "shapes": {key: list(value.shape) for key, value in network.state_dict().items()},
        "settings": settings(network),
    }
print("FOUND " + json.dumps(found))
"""


@pytest.fixture(scope="module")
def official() -> dict[str, dict]:
    """Shapes and settings of the networks that sam2's own YAML files describe, built in another process by Hydra."""
    command = [sys.executable, "-c", REFERENCE, *OFFICIAL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    return json.loads(line.removeprefix("FOUND "))


def plain_settings(network: torch.nn.Module) -> dict[str, object]:
    return {
        f"{name}.{key}": value
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_") and isinstance(value, (int, float, str, bool))
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_models_are_those_of_their_yaml_files(name: str, official: dict[str, dict]) -> None:
    ours = build_network(architecture(name))
    assert {key: list(value.shape) for key, value in ours.state_dict().items()} == official[name]["shapes"]
    assert plain_settings(ours) == official[name]["settings"]
    assert count(ours) == OFFICIAL_COUNTS[name]
    if name == "sam2-large":
        assert count(ours.image_encoder) == SAM2_LARGE_ENCODER


# --- the trunk


def randomise(network: torch.nn.Module, seed: int = 0) -> None:
    """Weights far from their initial values, where position embeddings and biases are zero and hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


# As SAM2-L in all that shapes the computation, but shallower.
SHALLOW_LARGE = {"stages": (2, 3, 5, 2), "global_att_blocks": (6, 7, 9)}


@pytest.mark.parametrize(
    ("name", "size", "changes"),
    [
        ("uniultra-mini", 64, {}),
        ("uniultra-mini", 512, {}),
        ("sam2-tiny", 160, {}),
        ("sam2.1-base-plus", 96, {}),
        ("sam2-large", 224, SHALLOW_LARGE),
    ],
)
def test_trunk_computes_what_sam2_computes(name: str, size: int, changes: dict) -> None:
    trunk = build_network(architecture(name, adapter=None, image_size=size, **changes)).image_encoder.trunk
    randomise(trunk)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours, theirs = trunk(images), Hiera.forward(trunk, images)
    assert len(ours) == len(theirs) == 4
    for own, reference in zip(ours, theirs, strict=True):
        assert torch.equal(own, reference)


def session_logits(network: torch.nn.Module, config: ModelConfig) -> list[np.ndarray]:
    """Mask logits of a box, a correction and two tracked frames."""
    frames = np.random.default_rng(0).integers(0, 255, (3, 90, 120), dtype=np.uint8)
    model = Model(network, config, torch.device("cpu"), "test", "0" * 64, {})
    session = CineSession(Cine(frames), model)
    session.add_box(1, 0, (20, 15, 80, 60))
    session.add_points(1, 0, [(40, 40)], [1])
    list(session.propagate("forward"))
    return [session.logits(1, frame) for frame in range(3)]


@pytest.mark.parametrize(
    ("name", "base_name"),
    [("uniultra-mini", None), pytest.param("uniultra-l", "sam2.1-large", marks=pytest.mark.slow)],
)
def test_untrained_adapters_change_nothing(name: str, base_name: str | None) -> None:
    """Bit for bit the masks of its base, on the same weights."""
    config = architecture(name, image_size=128)
    base_config = replace(config, adapter=None) if base_name is None else architecture(base_name, image_size=128)
    config = replace(config, version=base_config.version)
    torch.manual_seed(0)
    base = build_network(base_config)
    randomise(base)
    with torch.no_grad():  # the object is always there: for an absent one every logit is the same number
        base.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(10)
    adapted = build_network(config)
    load_into(adapted, base.state_dict(), allow_missing_adapters=True)
    assert count(adapted) > count(base)
    for expected, found in zip(session_logits(base, base_config), session_logits(adapted, config), strict=True):
        assert np.isfinite(expected).all()
        assert np.ptp(expected) > 0
        np.testing.assert_array_equal(found, expected)


def test_adapting_the_wrong_base_is_refused() -> None:
    base = build_network(architecture("sam2-tiny", image_size=64))
    network = build_network(architecture("uniultra-mini", image_size=64, version="2.0"))
    with pytest.raises(CheckpointError, match=r"of another shape .*patch_embed"):
        load_into(network, base.state_dict(), allow_missing_adapters=True)


# --- configurations


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_configurations_survive_json(name: str) -> None:
    config = architecture(name)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "changes",
    [
        {"embed_dim": 10**9},
        {"stages": [1, 2, 10**6, 2]},
        {"stages": [1, 2]},
        {"stages": ["a", 1, 1, 1]},
        {"image_size": 100},
        {"image_size": 10**6},
        {"num_heads": 0},
        {"version": "3"},
        {"adapter": {"operator": "prewitt"}},
        {"adapter": {"edge_channels": 10**6}},
        {"adapter": {"directions": ["up"]}},
        {"nonsense": 1},
        {"architecture": [1]},
        {"image_size": 64.0},
        {"global_att_blocks": ["a"]},
        {"box_prior": "false"},
        {"smooth": -1},
        {"smooth": float("nan")},
        {"smooth": 1e4},
        {"smooth": "a"},
        {"adapter": {"scale": float("nan")}},
        {"prompted_iou": [["a", "b"]]},
    ],
    ids=str,
)
def test_configurations_from_files_are_checked(changes: dict) -> None:
    with pytest.raises(CheckpointError):
        ModelConfig.from_dict({"architecture": "x", **changes})


def test_an_unknown_architecture_names_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="uniultra-mini"):
        architecture("sam3")
