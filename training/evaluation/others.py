"""Masks that another tool wrote, taken as answers, so that its scores stand in the same table.

They lie in a folder under the names of the cases: ``DIR/<case>`` with any suffix of a mask file for an image, and for a
loop either one file with a mask a frame (as `uniultra segment` writes) or a folder with a file a frame, named as the
frame or by its number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.images import image_files
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.labels import MASK_SUFFIXES, read_labels, stem_of, structures
from napari_uniultra.training.evaluation.answers import IMAGE, MISSING, OTHER_SIZE, SEVERAL, UNREADABLE, FrameAnswer
from napari_uniultra.training.evaluation.cases import LabelledCase, Masks, union

AS_GIVEN = "as given"


class OtherTool:
    """A folder of masks; its name is the tool's.

    Raises
    ------
    ReadError
        If there is no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = self.folder.resolve().name
        self._read = lru_cache(maxsize=1)(read_labels)  # a file with all masks of a loop is asked for each of them
        if not self.folder.is_dir():
            raise ReadError(f"There is no folder {folder}", fix="Name the folder that holds the other tool's masks")

    def check(self, cases: Iterable[Case]) -> None:
        """Refuse a folder with no mask of any case.

        Raises
        ------
        ReadError
        """
        cases = list(cases)
        if not any((self.folder / case.name).is_dir() or self._files(case, 0)[0] for case in cases):
            why = f"masks lie there under the names of the cases, such as {cases[0].name}"
            raise ReadError(f"{self.folder} holds no mask of any case", why, "Name another folder, or rename them")

    def answers(self, case: Case, labelled: LabelledCase, prompt: str = AS_GIVEN) -> Iterator[FrameAnswer]:
        """One answer for every annotated frame; what is missing or does not fit is a failure."""
        first = labelled.numbers[labelled.annotated[0]]
        known = set(case.labels.values()) or set(labelled.starts)
        for index in labelled.annotated:
            truth, number = labelled.truth(index), labelled.numbers[index]
            labels, why = self._labels(case, number)
            if labels is not None and labels.shape != labelled.file_shape_hw:
                labels, why = None, OTHER_SIZE
            since = number - first if labelled.is_loop else None
            if labels is None:
                failures = dict.fromkeys([*truth, IMAGE], why)
                yield FrameAnswer(self.name, prompt, index, {}, failures=failures, since_prompt=since)
                continue
            masks = objects_found(labelled.at_canvas(labels), truth, case, known)
            yield FrameAnswer(self.name, prompt, index, masks, since_prompt=since)

    def _labels(self, case: Case, number: int) -> tuple[np.ndarray | None, str]:
        """A frame's label image (H, W), or why there is none."""
        files, index = self._files(case, number)
        if len(files) != 1:
            return None, SEVERAL if files else MISSING
        try:
            labels = self._read(files[0])
        except ReadError:
            return None, UNREADABLE
        return (labels[index], "") if index < len(labels) else (None, MISSING)

    def _files(self, case: Case, number: int) -> tuple[list[Path], int]:
        """The file of a frame's mask, or all that may be it, and the frame's place in it."""
        place = self.folder / case.name
        if not place.resolve().is_relative_to(self.folder.resolve()):
            return [], 0
        if place.is_dir():
            stems = [f"{number}"]
            if case.frames.is_dir():
                stems.insert(0, stem_of(image_files(case.frames)[number]))
            return _masks(place, lambda stem: stem in stems or (stem.isdecimal() and int(stem) == number)), 0
        stems = {place.name, stem_of(place)}
        found = _masks(place.parent, lambda stem: stem in stems)
        return [*found, *([place] if place.is_file() and place not in found else [])], number


def objects_found(labels: np.ndarray, truth: Masks, case: Case, known: Collection[str]) -> Masks:
    """The objects of the truth in another tool's label image (H, W), and everything that it marks as `IMAGE`.

    Where the case has several objects, of the ``known`` names, and the tool uses one of their labels, each gets the
    label of its own name. Else a single object gets all that is marked, and of several each connected part goes to the
    one that it overlaps most.
    """
    wanted = case.labels if case.labels and np.isin(labels, list(case.labels)).any() else None
    masks, names = structures(labels, wanted)
    everything = union(masks, labels.shape)
    found: Masks = {name: np.zeros(labels.shape, bool) for name in truth}
    if not case.separate and len(known) > 1 and not set(names).isdisjoint(known):
        found.update((name, mask) for name, mask in zip(names, masks, strict=True) if name in truth)
    elif len(truth) == 1:
        found = dict.fromkeys(truth, everything)
    else:
        for part in _parts(masks):
            overlaps = {name: np.count_nonzero(part & mask) for name, mask in truth.items()}
            best = max(overlaps, key=overlaps.__getitem__, default=None)
            if best is not None and overlaps[best]:
                found[best] |= part
    return {**found, IMAGE: everything}


def _parts(masks: np.ndarray) -> Iterator[np.ndarray]:
    for mask in masks:
        numbered, count = ndimage.label(mask)
        for part in range(1, count + 1):
            yield numbered == part


def _masks(folder: Path, matches: Callable[[str], bool]) -> list[Path]:
    """The mask files of a folder whose names without suffixes match."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in files if path.name.lower().endswith(MASK_SUFFIXES) and matches(stem_of(path))]
