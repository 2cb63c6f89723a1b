"""Adapter files: what is in them, which base they take, and the viewer's way to them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from napari_uniultra import load_model
from napari_uniultra.core.types import Prompt
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.adapter_file import is_adapter_file, read_adapter_file
from napari_uniultra.model.build import build_network
from napari_uniultra.model.catalogue import find_model, model_sha256
from napari_uniultra.model.checkpoint import read_checkpoint, save_checkpoint
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.loaded import Model
from napari_uniultra.model.zoo import add_model
from napari_uniultra.segment.predictor import Predictor
from napari_uniultra.training.peft_methods import METHODS, apply_method
from napari_uniultra.training.peft_methods.adapter_file import load_adapter, merged_state, save_adapter
from napari_uniultra.training.peft_methods.method import Method
from napari_uniultra.training.peft_methods.settings import MethodSettings

CONFIG = ModelConfig(
    "sam2.1-tiny",
    image_size=64,
    embed_dim=8,
    stages=(1, 1, 2, 1),
    global_att_blocks=(2,),
    window_spec=(8, 4, 2, 2),
)
OPTIONS = {"peft:OFT": {"block": 4}, "lora": {"rank": 3}, "ch_adapter": {"directions": ["vertical"]}}
CARD = {"licence": "CC0-1.0", "description": "An adapter for tests"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the base, whose object is always there."""
    torch.manual_seed(0)
    network = build_network(CONFIG)
    nn.init.constant_(network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 1000)
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_checkpoint(path, network, CONFIG, {})
    return path


def tuned(base: Path, name: str, memory: str = "frozen") -> tuple[nn.Module, Method]:
    """The base's network with a method on it, and with everything that is trained changed a little."""
    if name.startswith("peft:") and find_spec("peft") is None:
        pytest.skip("the optional package peft is not installed")
    network = load_model(base, "cpu").network
    method = apply_method(network, CONFIG, MethodSettings(name, OPTIONS.get(name, {}), memory))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval(), method


def saved(path: Path, base: Path, name: str) -> nn.Module:
    network, method = tuned(base, name)
    original = read_checkpoint(base)
    save_adapter(path, method, network.state_dict(), original.state, original.sha256, "base", CARD)
    return network


