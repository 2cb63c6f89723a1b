"""The zoo: models by name and by path, adding and removing them, and downloads from a server on this machine."""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from weight_server import Server, source

from napari_uniultra import load_model
from napari_uniultra.core.digest import sha256_of
from napari_uniultra.core.lock import InUseError
from napari_uniultra.errors import CheckpointError, ResourceError
from napari_uniultra.model import catalogue, room, zoo
from napari_uniultra.model.build import build_network
from napari_uniultra.model.catalogue import find_model, list_models, model_card, model_sha256, models_folder
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import ARCHITECTURES, architecture
from napari_uniultra.model.device import available_devices, choose_device, describe_device, where_it_runs
from napari_uniultra.model.download import DOWNLOADS, Download, fetch
from napari_uniultra.model.zoo import add_model, download_model, pack_model, remove_model

CONFIG = architecture("uniultra-mini", image_size=64)
CARD = {"licence": "Apache-2.0", "description": "A model for tests"}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return build_network(CONFIG)


@pytest.fixture(scope="module")
def checkpoint(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "My Model.safetensors"
    save_checkpoint(path, network, CONFIG, CARD)
    return path


def names(origin: str) -> list[str]:
    return [info.name for info in list_models() if info.origin == origin]


# --- loading


def test_a_path_loads(checkpoint: Path, network: torch.nn.Module) -> None:
    model = load_model(checkpoint, device="cpu")
    assert (model.config, model.image_size, model.card) == (CONFIG, 64, CARD)
    assert (model.device, model.name) == (torch.device("cpu"), "My Model")
    assert model.sha256 == sha256_of(checkpoint) == model_sha256(checkpoint)
    assert not model.network.training
    state = model.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


def test_a_text_and_a_folder_of_shards_load(network: torch.nn.Module, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    save_checkpoint(folder, network, CONFIG, CARD, max_shard_bytes=20 << 20)
    assert load_model(str(checkpoint)).config == load_model(str(folder)).config == CONFIG


def test_loading_touches_no_random_generator(checkpoint: Path) -> None:
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    load_model(checkpoint)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("uniultra-l", "authors have published none.*weights add"),
        ("sam2.1-tiny", "156 MB.*Apache-2.0.*uniultra weights download sam2.1-tiny"),
        ("no-such-model", "no model or file called 'no-such-model'.*sam2-tiny"),
        ("folder/none.pt", "no model or file"),
        ("x" * 5000, "no model or file"),
    ],
)
def test_a_model_that_is_not_here_says_how_to_get_it(name: str, words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_model(name)
    assert re.search(words, str(caught.value))


def test_weights_of_another_network_are_refused(network: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    save_checkpoint(path, network, CONFIG.with_(embed_dim=24), CARD)
    with pytest.raises(CheckpointError, match=r"wrong\.safetensors does not fit .*of another shape"):
        load_model(path)


def test_a_configuration_that_describes_no_network_is_refused(network: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_checkpoint(path, network, CONFIG.with_(stages=(1.5, 2, 7, 2)), CARD)
    with pytest.raises(CheckpointError, match=r"cannot be understood.*stages\[0\] is 1\.5"):
        load_model(path)


def test_a_small_file_cannot_ask_for_a_large_network(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.safetensors"
    save_checkpoint(path, network, CONFIG.with_(embed_dim=512, stages=(64, 64, 64, 64)), CARD)

    def built(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("napari_uniultra.model.load.build_network", built)
    with pytest.raises(CheckpointError, match="far fewer weights"):
        load_model(path)


# --- what is known without loading


def test_the_numbers_of_parameters_are_those_of_the_networks() -> None:
    for info in list_models():
        if info.origin == "downloadable":
            network = build_network(architecture(info.name))
            assert info.parameters == sum(parameter.numel() for parameter in network.parameters()), info.name
    bundled = load_model("uniultra-mini", device="cpu")
    count = sum(parameter.numel() for parameter in bundled.network.parameters())
    assert find_model("uniultra-mini").parameters == count


def test_a_card_is_read_without_the_weights(checkpoint: Path) -> None:
    assert model_card(find_model("uniultra-mini")) == load_model("uniultra-mini", device="cpu").card
    assert model_card(add_model(checkpoint)) == load_model(checkpoint).card
    assert model_card(find_model("sam2.1-tiny")) == {}
    find_model("my-model").path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="cut short"):
        model_card(find_model("my-model"))


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_too_little_memory_is_said_before_loading(
    dtype: str, network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, weights = tmp_path / "My Model.safetensors", sum(value.numel() for value in network.state_dict().values())
    save_checkpoint(path, network, CONFIG, CARD, dtype=dtype)
    needed = room.memory_to_load(weights * (2 if dtype == "fp16" else 4), weights)
    for available, fits in ((needed, True), (needed - 1, False)):
        memory = SimpleNamespace(available=available, total=needed)
        monkeypatch.setattr(room.psutil, "virtual_memory", lambda memory=memory: memory)
        if fits:
            assert load_model(path).name == "My Model"
        else:
            for load in (load_model, add_model):
                with pytest.raises(ResourceError, match=r"(?i)too little memory .*My.Model.*GB.*smaller model"):
                    load(path)
    assert not room.is_too_large(needed, 0)
    assert room.is_too_large(needed + 1, 0)


LOAD = """
import re, sys
from pathlib import Path
from napari_uniultra import load_model

def resident(kind):
    return 1024 * int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

kept = load_model("uniultra-mini", "cpu")  # what is imported and made once is no part of it
before = resident("VmRSS")
network = load_model(sys.argv[1], "cpu").network
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the most memory a process had")
def test_a_model_stored_as_fp16_takes_the_memory_that_is_said(tmp_path: Path) -> None:
    config, path = architecture("sam2.1-tiny"), tmp_path / "tiny.safetensors"
    network = build_network(config)
    save_checkpoint(path, network, config, CARD, dtype="fp16")
    said = room.memory_to_load(path.stat().st_size, sum(value.numel() for value in network.state_dict().values()))
    done = subprocess.run([sys.executable, "-c", LOAD, path], capture_output=True, text=True, check=True)
    assert 0.9 * said < int(done.stdout) < said + 50e6  # what is needed on the way


LOAD_WITHIN = """
import re, resource, sys
from pathlib import Path
from napari_uniultra import load_model
from napari_uniultra.errors import ResourceError
from napari_uniultra.model.zoo import add_model

load_model("uniultra-mini", "cpu")
size = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]),) * 2)
for load in load_model, add_model:
    try:
        load(sys.argv[1])
    except ResourceError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory that a process has")
@pytest.mark.parametrize("megabytes", [120, 220])  # too few to read the file, or to build the network
def test_memory_that_runs_out_on_the_way_is_not_the_models_fault(megabytes: int, tmp_path: Path) -> None:
    config, path = architecture("sam2.1-tiny"), tmp_path / "tiny.safetensors"
    save_checkpoint(path, build_network(config), config, CARD, dtype="fp16")
    command = [sys.executable, "-c", LOAD_WITHIN, path, str(megabytes << 20)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.count("There is too little memory for the model 'tiny'") == 2, done.stderr


# --- devices


@pytest.mark.parametrize("words", ["CUDA error: out of memory", "MPS backend out of memory (MPS allocated: 9 GB)"])
def test_a_device_that_is_full_is_told(words: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError(words)  # as it is where a context cannot be made, and on Macs

    monkeypatch.setattr(torch.nn.Module, "to", refuse)
    with pytest.raises(ResourceError, match="does not fit into the memory of cpu"):
        load_model(checkpoint, "cpu")


def test_where_a_model_runs_in_words() -> None:
    assert re.fullmatch(r"on the processor \(\d+ cores?\)", where_it_runs(torch.device("cpu")))


def test_devices() -> None:
    assert available_devices()[-1] == "cpu"
    assert choose_device("auto") == torch.device(available_devices()[0])
    assert choose_device("cpu") == torch.device("cpu")
    threads = torch.get_num_threads()
    try:
        for count, words in ((1, "CPU, 1 thread of"), (2, "CPU, 2 threads of")):
            torch.set_num_threads(count)
            assert words in describe_device(torch.device("cpu"))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", [name for name in ("cuda", "mps") if name not in available_devices()])
def test_a_device_that_is_not_there(name: str, checkpoint: Path) -> None:
    with pytest.raises(ResourceError, match=f"no device '{name}'.*cpu"):
        load_model(checkpoint, device=name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:99", "cuda:x", "cpu:1"])
def test_a_device_that_does_not_exist(name: str) -> None:
    with pytest.raises(ResourceError, match="no device"):
        choose_device(name)


# --- adding and removing


def test_adding_and_removing(checkpoint: Path) -> None:
    info = add_model(checkpoint)
    assert (info.name, info.origin, info.architecture, info.image_size) == ("my-model", "added", "uniultra-mini", 64)
    assert (info.licence, info.description) == (CARD["licence"], CARD["description"])
    assert info.size_bytes == checkpoint.stat().st_size
    assert models_folder() in info.path.parents
    assert names("added") == ["my-model"]
    model = load_model("my-model")
    assert (model.name, model.sha256) == ("my-model", info.sha256) == ("my-model", model_sha256("my-model"))
    remove_model("my-model")
    assert names("added") == []
    assert list(models_folder().iterdir()) == []
    assert checkpoint.exists()


def test_adding_a_folder_takes_only_the_model(network: torch.nn.Module, tmp_path: Path) -> None:
    folder = tmp_path / "probe-a"
    save_checkpoint(folder, network, CONFIG, CARD, max_shard_bytes=20 << 20)
    (folder / "patient notes.txt").write_text("private")
    info = add_model(folder)
    assert info.name == "probe-a"
    assert {path.name for path in info.path.iterdir()} == {
        "info.json",
        "model.json",
        *(f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)),
    }
    assert load_model("probe-a").sha256 == info.sha256


@pytest.mark.parametrize("name", ["", "../up", "a/b", "A", ".hidden", "a b", "x" * 65, "sam2-tiny"])
def test_names_that_cannot_be_used(name: str, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError):
        add_model(checkpoint, name)
    assert names("added") == []


def test_a_name_is_used_once(checkpoint: Path) -> None:
    add_model(checkpoint, "mine")
    with pytest.raises(CheckpointError, match="already a model called 'mine'"):
        add_model(checkpoint, "mine")
    with pytest.raises(CheckpointError, match="No model called 'other'"):
        remove_model("other")


def test_a_damaged_file_is_not_added(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        add_model(path)
    assert not models_folder().exists() or not list(models_folder().iterdir())


def test_an_added_model_that_was_changed_is_refused(checkpoint: Path) -> None:
    path = add_model(checkpoint, "mine").path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_model("mine")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"path": 1}'])
def test_a_damaged_entry_hides_no_other(content: str, checkpoint: Path) -> None:
    add_model(checkpoint, "good")
    add_model(checkpoint, "bad")
    (models_folder() / "bad" / "info.json").write_text(content)
    assert names("added") == ["bad", "good"]
    assert "damaged" in find_model("bad").description
    remove_model("bad")
    assert names("added") == ["good"]


def test_a_bundled_model_goes_first_and_stays(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's folder of models, in a place of the test's own."""
    monkeypatch.setattr(catalogue, "bundled_folder", lambda: tmp_path / "bundled")
    pack_model(checkpoint, tmp_path / "bundled" / "uniultra-mini")
    assert find_model("uniultra-mini").origin == "bundled"
    assert load_model().name == "uniultra-mini"
    with pytest.raises(CheckpointError, match="already"):
        add_model(checkpoint, "uniultra-mini")
    with pytest.raises(CheckpointError, match="was added"):
        remove_model("uniultra-mini")


def test_what_is_bundled_is_whole() -> None:
    for info in list_models():
        if info.origin == "bundled":
            assert load_model(info.name, device="cpu").sha256 == info.sha256


# --- downloads


def test_the_eight_official_models_can_be_downloaded() -> None:
    official = [name for name, config in ARCHITECTURES.items() if config.adapter is None]
    assert sorted(DOWNLOADS) == sorted(official) == sorted(names("downloadable"))
    for download in DOWNLOADS.values():
        assert download.url.startswith("https://dl.fbaipublicfiles.com/segment_anything_2/")
        assert re.fullmatch("[0-9a-f]{64}", download.sha256)
        assert download.licence == "Apache-2.0"


def downloaded_files() -> list[str]:
    folder = models_folder().parent / "downloads"
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_download_becomes_a_model(server: Server, official_file: bytes) -> None:
    seen = []
    info = download_model("sam2.1-tiny", progress=lambda *args: seen.append(args), source=source(server, official_file))
    assert (info.name, info.origin, info.architecture) == ("sam2.1-tiny", "added", "sam2.1-tiny")
    assert seen[-1] == (len(official_file), len(official_file))
    assert load_model("sam2.1-tiny").config == architecture("sam2.1-tiny")
    assert "sam2.1-tiny" not in names("downloadable")
    assert downloaded_files() == []
    with pytest.raises(CheckpointError, match="already"):
        download_model("sam2.1-tiny", source=source(server, official_file))


@pytest.mark.parametrize("resumable", [True, False])
def test_a_cut_download_goes_on(resumable: bool, server: Server, official_file: bytes) -> None:
    download = source(server, official_file)
    server.mode = "cut"
    with pytest.raises(ResourceError, match=r"(cut short|cannot be downloaded).*go on"):
        download_model("sam2.1-tiny", source=download)
    assert names("added") == []
    assert downloaded_files() == ["model.pt.part"]
    server.mode = "good" if resumable else "no ranges"
    assert download_model("sam2.1-tiny", source=download).origin == "added"
    assert server.requests == ["", f"bytes={len(official_file) // 2}-"]


def test_a_cancelled_download_goes_on(server: Server, official_file: bytes) -> None:
    download = source(server, official_file)

    def cancel(have: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_model("sam2.1-tiny", progress=cancel, source=download)
    assert names("added") == []
    assert download_model("sam2.1-tiny", source=download).origin == "added"


@pytest.mark.parametrize("change", ["other bytes", "too long"])
def test_another_file_is_not_taken(change: str, server: Server, official_file: bytes) -> None:
    download = source(server, official_file)
    server.content = official_file[:-1] + b"x" if change == "other bytes" else official_file + b"x"
    with pytest.raises(CheckpointError, match="not the expected file"):
        download_model("sam2.1-tiny", source=download)
    assert names("added") == downloaded_files() == []


def test_a_file_is_downloaded_once_at_a_time(server: Server, official_file: bytes) -> None:
    download = source(server, official_file)
    server.mode = "slow"
    with ThreadPoolExecutor() as pool:
        begun = threading.Event()
        first = pool.submit(download_model, "sam2.1-tiny", lambda *_: begun.set(), download)
        assert begun.wait(10)
        with pytest.raises(InUseError, match="is in use"):
            download_model("sam2.1-tiny", source=download)
        server.released.set()
        with pytest.raises(ResourceError, match="cut short"):
            first.result()
    server.mode = "good"
    assert download_model("sam2.1-tiny", source=download).origin == "added"
    assert downloaded_files() == []


def test_a_download_that_cannot_be_added_need_not_come_again(
    server: Server, official_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = source(server, official_file)
    with monkeypatch.context() as context:
        context.setattr(zoo, "pack_model", lambda *_args, **_kwargs: shutil.copyfile("/nowhere", "/dev/null"))
        with pytest.raises(FileNotFoundError):
            download_model("sam2.1-tiny", source=download)
    server.mode = "missing"
    assert download_model("sam2.1-tiny", source=download).origin == "added"


def test_a_file_that_is_another_model_is_not_taken(server: Server) -> None:
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        download_model("sam2.1-tiny", source=source(server, b"something else"))
    assert names("added") == downloaded_files() == []


def test_a_server_without_the_file(server: Server, official_file: bytes) -> None:
    server.mode = "missing"
    with pytest.raises(ResourceError, match="the server answered 404"):
        download_model("sam2.1-tiny", source=source(server, official_file))


def test_a_server_that_falls_silent(server: Server, official_file: bytes, tmp_path: Path) -> None:
    server.mode = "silent"
    with pytest.raises(ResourceError, match="did not answer in time"):
        fetch(source(server, official_file), tmp_path / "model.pt", timeout_s=0.3)


def test_no_network(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/model.pt"
        with pytest.raises(ResourceError, match=r"cannot be downloaded.*Connection refused.*Check the network"):
            fetch(Download(url, 10, "0" * 64), tmp_path / "model.pt")


def test_a_disk_without_room(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="too full"):
        fetch(Download("http://127.0.0.1:9/model.pt", 1 << 60, "0" * 64), tmp_path / "model.pt")


def test_only_official_models_can_be_downloaded() -> None:
    with pytest.raises(CheckpointError, match=r"cannot be downloaded.*sam2\.1-large"):
        download_model("uniultra-l")


def test_facts_are_json(checkpoint: Path) -> None:
    add_model(checkpoint)
    assert json.loads(json.dumps([catalogue.as_dict(info) for info in list_models()]))
