"""Checkpoints: what is written is read back, and what is wrong, cut short or hostile is refused in words."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_uniultra.core.digest import sha256_of
from napari_uniultra.errors import CheckpointError, WriteError
from napari_uniultra.model.about import FORMAT, INDEX_NAME
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import read_checkpoint, save_checkpoint
from napari_uniultra.model.config import ARCHITECTURES, ModelConfig, architecture
from napari_uniultra.model.fit import load_into

CONFIG = architecture("uniultra-mini", image_size=64)
CARD = {"licence": "Apache-2.0", "training_data": "none", "version": "1", "intended_use": "tests"}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return build_network(CONFIG)


@pytest.fixture
def good(network: torch.nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, network, CONFIG, CARD)
    return path


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# --- round trips


def test_a_file_holds_everything(network: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "model.safetensors"
    digest = save_checkpoint(path, network, CONFIG, CARD)
    checkpoint = read_checkpoint(path, digest)
    assert checkpoint.config == CONFIG
    assert checkpoint.card == CARD
    assert checkpoint.sha256 == digest == sha256_of(path)
    assert_same(checkpoint.state, network.state_dict())
    assert list(path.parent.iterdir()) == [path], "no temporary file stays"


def test_the_same_weights_are_the_same_file(network: torch.nn.Module, tmp_path: Path) -> None:
    card = {"licence": "Apache-2.0", "trained_on": "Bilder für alle\u2028, \x07"}
    digests = {save_checkpoint(tmp_path / f"{number}.safetensors", network, CONFIG, card) for number in range(12)}
    assert len(digests) == 1
    assert read_checkpoint(tmp_path / "0.safetensors").card == card


def test_any_program_can_read_the_file(network: torch.nn.Module, good: Path) -> None:
    assert_same(load_file(good), network.state_dict())


def test_fp16_is_half_the_size_and_float32_in_a_network(network: torch.nn.Module, good: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, network.state_dict(), CONFIG, CARD, dtype="fp16")
    assert half.stat().st_size < 0.51 * good.stat().st_size
    loaded = build_network(CONFIG)
    load_into(loaded, read_checkpoint(half).state)
    for name, value in network.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-7)


def test_shards(network: torch.nn.Module, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    digest = save_checkpoint(folder, network, CONFIG, CARD, max_shard_bytes=20 << 20)
    index = json.loads((folder / INDEX_NAME).read_text())
    assert [shard["file"] for shard in index["shards"]] == [f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)]
    assert {path.name for path in folder.iterdir()} == {INDEX_NAME, *(shard["file"] for shard in index["shards"])}
    for shard in index["shards"]:
        assert (shard["size"], shard["sha256"]) == (
            (folder / shard["file"]).stat().st_size,
            sha256_of(folder / shard["file"]),
        )
    checkpoint = read_checkpoint(folder, digest)
    assert (checkpoint.config, checkpoint.card) == (CONFIG, CARD)
    assert_same(checkpoint.state, network.state_dict())


def test_an_existing_folder_is_not_overwritten(network: torch.nn.Module, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(WriteError, match="exists already"):
        save_checkpoint(folder, network, CONFIG, CARD, max_shard_bytes=20 << 20)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mine.txt"]


@pytest.mark.parametrize("kind", ["nan", "too large for fp16"])
def test_weights_that_are_no_numbers_are_not_saved(kind: str, network: torch.nn.Module, good: Path) -> None:
    before = sha256_of(good)
    state = dict(network.state_dict())
    state["no_mem_embed"] = torch.full_like(state["no_mem_embed"], torch.nan if kind == "nan" else 1e6)
    with pytest.raises(CheckpointError, match="no_mem_embed"):
        save_checkpoint(good, state, CONFIG, CARD, dtype="fp32" if kind == "nan" else "fp16")
    assert sha256_of(good) == before


FULL_DISK = """
import resource, signal, sys, torch
from napari_uniultra.errors import WriteError
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import architecture

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    save_checkpoint(sys.argv[1], {"a": torch.zeros(1 << 20)}, architecture("uniultra-mini"), {}, **eval(sys.argv[2]))
except WriteError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("options", ["{}", "{'max_shard_bytes': 1 << 30}"])
def test_a_disk_that_refuses_leaves_the_old_file(options: str, good: Path) -> None:
    before, target = sha256_of(good), good if options == "{}" else good.with_name("shards")
    command = [sys.executable, "-c", FULL_DISK, str(target), options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"{target} cannot be written: File too large. The file system takes no files of this size" in done.stdout
    assert sha256_of(good) == before
    assert list(good.parent.iterdir()) == [good]


# --- loading into a network


def test_faults_are_named_and_nothing_is_loaded(network: torch.nn.Module) -> None:
    state = {name: value + 1 for name, value in network.state_dict().items()}
    for name in ("no_obj_ptr", "no_mem_embed"):
        del state[name]
    state["image_encoder.trunk.extra"] = torch.zeros(1)
    state["maskmem_tpos_enc"] = torch.zeros(3, 1, 1, 64)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_into(network, state)
    assert "2 missing (no_mem_embed, no_obj_ptr)" in caught.value.why
    assert "1 unexpected (image_encoder.trunk.extra)" in caught.value.why
    assert "1 of another shape (maskmem_tpos_enc (3, 1, 1, 64) instead of (7, 1, 1, 64))" in caught.value.why
    assert_same(network.state_dict(), before)


def test_a_long_list_of_faults_is_cut(network: torch.nn.Module) -> None:
    with pytest.raises(CheckpointError, match=r"missing \(.*and \d+ more\)") as caught:
        load_into(network, {})
    assert len(str(caught.value)) < 500


def test_only_adapters_may_be_missing_and_only_on_request(network: torch.nn.Module) -> None:
    state = {name: value for name, value in network.state_dict().items() if "adapter" not in name}
    with pytest.raises(CheckpointError, match="missing"):
        load_into(network, state)
    load_into(network, state, allow_missing_adapters=True)
    del state["no_obj_ptr"]
    with pytest.raises(CheckpointError, match=r"1 missing \(no_obj_ptr\)"):
        load_into(network, state, allow_missing_adapters=True)


# --- damaged and hostile safetensors


def with_header(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)


def tensor(begin: int, end: int, shape: tuple[int, ...] = (4,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def write_bloated(path: Path) -> None:
    with_header(path, json.dumps({f"t{i}": tensor(0, 0, (0,)) for i in range(100_000)}).encode())


def write_many_small(path: Path) -> None:
    with_header(path, json.dumps({f"{i:x}": 0 for i in range(100_000)}).encode())


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "seven bytes": lambda path: path.write_bytes(b"\x10" * 7),
    "no safetensors at all": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000)),
    "huge header length": lambda path: with_header(path, b"{}", length=1 << 62),
    "header longer than the file": lambda path: with_header(path, b"{}", length=1000),
    "header is no JSON": lambda path: with_header(path, b"{" * 100),
    "header is a list": lambda path: with_header(path, b"[1, 2, 3]"),
    "deep header": lambda path: with_header(path, b"[" * 1_000_000),
    "100,000 tensors": write_bloated,
    "100,000 short entries": write_many_small,
    "metadata is no text": lambda path: with_header(path, b'{"__metadata__": {"format": 3}}'),
    "overlapping": lambda path: with_header(
        path, json.dumps({"a": tensor(0, 16), "b": tensor(8, 24)}).encode(), bytes(24)
    ),
    "beyond the end": lambda path: with_header(path, json.dumps({"a": tensor(0, 16)}).encode(), bytes(8)),
    "shape and size differ": lambda path: with_header(path, json.dumps({"a": tensor(0, 16, (5,))}).encode(), bytes(16)),
    "overflowing shape": lambda path: with_header(
        path, json.dumps({"a": tensor(0, 16, (1 << 62, 1 << 62))}).encode(), bytes(16)
    ),
    "unknown dtype": lambda path: with_header(path, json.dumps({"a": tensor(0, 16, (4,), "X9")}).encode(), bytes(16)),
    "integers": lambda path: save_file({"a": torch.arange(4)}, path),
    "no description": lambda path: save_file({"a": torch.zeros(4)}, path),
    "another format": lambda path: save_file({"a": torch.zeros(4)}, path, {"format": "napari-uniultra/9"}),
    "no configuration": lambda path: save_file({"a": torch.zeros(4)}, path, {"format": FORMAT}),
    "configuration is no JSON": lambda path: save_file({"a": torch.zeros(4)}, path, {"format": FORMAT, "config": "{"}),
    "greedy configuration": lambda path: save_file(
        {"a": torch.zeros(4)}, path, {"format": FORMAT, "config": json.dumps({"architecture": "x", "embed_dim": 10**9})}
    ),
    "infinite weights": lambda path: save_file(
        {"a": torch.full((4,), torch.inf)}, path, {"format": FORMAT, "config": json.dumps(CONFIG.to_dict())}
    ),
}

