"""The loops of a study: a folder, or the DICOMDIR of a disc, listed without decoding anything; and what one looks like.

Links to folders are not followed, so that a ring of them has an end, and a DICOMDIR cannot lead out of its own folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError, UniUltraError
from napari_uniultra.io.quiet import quiet_pydicom
from napari_uniultra.io.readers import can_read, is_zarr, read_cine

MAX_LOOPS = 20_000
_MAX_DEPTH = 16
_MAX_DICOMDIR = 256 << 20
_STILL_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True)
class Preview:
    """What a loop looks like.

    Attributes
    ----------
    thumbnail : ndarray
        (h, w, 3) uint8, of the frame in the middle.
    frames : int
    shape_hw : (int, int)
        Of a frame.
    duration_s : float or None
        From the first frame to the last; None when the loop's times are unknown.
    has_spacing : bool
    """

    thumbnail: np.ndarray
    frames: int
    shape_hw: tuple[int, int]
    duration_s: float | None
    has_spacing: bool

    @property
    def words(self) -> str:
        """In words, for a list."""
        size = f"{self.shape_hw[1]} x {self.shape_hw[0]}"
        if self.frames == 1:
            return f"still, {size}"
        return f"{counted(self.frames, 'frame')}, {size}" + (f", {self.duration_s:.1f} s" if self.duration_s else "")


def is_dicomdir(path: Path) -> bool:
    """Whether a file is the directory of a DICOM disc, by its name, which the standard fixes."""
    return path.name.upper() == "DICOMDIR" and path.is_file()


def find_loops(path: str | os.PathLike[str], limit: int = MAX_LOOPS) -> tuple[Path, ...]:
    """The loops and stills of a study, in the order of their names; of a DICOMDIR, in its order.

    A folder whose images form a loop counts as one, as does a Zarr folder. Nothing is decoded: some may turn out to be
    unreadable.

    Parameters
    ----------
    path : path
        A folder or a DICOMDIR.
    limit : int
        Stop after so many.

    Raises
    ------
    ReadError
        When it cannot be read, or when a DICOMDIR is damaged.
    """
    path = Path(path)
    found = _of_dicomdir(path) if is_dicomdir(path) else _of_folder(path, 0)
    return tuple(loop for loop, _ in zip(found, range(limit), strict=False))


def _of_folder(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        if depth:
            return  # a subfolder that nobody may look into hides no more than itself
        raise ReadError(f"The folder {folder.name} cannot be read", error.strerror or "") from error
    if can_read(folder):  # a sequence of images, or Zarr
        yield folder
        if is_zarr(folder):
            return
    for entry in entries:
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            if depth < _MAX_DEPTH:
                yield from _of_folder(path, depth + 1)
        elif not _is_frame(path) and not is_dicomdir(path) and path.is_file() and can_read(path):
            yield path


def _is_frame(path: Path) -> bool:
    """Whether a file is a part of the loop that its folder is."""
    return path.suffix.lower() in _STILL_SUFFIXES or (
        path.suffix.lower() in (".tif", ".tiff") and can_read(path.parent)
    )


def _of_dicomdir(path: Path) -> Iterator[Path]:
    name = path.name
    if path.stat().st_size > _MAX_DICOMDIR:
        raise ReadError(f"{name} cannot be read", "it is far too large")
    try:
        with quiet_pydicom():
            listing = pydicom.dcmread(path, force=True, specific_tags=["DirectoryRecordSequence"])
            records = [record.get("ReferencedFileID") for record in listing.DirectoryRecordSequence]
    except Exception as error:  # a damaged file can raise anything, and quote a patient's data in its message
        raise ReadError(f"{name} is damaged or incomplete", f"it cannot be parsed ({type(error).__name__})") from None
    root, seen = path.parent.resolve(), set()
    for record in records:
        if record is None:
            continue
        file = _inside(root, [record] if isinstance(record, str) else list(record))
        if file is not None and file not in seen and can_read(file):
            seen.add(file)
            yield file


def _inside(root: Path, parts: list[str]) -> Path | None:
    """A file that a DICOMDIR names; None when it is not there, or not within the DICOMDIR's folder."""
    if not parts or any(not part or part in (".", "..") or set(part) & set("/\\:\0") for part in map(str, parts)):
        return None
    file = root
    try:
        for part in map(str, parts):
            file = file / part
            if not file.exists():
                file = file.with_name(part.lower())  # copies of a disc often change the case
        file = file.resolve()
        return file if file.is_relative_to(root) and file.is_file() else None
    except (OSError, RuntimeError):  # a name that is too long; a ring of links
        return None


def look_at(path: Path, side: int = 128) -> Preview:
    """Open a loop and look at its middle frame.

    Parameters
    ----------
    path : Path
    side : int
        The longer side of the thumbnail in pixels.

    Raises
    ------
    ReadError
        When it cannot be opened.
    """
    cine = read_cine(path)
    frame = cine.frame(len(cine) // 2)
    picture = Image.fromarray(np.ascontiguousarray(frame)).convert("RGB")
    picture.thumbnail((side, side))
    times = cine.frame_times_s
    return Preview(
        thumbnail=np.array(picture),
        frames=len(cine),
        shape_hw=tuple(cine.shape_hw),
        duration_s=None if times is None else float(times[-1] - times[0]),
        has_spacing=cine.spacing_mm is not None,
    )


def looks(paths: tuple[Path, ...], side: int = 128) -> Iterator[tuple[Path, Preview | UniUltraError]]:
    """`look_at` one after the other; what cannot be opened comes with its error instead."""
    for path in paths:
        try:
            yield path, look_at(path, side)
        except UniUltraError as error:
            yield path, error
