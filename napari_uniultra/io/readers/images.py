"""PNG, JPEG, BMP, WebP and TIFF pictures: one file as a still, or a folder of them as a loop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from napari_uniultra.core.types import Cine
from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.lazy import LazyFrames, check_size
from napari_uniultra.io.readers.sidecar import read_sidecar

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")

_PNG_HEAD = 29  # signature, size, depth and colours
_Kind = tuple[tuple[int, int], bool, str]
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap width and height


def read_still(path: Path) -> Cine:
    """Open an image file as a loop of one frame.

    Raises
    ------
    ReadError
        When it cannot be read.
    """
    return _read([path], path)


def read_sequence(paths: Sequence[Path]) -> Cine:
    """Open image files, in the natural order of their names, as one loop.

    Raises
    ------
    ReadError
        When they differ in size or depth, or one cannot be read.
    """
    files = sorted(paths, key=_natural)
    return _read(files, files[0])


def read_folder(path: Path) -> Cine:
    """Open the images of a folder, in the natural order of their names (2 before 10), as a loop.

    Raises
    ------
    ReadError
        When there are none, they differ in size or depth, or one cannot be read.
    """
    files = image_files(path)
    if not files:
        from napari_uniultra.io.readers import can_read

        loops = sorted(file.name for file in path.iterdir() if file.is_file() and can_read(file))
        if loops:
            why = f"it holds {counted(len(loops), 'file')} that may be loops"
            raise ReadError(f"The folder {path.name} is not one loop", why, f"Name one of them, such as {loops[0]}")
        raise ReadError(
            f"The folder {path.name} holds no image",
            f"it has no file ending in {', '.join(SUFFIXES)}",
            "Choose a folder of images, or the loop's own file",
        )
    return _read(files, path)


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder in natural order; hidden files are left out."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise ReadError(f"The folder {folder.name} cannot be read", error.strerror or "") from error
    files = [f for f in entries if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file()]
    files.sort(key=_natural)
    return [] if files and _is_stack(files[0]) else files


def is_picture(file: Path) -> bool:
    """Whether a file would be one frame of a loop of images."""
    return file.suffix.lower() in SUFFIXES and not _is_stack(file)


def _is_stack(file: Path) -> bool:
    """Whether a TIFF holds a loop of its own."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:  # a damaged file is told about when it is read
        return False


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _read(files: list[Path], source: Path) -> Cine:
    frames = _ImageFrames(files)
    frames[0]  # the first one at least must decode
    stated = read_sidecar(source, len(files))
    return Cine(frames=frames, source=str(source), details={"format": "images"}, **stated)


class _ImageFrames(LazyFrames):
    """One file per frame. Sizes are compared from the headers, when opened; pixels are decoded when looked at."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        known: dict[bytes, _Kind] = {}
        kinds = [_kind(file, known) for file in files]
        (height, width), dtype = kinds[0][0], kinds[0][2]
        check_size(files[0].name, len(files), height, width)
        for file, (size, _, depth) in zip(files, kinds, strict=True):
            if size != (height, width) or depth != dtype:
                raise ReadError(
                    f"The images in {file.parent.name} do not form one loop",
                    f"{file.name} is {size[1]} x {size[0]} {depth}, {files[0].name} is {width} x {height} {dtype}",
                    "Keep one loop per folder",
                )
        self._colour = any(colour for _, colour, _ in kinds)
        shape = (len(files), height, width)
        super().__init__((*shape, 3) if self._colour else shape, dtype)

    def _decode(self, index: int) -> np.ndarray:
        file = self._files[index]
        try:
            with Image.open(file) as image:
                if _orientation(image) != 1:
                    image = ImageOps.exif_transpose(image)
                if self._colour:
                    image = image.convert("RGB")
                elif image.mode in ("1", "LA"):
                    image = image.convert("L")
                return np.array(image, dtype=self.dtype)
        except (OSError, ValueError, SyntaxError, EOFError) as error:  # Pillow raises SyntaxError for a damaged PNG
            raise _unreadable(file) from error


def _kind(file: Path, known: dict[bytes, _Kind]) -> _Kind:
    """((height, width), is colour, dtype) from a file's header.

    PNGs that begin alike are alike: a sequence of ten thousand is not parsed ten thousand times.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(_PNG_HEAD)
        if start in known:
            return known[start]
        with Image.open(file) as image:
            width, height = image.size
            mode = image.mode
            if _orientation(image) in _TURNED:
                width, height = height, width
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable(file) from error
    if mode.startswith("I;16") or mode == "I":
        kind = (height, width), False, "uint16" if mode != "I" else "int32"
    else:
        kind = (height, width), mode not in ("1", "L", "LA"), "uint8"
    if start.startswith(b"\x89PNG"):
        known[start] = kind
    return kind


def _orientation(image: Image.Image) -> int:
    """How the camera was held. A PNG that tells so after its pixels is taken as it is: it would have to be decoded."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return image.getexif().get(_ORIENTATION, 1)


def _unreadable(file: Path) -> ReadError:
    why = "it is empty" if file.stat().st_size == 0 else "it is damaged, cut off, or not an image"
    return ReadError(f"{file.name} cannot be read as an image", why, "Copy or export it again")