READ_WITHIN_LIMITS = """
import resource, sys
from napari_uniultra.errors import CheckpointError
from napari_uniultra.model.checkpoint import read_checkpoint

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        read_checkpoint(path)
    except CheckpointError:
        pass
    else:
        raise SystemExit(f"{path} was read")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    DAMAGE[kind](path)
    begin = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert time.process_time() - begin < 2
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read in Linux's unit")
def test_damaged_files_take_little_memory(tmp_path: Path) -> None:
    paths = []
    for number, write in enumerate(DAMAGE.values()):
        paths.append(tmp_path / f"{number}.safetensors")
        write(paths[-1])
    done = subprocess.run(
        [sys.executable, "-c", READ_WITHIN_LIMITS, *map(str, paths)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(done.stdout) < 200


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_a_file_cut_short_is_refused(part: float, good: Path) -> None:
    content = good.read_bytes()
    good.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CheckpointError, match=r"cut short|damaged"):
        read_checkpoint(good)


def test_another_file_than_expected_is_refused(good: Path) -> None:
    content = bytearray(good.read_bytes())
    digest = sha256_of(good)
    content[-1] ^= 1
    good.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        read_checkpoint(good, digest)


@pytest.mark.parametrize("name", ["nothing.safetensors", "nothing.pt", "nothing"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        read_checkpoint(tmp_path / name)


# --- damaged and hostile folders


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    save_checkpoint(folder, {"a": torch.ones(8), "b": torch.ones(8)}, CONFIG, CARD, max_shard_bytes=32)
    return folder


def change_index(folder: Path, change: Callable[[dict], object]) -> None:
    index = json.loads((folder / INDEX_NAME).read_text())
    change(index)
    (folder / INDEX_NAME).write_text(json.dumps(index))


SHARD = "model-00002-of-00002.safetensors"
FOLDER_DAMAGE: dict[str, Callable[[Path], object]] = {
    "no index": lambda folder: (folder / INDEX_NAME).unlink(),
    "index is no JSON": lambda folder: (folder / INDEX_NAME).write_text("{"),
    "index is a list": lambda folder: (folder / INDEX_NAME).write_text("[]"),
    "a shard is missing": lambda folder: (folder / SHARD).unlink(),
    "a shard is cut short": lambda folder: (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-1]),
    "a shard is another": lambda folder: save_file({"b": torch.zeros(8)}, folder / SHARD),
    "shards repeat a weight": lambda folder: change_index(
        folder, lambda index: index["shards"].append(index["shards"][0])
    ),
    "path upwards": lambda folder: change_index(
        folder, lambda index: index["shards"][0].update(file="../model.safetensors")
    ),
    "absolute path": lambda folder: change_index(folder, lambda index: index["shards"][0].update(file="/etc/passwd")),
    "no shards": lambda folder: change_index(folder, lambda index: index.update(shards=[])),
    "no configuration": lambda folder: change_index(folder, lambda index: index.pop("config")),
}


@pytest.mark.parametrize("kind", FOLDER_DAMAGE)
def test_damaged_folders_are_refused(kind: str, shards: Path) -> None:
    read_checkpoint(shards)
    FOLDER_DAMAGE[kind](shards)
    with pytest.raises(CheckpointError):
        read_checkpoint(shards)


# --- PyTorch files


def outline(config: ModelConfig) -> dict[str, torch.Tensor]:
    """What an official file is recognised by, without its bytes."""
    state = {f"image_encoder.trunk.blocks.{block}.norm1.weight": torch.zeros(1) for block in range(sum(config.stages))}
    state["image_encoder.trunk.patch_embed.proj.weight"] = torch.zeros(config.embed_dim, 3, 7, 7)
    return state | ({"no_obj_embed_spatial": torch.zeros(1, 64)} if config.version == "2.1" else {})


@pytest.mark.parametrize("name", [name for name, config in ARCHITECTURES.items() if config.adapter is None])
@pytest.mark.parametrize("wrap", [True, False], ids=["as published", "bare"])
def test_official_models_are_recognised(name: str, wrap: bool, tmp_path: Path) -> None:
    path = tmp_path / "some name.pt"
    state = outline(architecture(name))
    torch.save({"model": state} if wrap else state, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.config == architecture(name)
    assert checkpoint.card["licence"] == "Apache-2.0"


@pytest.mark.parametrize("name", ["sam2-tiny", "sam2.1-tiny"])
def test_an_official_file_loads(name: str, tmp_path: Path) -> None:
    network = build_network(architecture(name))
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": network.state_dict()}, path)
    checkpoint = read_checkpoint(path)
    fresh = build_network(checkpoint.config)
    load_into(fresh, checkpoint.state)
    assert_same(fresh.state_dict(), network.state_dict())


@pytest.mark.parametrize("content", [{"model": {}}, {"a": torch.zeros(3)}, {"model": [1, 2]}, [torch.zeros(3)], 3])
def test_another_pytorch_file_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="is not"):
        read_checkpoint(path)


class Bomb:
    """Unpickling it runs code: it writes a canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (exec, (f"open({str(self.canary)!r}, 'w').close()",))


