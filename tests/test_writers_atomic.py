"""A full disk, a missing folder, a crash or a kill leaves the old file or the new one."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_uniultra.core.atomic import atomic_dir, atomic_path, set_aside
from napari_uniultra.core.masks import Masks
from napari_uniultra.core.measure import Measurement
from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import WriteError
from napari_uniultra.io.writers import (
    FORMATS,
    ObjectPrompts,
    write_contact_sheet,
    write_masks,
    write_masks_tiff,
    write_measurements_csv,
    write_prompts,
)


def test_success_replaces_and_failure_does_not(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("old")
        assert not target.exists()
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".txt")
    assert target.read_text() == "old"
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text(f"half of it {1 / 0}")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_to_be_replaced_comes_back_where_that_fails(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / "0.png").write_text("old")
    with pytest.raises(WriteError), set_aside(folder), atomic_dir(folder):
        raise OSError(errno.ENOSPC, "full")
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("0.png", "old")]
    with set_aside(folder), atomic_dir(folder) as temporary:
        (temporary / "0.png").write_text("new")
    assert (folder / "0.png").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]
    with pytest.raises(WriteError, match="gone cannot be written"), set_aside(tmp_path / "gone"):
        pass


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.write_text("")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="there are no users to change to")
def test_a_new_folder_may_hold_files_that_are_read_only() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:  # root alone may enter pytest's, and root may write to all files
        os.chmod(folder, 0o777)
        os.seteuid(user or 65534)
        try:
            with atomic_dir(Path(folder) / "new") as new:
                (new / "weights").write_text("weights")
                (new / "weights").chmod(0o444)
        finally:
            os.seteuid(user)
        assert (Path(folder) / "new" / "weights").read_text() == "weights"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EROFS, "choose another one"),
        (errno.EACCES, "may write to"),
        (errno.EIO, "Check"),
    ],
)
def test_refusals_say_what_to_do(number: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=words), atomic_path(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_made_and_a_folder_in_the_way_stays(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "none" / "b") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "none" / "b").read_text() == "new"
    (tmp_path / "a").mkdir()
    with pytest.raises(WriteError, match="a cannot be written"), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert list((tmp_path / "a").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "none"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def writers(folder: Path, noise: np.ndarray) -> dict[str, Callable[[], object]]:
    """A function for each file; each writes far more than 64 kB of noise."""
    loop, half = Cine(noise), noise[0] > 127
    rows = [Measurement(i, None, 1, "x", float(i), "px") for i in range(20_000)]
    prompts = [ObjectPrompts(1, "x" * 90_000, {0: Prompt(mask=half)})]
    found: dict[str, Callable[[], object]] = {
        "m.csv": lambda: write_measurements_csv(folder / "m.csv", rows),
        "sheet.png": lambda: write_contact_sheet(folder / "sheet.png", loop, noise % 3),
        "prompts.json": lambda: write_prompts(folder / "prompts.json", prompts),
    }
    for entry in FORMATS:
        if entry.name != "dicom":
            path = folder / f"masks{entry.suffixes[0]}"
            masks = Masks(noise[:1, :80] % 3) if entry.name == "yolo" else Masks.of_cine(loop, noise % 3)
            found[path.name] = lambda path=path, masks=masks: write_masks(path, masks)
    return found


NAMES = ["m.csv", "sheet.png", "prompts.json", *(f"masks{f.suffixes[0]}" for f in FORMATS if f.name != "dicom")]


@pytest.mark.parametrize("name", NAMES)
def test_full_disk_keeps_the_old_file(name: str, tiny_disk: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 200, 300), dtype=np.uint8)
    old = b'{"info": {"description": "Segmentation of an ultrasound loop"}, "annotations": []}'  # COCO's own
    (tiny_disk / name).write_bytes(old)
    with pytest.raises(WriteError, match="Free some space"):
        writers(tiny_disk, noise)[name]()
    assert (tiny_disk / name).read_bytes() == old
    left = {path.name for path in tiny_disk.iterdir()} - {name}
    assert not [other for other in left if other.startswith(".") or not other.endswith(".png")]  # a prompt's mask


def test_read_only_and_impossible_places_are_refused_in_words(tmp_path: Path) -> None:
    noise = np.zeros((2, 20, 30), np.uint8)
    (tmp_path / "file").write_text("in the way")
    for name, write in writers(tmp_path / "file", noise).items():
        with pytest.raises(WriteError, match=r"cannot be written|exists already"):
            write()
        assert name
    long = tmp_path / ("ü" * 300 + ".tif")
    with pytest.raises(WriteError, match="shorter name"):
        write_masks(long, Masks(noise))
    write_masks(tmp_path / "лупа «心».seg.nrrd", Masks(noise))
    assert (tmp_path / "лупа «心».seg.nrrd").exists()


_WRITER = """
import sys, itertools
import numpy as np
from napari_uniultra.io.writers.masks import write_masks_tiff
shape = (4, 200, 300)
print("ready", flush=True)
for value in itertools.count():
    write_masks_tiff(sys.argv[1], np.full(shape, value % 250, np.uint8) + (np.arange(300) % 5).astype(np.uint8))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "masks.tif"
    write_masks_tiff(path, np.zeros((4, 200, 300), np.uint8) + (np.arange(300) % 5).astype(np.uint8))
    rng = random.Random(0)
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            for _ in range(12):  # stopped, looked at and continued: what a kill at that moment would leave
                time.sleep(rng.uniform(0, 0.02))
                process.send_signal(signal.SIGSTOP)
                check_whole(path)
                process.send_signal(signal.SIGCONT)
            time.sleep(rng.uniform(0, 0.02))
            process.kill()
        check_whole(path)


def check_whole(path: Path) -> None:
    masks = tifffile.imread(path)
    assert masks.shape == (4, 200, 300)
    assert len(np.unique(masks - np.arange(300) % 5)) == 1