def answer(network: nn.Module, config: ModelConfig) -> Tensor:
    predictor = Predictor(Model(network, config, torch.device("cpu"), "", "", {}))
    embedding = predictor.embed(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    prompt = Prompt(box=(8.0, 8.0, 40.0, 48.0))
    return predictor.predict(embedding, predictor.unconditioned(embedding), prompt, (64, 64)).logits


@pytest.mark.parametrize("name", METHODS)
def test_saved_and_loaded_gives_the_same(name: str, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    network = saved(path, base, name)
    original = load_model(base, "cpu")
    expected = answer(network, CONFIG)
    assert not torch.allclose(expected, answer(original.network, CONFIG), atol=1e-3)
    method = load_adapter(path, original.network, original.config, original.sha256)
    assert torch.equal(answer(original.network, CONFIG), expected)
    assert method.settings.name == name
    assert vars(method.options) == vars(tuned(base, name)[1].options)


@pytest.mark.parametrize("name", ["lora", "conv_lora", "ch_adapter", "e2vpt", "dd_adapter", "peft:LoHa"])
def test_the_viewer_loads_it_with_its_base_beside(name: str, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    network = saved(path, base, name)
    (tmp_path / "original.safetensors").write_bytes(base.read_bytes())
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "moved.pt").symlink_to(tmp_path / "elsewhere.pt")
    model = load_model(path, "cpu")
    assert model.card == CARD
    assert model.sha256 == model_sha256(path) == read_adapter_file(path).sha256
    torch.testing.assert_close(answer(model.network, model.config), answer(network, CONFIG), atol=2e-4, rtol=1e-4)


def test_it_holds_only_what_changed(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    network = saved(path, base, "sam2lora")
    tensors = load_file(path)
    assert set(tensors) == {name for name in network.state_dict() if ".lora." in name}
    assert path.stat().st_size < base.stat().st_size / 10
    with safe_open(path, "pt") as file:
        assert read_checkpoint(base).sha256 in file.metadata()["adapter"]


def test_a_change_of_something_frozen_is_kept_too(base: Path, tmp_path: Path) -> None:
    network, method = tuned(base, "lora")
    with torch.no_grad():
        network.image_encoder.neck.convs[0].conv.bias += 1
    original = read_checkpoint(base)
    save_adapter(tmp_path / "a.safetensors", method, network.state_dict(), original.state, original.sha256)
    model = load_model(base, "cpu")
    load_adapter(tmp_path / "a.safetensors", model.network, CONFIG, model.sha256)
    assert torch.equal(answer(model.network, CONFIG), answer(network, CONFIG))


def test_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    saved(path, base, "lora")
    torch.manual_seed(5)
    own, other = read_checkpoint(base).sha256, "0" * 64
    with pytest.raises(CheckpointError, match=rf"adapts another model.*base.*{own}.*{other}"):
        load_adapter(path, build_network(CONFIG), CONFIG, other)


def test_a_base_that_is_not_here_is_named(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    saved(path, base, "lora")
    with pytest.raises(CheckpointError, match=rf"'base' with the SHA-256 {read_checkpoint(base).sha256}.*folder"):
        load_model(path)
    with pytest.raises(CheckpointError, match="Add that model first"):
        add_model(path, "adapted")
    with pytest.raises(CheckpointError, match="is an adapter and no whole model"):
        read_checkpoint(path)


def test_an_added_adapter_finds_its_added_base(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    network = saved(path, base, "vpt")
    add_model(base, "my-base")
    info = add_model(path, "my-probe")
    assert (info.architecture, info.licence) == ("sam2.1-tiny", "CC0-1.0")
    assert info.size_bytes < find_model("my-base").size_bytes
    model = load_model("my-probe", "cpu")
    assert torch.equal(answer(model.network, model.config), answer(network, CONFIG))


def test_an_adapter_of_an_adapter(base: Path, tmp_path: Path) -> None:
    """Fine-tuning goes on from a merged model; its adapter names the first one's file."""
    add_model(base, "my-base")
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    saved(first, base, "lora")
    model = load_model(first, "cpu")
    state = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    method = apply_method(model.network, model.config, MethodSettings("decoder_only"))
    with torch.no_grad():
        model.network.sam_mask_decoder.iou_token.weight += 1
    save_adapter(second, method, model.network.state_dict(), state, model.sha256, model.name)
    assert list(load_file(second)) == ["sam_mask_decoder.iou_token.weight"]
    again = load_model(second, "cpu")
    assert torch.equal(answer(again.network, again.config), answer(model.network, model.config))


@pytest.mark.parametrize("name", ["lora", "ch_adapter", "peft:LoKr"])
def test_merged_into_a_plain_checkpoint(name: str, base: Path, tmp_path: Path) -> None:
    network, method = tuned(base, name)
    path = tmp_path / "merged.safetensors"
    expected = answer(network, CONFIG)
    save_checkpoint(path, merged_state(method, network), method.config, CARD)
    model = load_model(path, "cpu")
    assert not is_adapter_file(path)
    torch.testing.assert_close(answer(model.network, model.config), expected, atol=2e-4, rtol=1e-4)
    assert torch.equal(answer(network, CONFIG), expected), "the network in training is as it was"


def test_weights_other_than_the_networks_own_are_merged(base: Path) -> None:
    network, method = tuned(base, "lora")
    average = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    assert not any(tensor.any() for tensor in merged_state(method, network, average).values())


def test_random_weights_are_no_base(base: Path, tmp_path: Path) -> None:
    network, method = tuned(base, "lora")
    with pytest.raises(CheckpointError, match="needs a base"):
        save_adapter(tmp_path / "a.safetensors", method, network.state_dict(), {}, "")


@pytest.mark.parametrize("memory", ["frozen", "trained"])
def test_the_memory_comes_along_when_it_was_trained(memory: str, base: Path, tmp_path: Path) -> None:
    network, method = tuned(base, "lora", memory)
    original, path = read_checkpoint(base), tmp_path / "a.safetensors"
    save_adapter(path, method, network.state_dict(), original.state, original.sha256)
    assert ("maskmem_tpos_enc" in load_file(path)) == (memory == "trained")
    assert read_adapter_file(path).memory == memory


# --- damaged and hostile files


def rewritten(path: Path, change: str) -> None:
    """Save an adapter file anew with something wrong in it."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    name = next(name for name in tensors if ".lora." in name)
    if change == "missing":
        del tensors[name]
    elif change == "of another shape":
        tensors[name] = torch.zeros(3)
    elif change == "unexpected":
        tensors["stranger"] = torch.zeros(3)
    elif change == "NaN":
        tensors[name] = torch.full_like(tensors[name], torch.nan)
    elif change == "no_such_method":
        metadata["adapter"] = metadata["adapter"].replace('"lora"', '"no_such_method"')
    elif change == "it does not say what it adapts":
        metadata["adapter"] = "[]"
    elif change == "rank is 100000":
        metadata["adapter"] = metadata["adapter"].replace('"rank": 3', '"rank": 100000')
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    "change",
    [
        "missing",
        "of another shape",
        "unexpected",
        "NaN",
        "no_such_method",
        "it does not say what it adapts",
        "rank is 100000",
    ],
)
def test_a_file_that_does_not_fit(change: str, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    saved(path, base, "lora")
    rewritten(path, change)
    model = load_model(base, "cpu")
    with pytest.raises(CheckpointError, match=change):
        load_adapter(path, model.network, CONFIG, model.sha256)


def test_another_file_than_expected_is_refused(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    saved(path, base, "lora")
    for file, read in ((path, read_adapter_file), (base, read_checkpoint)):
        digest = read(file).sha256
        assert read(file, digest).sha256 == digest
        with pytest.raises(CheckpointError, match=f"not the checkpoint it should be.*{digest}, not {'0' * 64}"):
            read(file, "0" * 64)


def test_a_file_that_is_cut(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    saved(path, base, "lora")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        read_adapter_file(path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read_adapter_file(tmp_path / "none.safetensors")
    assert not is_adapter_file(tmp_path / "none.safetensors")
    assert not is_adapter_file(base)
