"""One annotated case: an image or a loop, its masks, and reading both a frame at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from napari_uniultra.core.frames import bytes_in_memory
from napari_uniultra.core.types import Cine
from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.readers.images import image_files
from napari_uniultra.training.data.labels import (
    MASK_SUFFIXES,
    masks_by_image,
    masks_by_name,
    only_mask,
    read_labels,
    structures,
)

PARTS = ("train", "val", "test")
_ONE_FRAME = (".png", ".jpg", ".jpeg", ".bmp", ".webp")  # files that hold no more


@dataclass(frozen=True)
class Case:
    """An image or a loop with its masks.

    Attributes
    ----------
    name : str
        Tells it from all others.
    frames : Path
        An image, a video, a DICOM or other file of a loop, or a folder with an image a frame.
    masks : tuple of Path
        One mask file, several (each a structure of its own), with a mask a frame for a loop, or one folder with a mask
        file a frame: named as the frame for a folder of frames (see `masks_by_image`), else by the frame's number.
    subject : str
        Whose it is; cases of a subject stay in one part. Empty when unknown: the case then stands alone.
    source : str
        The data set; subjects and scores are counted within it.
    spacing_mm : (float, float), optional
        Size of a pixel, (row, column). None: as the file states.
    part : str
        ``train``, ``val``, ``test``, or empty when not decided.
    labels : mapping of int to str
        The grey values of the masks that are structures, and their names. Empty: see `labels.structures`.
    separate : bool
        Whether connected parts of a label are structures of their own. Not for loops: parts have no name over time.
    """

    name: str
    frames: Path
    masks: tuple[Path, ...]
    subject: str = ""
    source: str = ""
    spacing_mm: tuple[float, float] | None = None
    part: str = ""
    labels: Mapping[int, str] = field(default_factory=dict)
    separate: bool = False

    @property
    def group(self) -> tuple[str, str]:
        """What a split keeps together: the source, and the subject, or the case itself where it is unknown."""
        return self.source, self.subject or f"case {self.name}"

    @property
    def may_be_loop(self) -> bool:
        """False where one frame is all there can be; told without opening a file."""
        return self.frames.is_dir() or self.frames.suffix.lower() not in _ONE_FRAME


@dataclass(frozen=True)
class Annotated:
    """A frame with its structures.

    Attributes
    ----------
    name : str
        The case, and the frame where it is one of a loop.
    image : (H, W) uint8
    masks : (K, H, W) bool
        Not empty; none at all where the frame shows no structure.
    objects : tuple of str
        A structure's name for each mask; the same on all frames of a loop.
    frame : int
        Its number in the loop.
    """

    name: str
    image: np.ndarray
    masks: np.ndarray
    objects: tuple[str, ...]
    frame: int = 0


class OpenCase:
    """A case whose pixels are read when asked for.

    Raises
    ------
    ReadError
        When frames or masks cannot be found or opened, or do not belong to each other. It names the case.
    """

    def __init__(self, case: Case) -> None:
        self.case = case

    @cached_property
    def cine(self) -> Cine:
        """The frames, lazily decoded, with the case's spacing."""
        return read_cine(self.case.frames, spacing_mm=self.case.spacing_mm)

    @cached_property
    def frames(self) -> tuple[int, ...]:
        """The numbers of the annotated frames, in order."""
        return tuple(range(len(self._volumes[0])) if self._volumes else self._files)

    @property
    def is_loop(self) -> bool:
        """Whether more than one frame is annotated."""
        return len(self.frames) > 1

    @property
    def nbytes(self) -> int:
        """Of what is read and kept in memory: masks of all frames of a loop, and frames of its file."""
        frames = bytes_in_memory(self.cine.frames) if "cine" in vars(self) else 0
        return frames + sum(volume.nbytes for volume in vars(self).get("_volumes", ()))

    def annotated(self, frame: int, side: int | None = None) -> Annotated:
        """One annotated frame. ``side`` stretches it to a square of that many pixels, as the network will.

        Raises
        ------
        ReadError
            For a file that cannot be read or a mask of another size than its frame. It names both.
        """
        masks, objects = self._masks(frame)
        image = grey(self.cine.frame(frame))
        if len(masks) and masks.shape[1:] != image.shape:
            raise ReadError(
                f"The mask of {self._label(frame)} does not fit its frame",
                f"the mask is {_size(masks[0])} pixels, the frame {_size(image)}",
                f"Correct {self.case.masks[0].name}, or remove the case from the manifest",
            )
        if side is not None:
            image = stretched(image, side)
            small = [np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST)) for mask in masks]
            kept = [index for index, mask in enumerate(small) if mask.any()]
            masks = np.stack([small[index] for index in kept]) if kept else np.zeros((0, side, side), bool)
            objects = tuple(objects[index] for index in kept)
        return Annotated(self._label(frame), image, masks.reshape(-1, *image.shape), objects, frame)

    def _label(self, frame: int) -> str:
        return f"{self.case.name}, frame {frame}" if self.is_loop else self.case.name

    def _masks(self, frame: int) -> tuple[np.ndarray, tuple[str, ...]]:
        if self._volumes:
            labels = [volume[frame] for volume in self._volumes]
        else:
            labels = [_only_frame(path) for path in self._files[frame]]
        found = [structures(image, self.case.labels, self.case.separate) for image in labels]
        masks = [mask for part, _ in found for mask in part]
        if len(found) == 1:
            names = list(found[0][1])
        else:  # several files, each a structure
            names = [f"{number} {name}".strip() for number, (_, part) in enumerate(found, 1) for name in part]
        if not masks and not self.is_loop:
            raise ReadError(
                f"The mask of {self.case.name} is empty",
                "it marks no structure" + (f" with the labels {list(self.case.labels)}" if self.case.labels else ""),
                f"Correct {self.case.masks[0].name}, or remove the case from the manifest",
            )
        return (np.stack(masks) if masks else np.zeros((0, 0, 0), bool)), tuple(names)

    @cached_property
    def _volumes(self) -> tuple[np.ndarray, ...]:
        """The label images of all frames, of each mask file; none where masks are pictures, or lie in a folder."""
        case = self.case
        if case.masks[0].is_dir() or all(path.suffix.lower() in _ONE_FRAME for path in case.masks):
            return ()
        volumes = tuple(read_labels(path) for path in case.masks)
        counts = sorted({len(volume) for volume in volumes})
        if counts != [1] and counts != [len(self.cine)]:
            raise ReadError(
                f"The masks of {case.name} do not fit its frames",
                f"there are {' and '.join(map(str, counts))} masks and {counted(len(self.cine), 'frame')}",
                "Give one mask for each frame",
            )
        if counts != [1]:
            self._check_together()
        return volumes

    @cached_property
    def _files(self) -> dict[int, tuple[Path, ...]]:
        """The mask files of each annotated frame."""
        case = self.case
        if case.frames.is_dir() or any(path.is_dir() for path in case.masks):
            self._check_together()
        if len(case.masks) == 1 and case.masks[0].is_dir():
            return self._in_folder(case.masks[0])
        return {0: case.masks}

    def _check_together(self) -> None:
        if self.case.separate:
            raise ReadError(
                f"The connected parts of {self.case.name} cannot be told apart over time",
                "it is a loop, and 'separate' is for single images",
                "Give each structure a label of its own",
            )

    def _in_folder(self, folder: Path) -> dict[int, tuple[Path, ...]]:
        """Mask files by the number of their frame."""
        files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in MASK_SUFFIXES]
        if self.case.frames.is_dir():
            frames = image_files(self.case.frames)
            by_frame = masks_by_image(frames, files)
            named = [only_mask(frame.name, by_frame.get(frame, ())) for frame in frames]
            found = [(number, path) for number, path in enumerate(named) if path is not None]
        else:
            by_name = masks_by_name(files)
            numbers = sorted({int(name) for name in by_name if name.isdecimal()})
            found = [(number, self._numbered(number, by_name)) for number in numbers]
        if not found:
            raise ReadError(
                f"The folder {folder.name} of {self.case.name} holds no mask of any of its frames",
                "a mask is named as its frame, or by the frame's number for a video",
                "Rename the masks, or name another folder",
            )
        return {number: (path,) for number, path in found}

    def _numbered(self, number: int, by_name: Mapping[str, Sequence[Path]]) -> Path | None:
        own = [path for name, paths in by_name.items() if name.isdecimal() and int(name) == number for path in paths]
        return only_mask(f"frame {number}", own)


