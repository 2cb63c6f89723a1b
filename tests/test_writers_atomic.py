"""A full disk, a missing folder, a crash or a kill leaves the old file or the new one."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.measure import Measurement
from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import WriteError
from napari_uniultra.io.writers import (
    ObjectPrompts,
    write_contact_sheet,
    write_masks_tiff,
    write_measurements_csv,
    write_overlay_video,
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


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.write_text("")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


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


def write_everything(folder: Path, noise: np.ndarray) -> list:
    """One function for each writer; each writes far more than 64 kB of noise."""
    loop, masks = Cine(noise), noise
    rows = [Measurement(i, None, 1, "x", float(noise.flat[i]), "px") for i in range(20_000)]
    half = noise[0] > 127
    return [
        lambda: write_masks_tiff(folder / "masks.tif", masks),
        lambda: write_measurements_csv(folder / "m.csv", rows),
        lambda: write_overlay_video(folder / "overlay.mp4", loop, masks % 3),
        lambda: write_contact_sheet(folder / "sheet.png", loop, masks % 3),
        lambda: write_prompts(folder / "prompts.json", [ObjectPrompts(1, "x" * 90_000, {0: Prompt(mask=half)})]),
    ]


@pytest.mark.parametrize("which", range(5))
def test_full_disk_keeps_the_old_file(which: int, tiny_disk: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 200, 300), dtype=np.uint8)
    name = ["masks.tif", "m.csv", "overlay.mp4", "sheet.png", "prompts.json"][which]
    (tiny_disk / name).write_bytes(b"the old file")
    with pytest.raises(WriteError, match="Free some space"):
        write_everything(tiny_disk, noise)[which]()
    assert (tiny_disk / name).read_bytes() == b"the old file"
    assert not [path for path in tiny_disk.iterdir() if path.name.startswith(".")]


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
