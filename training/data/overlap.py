"""Parts must not overlap: neither by subject nor by the same picture under two names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.images import image_files
from napari_uniultra.training.data.cases import Case

_HEAD_BYTES = 1 << 16


def check_overlap(cases: Iterable[Case]) -> None:
    """Check that no subject and no file's content is in two parts; cases in no part yet do not count.

    Raises
    ------
    ReadError
        Naming both cases.
    """
    decided = [case for case in cases if case.part]
    seen: dict[tuple[str, str], Case] = {}
    for case in decided:
        other = seen.setdefault(case.group, case)
        if other.part != case.part:
            raise ReadError(
                f"{other.name} is in part {other.part} and {case.name} in part {case.part}",
                f"both are of subject {case.subject} of {case.source or 'the same source'}",
                "Keep each subject in one part: 'uniultra data split' does",
            )
    if len({case.part for case in decided}) == 1:
        return
    for case, other, path in same_pictures(decided):
        if case.part != other.part:
            raise ReadError(
                f"{case.name} is in part {case.part} and {other.name} in part {other.part}",
                f"both hold the picture {path.name}",
                "Keep one of them, or split the cases anew: 'uniultra data split --redo'",
            )


def same_subjects(cases: Iterable[Case]) -> Iterator[str]:
    """In words, each subject's name that is in several parts, under different sources: it may be one person.

    It may also be two, as ``p1`` of one clinic and ``p1`` of another are, so that nothing is refused.
    """
    named: dict[str, dict[str, Case]] = {}
    for case in cases:
        if case.subject and case.part:
            named.setdefault(case.subject, {}).setdefault(case.part, case)
    for subject, parts in named.items():
        one, *others = parts.values()
        if others:
            yield (
                f"{one.name} of {one.source or 'no source'} is in part {one.part} and {others[0].name} of "
                f"{others[0].source or 'no source'} in part {others[0].part}: both are of a subject {subject}. If this "
                "is one person, Dice looks better than it is: give both cases one 'source', and split them anew."
            )


def same_pictures(cases: Iterable[Case]) -> Iterator[tuple[Case, Case, Path]]:
    """Pairs of cases of different groups that hold a file of the same content, and one of the files.

    Sizes are compared first, then beginnings, and only what is still alike is read as a whole.

    Raises
    ------
    ReadError
        Naming a file that cannot be read.
    """
    groups = [[(path, case) for case in cases for path in _files(case)]]
    for fingerprint in (_size, _head, _whole):
        finer = []
        for group in groups:
            buckets: dict[object, list[tuple[Path, Case]]] = {}
            for path, case in group:
                try:
                    buckets.setdefault(fingerprint(path), []).append((path, case))
                except OSError as error:
                    raise ReadError(f"{path.name} of {case.name} cannot be read", error.strerror or "") from error
            finer += [bucket for bucket in buckets.values() if len({case.group for _, case in bucket}) > 1]
        groups = finer
    for (path, case), *others in groups:
        yield from ((case, other, path) for _, other in others if other.group != case.group)


def _files(case: Case) -> list[Path]:
    return image_files(case.frames) if case.frames.is_dir() else [case.frames]


def _size(path: Path) -> object:
    return path.stat().st_size


def _head(path: Path) -> object:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(_HEAD_BYTES)).digest()


def _whole(path: Path) -> object:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
