"""A run's data set: a manifest, with images and masks where it is made of sessions, divided by subject.

What is written tells nothing of a patient: loops are named by their content, subjects are numbered, and what lies
outside the scan area, where scanners write names, is black.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from napari_uniultra.core.atomic import write_error
from napari_uniultra.core.manifest_table import plain_name
from napari_uniultra.core.sector import find_sector
from napari_uniultra.core.types import Cine, default_name
from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError
from napari_uniultra.runner.loops import Answers, CorrectedLoop, answers
from napari_uniultra.segment.results import Result
from napari_uniultra.segment.session_file import load_state
from napari_uniultra.training.data.cases import Case, grey
from napari_uniultra.training.data.importers import import_data, open_manifests
from napari_uniultra.training.data.manifest import Manifest, write_manifest
from napari_uniultra.training.data.splits import split_by_subject

MANIFEST = "manifest.csv"
SOURCE = "own loops"
_CODE_LENGTH = 12
_LEAST_TO_HOLD_OUT = 5  # accepted frames of a loop, to validate on the last fifth of them
_LEAST_HIDDEN = 0.01  # share of an object that others lie on, to speak of it
_VALIDATED_ON_ITSELF = (
    "Validation is on the same loop: there is a single subject, and its last frames are held out. Dice will look good "
    "and say nothing of other loops. Add loops of other subjects."
)
_NOT_VALIDATED = "There is a single subject with few frames: nothing is validated. Add loops of other subjects."
_LARGE = 10  # subjects, from which on some are kept for a test


@dataclass(frozen=True)
class DataChoice:
    """What a user wants to learn from: corrected loops, manifests, or else a data set's folder for an importer.

    Attributes
    ----------
    loops : tuple of CorrectedLoop
    accepted_only : bool
        Of the loops, take what a person accepted alone.
    manifests : tuple of str
    importer, folder : str
    """

    loops: tuple[CorrectedLoop, ...] = ()
    accepted_only: bool = True
    manifests: tuple[str, ...] = ()
    importer: str = ""
    folder: str = ""


@dataclass(frozen=True)
class MadeData:
    """A manifest that was made, and what a user should know of it."""

    manifest: Path
    warnings: tuple[str, ...] = ()


def make_data(choice: DataChoice, folder: Path, between: bool = False) -> MadeData:
    """The data set of a choice, made in a folder where it has to be made.

    Parameters
    ----------
    between : bool
        As `data_of_loops`.

    Raises
    ------
    ReadError, WriteError
    """
    if "" in choice.manifests or (choice.importer and not choice.folder):
        what = "folder" if choice.importer else "manifest"
        raise ReadError(f"No {what} is named to learn from", fix=f"Choose a {what}")
    if choice.manifests:
        return data_of_manifests(choice.manifests, folder)
    if choice.importer:
        return data_of_set(choice.importer, choice.folder, folder)
    return data_of_loops(choice.loops, folder, accepted_only=choice.accepted_only, between=between)


def data_of_loops(
    loops: Sequence[CorrectedLoop],
    folder: Path,
    *,
    accepted_only: bool = True,
    between: bool = False,
) -> MadeData:
    """Write the corrected frames of loops as a data set into a folder, in place of what it holds.

    Parameters
    ----------
    accepted_only : bool
        Take what a person accepted, and not what was only tracked.
    between : bool
        Also write the frames in between, which clips for the memory may show.

    Raises
    ------
    ReadError
        When no frame can be learnt from.
    WriteError
    """
    loops = [loop for loop in loops if _frames(loop, accepted_only)]
    if not loops:
        raise ReadError(
            "There is nothing to learn from",
            "no frame is accepted" if accepted_only else "no frame has a mask",
            "Accept frames that are right in the panel 'Segment loop' (G)",
        )
    subjects = _subject_codes(loops)
    is_one_subject = len(set(subjects)) == 1
    holds_out = is_one_subject and any(_frames(loop, accepted_only) >= _LEAST_TO_HOLD_OUT for loop in loops)
    warnings: list[str] = []
    cases: list[Case] = []
    try:
        shutil.rmtree(folder, ignore_errors=True)
        for loop, subject in zip(loops, subjects, strict=True):
            state = load_state(loop.session, loop.cine)
            known = answers(state, accepted_only)
            writer = _LoopWriter(loop.cine, folder, known, state.names, between)
            held_out = _held_out(known) if holds_out else {}
            first = {frame: found for frame, found in known.items() if frame not in held_out}
            cases.append(writer.write(writer.code, first, subject, "train" if holds_out else ""))
            if held_out:
                cases.append(writer.write(f"{writer.code}-later", held_out, f"{subject}-later", "val"))
            warnings += writer.warnings()
    except OSError as error:
        raise write_error(folder, error) from error
    if is_one_subject:
        warnings.append(_VALIDATED_ON_ITSELF if holds_out else _NOT_VALIDATED)
    return _finished(Manifest(tuple(cases)), folder, warnings)


def data_of_manifests(paths: Sequence[str | Path], folder: Path) -> MadeData:
    """Manifests as they are where they have parts, else a copy in a folder that is divided by subject.

    Raises
    ------
    ReadError, WriteError
    """
    manifest = open_manifests(paths)
    only = Path(paths[0])
    if len(paths) == 1 and only.is_file() and any(case.part for case in manifest.cases):
        return MadeData(only.absolute())
    return _finished(manifest, folder, [])


def data_of_set(importer: str, source: str | Path, folder: Path) -> MadeData:
    """A public data set, or plain folders, where a user unpacked them.

    Raises
    ------
    ReadError
        When the source does not look as the importer expects.
    WriteError
    """
    found = import_data(importer, source, folder / "masks")
    warnings = [f"{counted(len(found.left_out), 'case')} left out: {found.left_out[0][1]}."] if found.left_out else []
    return _finished(Manifest(found.cases), folder, warnings)


def _finished(manifest: Manifest, folder: Path, warnings: list[str]) -> MadeData:
    """Divide what is in no part, and write the manifest."""
    if not any(case.part for case in manifest.cases):
        manifest = split_by_subject(manifest, _shares(len({case.group for case in manifest.cases})))
    write_manifest(manifest, folder / MANIFEST)
    return MadeData((folder / MANIFEST).absolute(), tuple(warnings))


def _shares(subjects: int) -> tuple[float, float, float]:
    """Of train, val and test: with few subjects all count for the first two."""
    return (8, 1, 1) if subjects >= _LARGE else (8, 2, 0) if subjects > 2 else (1, 1, 0)


def _subject_codes(loops: Sequence[CorrectedLoop]) -> list[str]:
    """A code for each loop: the same for loops that a user calls one subject's."""
    numbers: dict[str, int] = {}
    for loop in loops:
        if loop.subject.strip():
            numbers.setdefault(loop.subject.strip(), len(numbers) + 1)
    return [f"subject-{numbers[s]}" if (s := loop.subject.strip()) else _code(loop.cine) for loop in loops]


