"""Damaged files by the thousand: each opens or is refused in words, within 10 s and 2 GB, and never takes Python down.

Every file is read in another process, so that a crash of a codec is seen. A few hundred run with the other tests; the
environment variable UNIULTRA_FUZZ sets another number of mutated DICOM files, and as many again of the other formats
divided by four. UNIULTRA_FUZZ_SEED begins elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

CASES = int(os.environ.get("UNIULTRA_FUZZ", "120"))
SEED = int(os.environ.get("UNIULTRA_FUZZ_SEED", "0"))
MAX_SECONDS, MAX_BYTES = 10.0, 2 << 30

# Reads paths from its input, one a line, and answers each with one line of JSON.
READER = """
import json, resource, sys
import numpy as np
from pathlib import Path
from napari_uniultra.errors import UniUltraError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.study import find_loops

def most_memory():
    status = Path("/proc/self/status")  # Linux: getrusage begins with what the process that started this one had
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024

resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # so that a mistake does not take the machine down
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    path = Path(line.rstrip("\\n"))
    try:
        if path.name == "DICOMDIR":
            find_loops(path)
        else:
            cine = read_cine(path)
            for index in {0, len(cine) // 2, len(cine) - 1}:
                frame = cine.frame(index)
                assert frame.shape[:2] == cine.shape_hw and frame.dtype == np.uint8, frame.shape
        answer = "opened"
    except UniUltraError as error:
        answer = "refused" if error.what and "CANARY" not in str(error) else f"unclear: {error!r}"
    except BaseException as error:
        import traceback
        answer = f"bug: {type(error).__name__}: {error}: {traceback.format_exc()[-700:]}"
    peak = most_memory()
    print(json.dumps([answer, peak]), flush=True)
"""


class Reader:
    """The other process, started anew when it died or hung."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def read(self, path: Path) -> tuple[str, int]:
        """What became of a file, and the most memory that the process has taken in bytes."""
        if self._process is None:
            self._start()
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        answer = self._line(MAX_SECONDS)
        if answer is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)  # a process that crashed needs a moment to be gone
            code = self._process.poll()
            self.stop()
            return ("hang" if code is None else f"crash: exit code {code}"), 0
        return tuple(answer)

    def _start(self) -> None:
        command = [sys.executable, "-c", READER]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment, bufsize=1,
        )  # fmt: skip
        assert self._line(120) == "ready"

    def _line(self, seconds: float) -> object:
        """The next answer, or None when the process ended or took too long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._process.stdout], [], [], left)[0]:
                line = self._process.stdout.readline()
                return json.loads(line) if line else None
        return None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


EXTREMES = [0, 1, 2, 0x7F, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
# Of DICOM: rows, columns, frames, samples, bits, planar configuration, table descriptor, pixel data.
TAGS = [b"\x28\x00" + bytes([low, high]) for low, high in
        [(0x10, 0), (0x11, 0), (8, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 1), (6, 0), (1, 0x11), (1, 0x12)]
        ] + [b"\xe0\x7f\x10\x00", b"\xfe\xff\x00\xe0", b"\x18\x00\x11\x60"]  # fmt: skip


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three kinds of damage, half of them within the first 4 KB, where headers are."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if len(data) < 16:
            break
        reach = min(len(data), 4096) if rng.random() < 0.5 else len(data)
        at, length = int(rng.integers(reach)), int(rng.integers(1, 65))
        kind = rng.integers(8)
        if kind == 0:
            for place in rng.integers(0, reach, length):
                data[place] = rng.integers(256)
        elif kind == 1:
            del data[int(rng.integers(len(data))) :]
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            size = int(rng.choice([1, 2, 4]))
            value = int(rng.choice(EXTREMES)) & ((1 << 8 * size) - 1)
            data[at : at + size] = value.to_bytes(size, str(rng.choice(["little", "big"])))
        elif kind == 5:
            data[at : at + length] = bytes(length)
        elif kind == 6:
            other = int(rng.integers(len(data)))
            data[at : at + length] = data[other : other + length]
        else:
            found = [place for tag in TAGS if (place := data.find(tag)) >= 0]
            if found:
                place = int(rng.choice(found)) + int(rng.choice([4, 6, 8, 12]))
                data[place : place + 2] = int(rng.choice(EXTREMES) & 0xFFFF).to_bytes(2, "little")
    return bytes(data)


def run(originals: list[Path], cases: int, folder: Path) -> Counter[str]:
    reader, outcomes, wrong, slowest, most = Reader(), Counter(), [], 0.0, 0
    contents = {path: path.read_bytes() for path in originals}
    for case in range(cases):
        rng = np.random.default_rng([SEED, case])
        original = originals[case % len(originals)]
        name = "DICOMDIR" if original.name == "DICOMDIR" else f"case{''.join(original.suffixes)}"
        path = folder / name
        path.write_bytes(mutated(contents[original], rng))
        start = time.monotonic()
        answer, peak = reader.read(path)
        slowest, most = max(slowest, time.monotonic() - start), max(most, peak)
        if peak > MAX_BYTES:
            answer = f"memory: {peak >> 20} MB"
            reader.stop()
        outcomes[answer.partition(":")[0]] += 1
        if answer not in ("opened", "refused"):
            kept = os.environ.get("UNIULTRA_FUZZ_KEEP")
            if kept:
                (Path(kept) / f"{case}-{original.name}").write_bytes(path.read_bytes())
            wrong.append(f"case {case} of {original.name}: {answer}")
    reader.stop()
    print(f"{cases} files, seed {SEED}: {dict(outcomes)}, slowest {slowest:.1f} s, at most {most >> 20} MB")
    assert not wrong, "\n".join(wrong)
    return outcomes


@pytest.mark.skipif(sys.platform == "win32", reason="limits of memory are those of POSIX")
@pytest.mark.timeout(max(300, 2 * CASES))
def test_mutated_dicom(shared_data: Path, tmp_path: Path) -> None:
    outcomes = run(sorted((shared_data / "dicom").glob("*.dcm")), CASES, tmp_path)
    assert outcomes["refused"] > 0.2 * CASES
    assert outcomes["opened"] > 0.05 * CASES, "the damage is so great that no decoder is reached"


@pytest.mark.skipif(sys.platform == "win32", reason="limits of memory are those of POSIX")
@pytest.mark.timeout(max(300, 2 * CASES))
def test_mutated_other_formats(tmp_path: Path) -> None:
    originals, work = tmp_path / "originals", tmp_path / "work"
    originals.mkdir(), work.mkdir()
    outcomes = run(sorted(save_originals(originals)), max(CASES // 4, 30), work)
    assert outcomes["refused"] > 0


def save_originals(folder: Path) -> list[Path]:
    """One small loop in many formats."""
    pixels = (np.arange(6 * 36 * 50).reshape(6, 36, 50) % 253).astype(np.uint8)
    tifffile.imwrite(folder / "plain.tif", pixels)
    tifffile.imwrite(folder / "packed.tif", pixels, compression="zlib", metadata={"axes": "TYX"}, ome=True)
    tifffile.imwrite(folder / "imagej.tif", pixels, imagej=True, metadata={"axes": "TYX", "unit": "mm"})
    image = sitk.GetImageFromArray(pixels)
    for name, packed in [("a.nrrd", True), ("b.nrrd", False), ("a.mha", False), ("b.mha", True), ("a.nii", False)]:
        sitk.WriteImage(image, str(folder / name), packed)
    sitk.WriteImage(image, str(folder / "a.nii.gz"))
    Image.fromarray(pixels[0]).save(folder / "a.png")
    Image.fromarray(pixels[0]).save(folder / "a.jpg")
    np.save(folder / "a.npy", pixels)
    np.savez_compressed(folder / "a.npz", frames=pixels, spacing_mm=[0.1, 0.2])
    for name, codec in [("a.mp4", "libx264"), ("a.avi", "mjpeg"), ("a.wmv", "wmv2")]:
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for index in range(8):
                picture = np.full((48, 64, 3), 20 * index, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return list(folder.iterdir())