def iterate_case(case: Case, side: int | None = None) -> Iterator[Annotated]:
    """The annotated frames of a case in order, one in memory at a time.

    Raises
    ------
    ReadError
        When something of it cannot be read, fits badly, or no frame at all shows a structure.
    """
    opened = OpenCase(case)
    is_empty = True
    for frame in opened.frames:
        annotated = opened.annotated(frame, side)
        is_empty = is_empty and not len(annotated.masks)
        yield annotated
    if is_empty:
        raise ReadError(f"All masks of {case.name} are empty", fix="Correct them, or remove the case from the manifest")


def load_case(case: Case, side: int | None = None) -> tuple[Annotated, ...]:
    """The annotated frames of a case, in order: one of an image, all that have a mask of a loop.

    Parameters
    ----------
    side : int, optional
        Stretch each to a square of that many pixels.

    Raises
    ------
    ReadError
        As `iterate_case`.
    """
    return tuple(iterate_case(case, side))


def grey(frame: np.ndarray) -> np.ndarray:
    """A frame (H, W) or (H, W, 3) uint8 as (H, W) uint8."""
    return frame if frame.ndim == 2 else np.asarray(Image.fromarray(frame).convert("L"))


def stretched(image: np.ndarray, side: int) -> np.ndarray:
    """A grey image (H, W) uint8 as the network sees it: a square of that side."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))


def _only_frame(path: Path) -> np.ndarray:
    """The label image (H, W) of a file that is of one frame."""
    labels = read_labels(path)
    if len(labels) > 1:
        raise ReadError(
            f"The mask {path.name} holds {counted(len(labels), 'frame')}",
            "in a folder of masks every file is of one frame",
            "Write a file for each frame, or name this one file as the masks",
        )
    return labels[0]


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