@pytest.mark.parametrize("way", ["archive", "archive beside weights", "old torch", "bare pickle", "named safetensors"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(way: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.pt"
    bomb = Bomb(canary)
    if way == "archive":
        torch.save(bomb, path)
    elif way == "archive beside weights":
        torch.save({"model": outline(architecture("sam2-tiny")), "epoch": bomb}, path)
    elif way == "old torch":
        torch.save({"model": bomb}, path, _use_new_zipfile_serialization=False)
    else:
        path = path if way == "bare pickle" else path.with_suffix(".safetensors")
        path.write_bytes(pickle.dumps(bomb))
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert not canary.exists()
    assert "weights_only" not in str(caught.value), "no hint at how to switch the protection off"
    if way.startswith("archive"):
        torch.load(path, weights_only=False)
        assert canary.exists(), "the bomb was real"


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """PyTorch stores without compression; what unpacks to gigabytes must not be unpacked."""
    source, path = tmp_path / "source.pt", tmp_path / "bomb.pt"
    torch.save({"model": outline(architecture("sam2-tiny"))}, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="refused"):
        read_checkpoint(path)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_pytorch_file_cut_short_is_refused(part: float, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": outline(architecture("sam2-tiny"))}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CheckpointError, match="cut short"):
        read_checkpoint(path)