def _held_out(known: Answers) -> Answers:
    """The last fifth of a loop's frames, where there is no other subject to validate on."""
    frames = list(known)
    count = len(frames) // _LEAST_TO_HOLD_OUT
    return {frame: known[frame] for frame in frames[len(frames) - count :]}


def _frames(loop: CorrectedLoop, accepted_only: bool) -> int:
    """How many frames of a loop can be learnt from."""
    return loop.accepted if accepted_only else loop.known


def _code(cine: Cine) -> str:
    return f"loop-{cine.key[:_CODE_LENGTH]}"


class _LoopWriter:
    """Frames and masks of a loop as folders of PNG files.

    A pixel of a mask tells one object: where objects lie on each other, the one that is smaller in the loop is told.
    """

    def __init__(self, cine: Cine, folder: Path, known: Answers, names: Mapping[int, str], between: bool) -> None:
        self.code, self._cine, self._folder, self._between = _code(cine), cine, folder, between
        self._area = find_sector(cine)
        self._sizes: Counter[int] = Counter()  # pixels of each object, on all frames
        self._hidden: Counter[int] = Counter()  # of these, the ones that others lie on
        for found in known.values():
            self._sizes.update({object_id: int(result.mask.unpack().sum()) for object_id, result in found.items()})
        self._numbers = {object_id: number for number, object_id in enumerate(sorted(self._sizes), 1)}
        self._names = {i: plain_name(names.get(i, "")) or default_name(number) for i, number in self._numbers.items()}

    def warnings(self) -> Iterator[str]:
        """What a user should know of the loop, once it is written."""
        if self._area is None:
            yield (
                f"The scan area of {self.code} was not found: its frames are kept whole. Look whether a name is "
                "written in them before you pass them on."
            )
        for object_id, pixels in self._hidden.items():
            share = pixels / self._sizes[object_id]
            if share >= _LEAST_HIDDEN:
                yield (
                    f"{share:.0%} of “{self._names[object_id]}” in {self.code} is learnt as what lies on it: a pixel "
                    "tells one object. Train on one of them alone if both are to be learnt whole."
                )

    def write(self, name: str, known: Answers, subject: str, part: str) -> Case:
        """Write frames and their masks (objects are numbered from 1); the case of them."""
        frames, masks = self._folder / name / "frames", self._folder / name / "masks"
        for place in (frames, masks):
            place.mkdir(parents=True, exist_ok=True)
        chosen = sorted(known)
        for frame in range(chosen[0], chosen[-1] + 1) if self._between else chosen:
            Image.fromarray(self._picture(frame)).save(frames / f"{frame:06d}.png")
        for frame, found in known.items():
            Image.fromarray(self._label_image(found)).save(masks / f"{frame:06d}.png")
        shown = {object_id for found in known.values() for object_id in found}
        labels = {self._numbers[object_id]: self._names[object_id] for object_id in sorted(shown)}
        case = Case(name, frames, (masks,), subject, SOURCE, self._cine.spacing_mm, part)
        return replace(case, labels=labels)

    def _label_image(self, found: Mapping[int, Result]) -> np.ndarray:
        """(H, W) uint8, the largest object lowest."""
        labels = np.zeros(self._cine.shape_hw, np.uint8)
        for object_id in sorted(found, key=lambda object_id: (-self._sizes[object_id], object_id)):
            labels[found[object_id].mask.unpack()] = self._numbers[object_id]
        for object_id, result in found.items():
            mask = result.mask.unpack()
            self._hidden[object_id] += int((labels[mask] != self._numbers[object_id]).sum())
        return labels

    def _picture(self, frame: int) -> np.ndarray:
        """(H, W) uint8, black outside the scan area."""
        picture = grey(self._cine.frame(frame))
        return picture if self._area is None else np.where(self._area, picture, np.uint8(0))
