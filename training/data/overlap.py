"""Parts must not overlap: neither by subject nor by the same picture under two names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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
    if len({case.part for case in decided}) > 1:
        _check_content(decided)


def _check_content(cases: list[Case]) -> None:
    """Compare files of different parts: first their sizes, then their beginnings, then all of them."""
    suspects = [(path, case) for case in cases for path in _files(case)]
    for fingerprint in (_size, _head, _whole):
        groups: dict[object, list[tuple[Path, Case]]] = {}
        for path, case in suspects:
            groups.setdefault(fingerprint(path), []).append((path, case))
        suspects = [item for group in groups.values() if len({case.part for _, case in group}) > 1 for item in group]
        if not suspects:
            return
    (path, case), *others = suspects
    same = _whole(path)
    other_path, other = next(
        (item for item in others if item[1].part != case.part and _whole(item[0]) == same), others[0]
    )
    raise ReadError(
        f"{case.name} is in part {case.part} and {other.name} in part {other.part}",
        f"{path.name} and {other_path.name} hold the same picture",
        "Keep one of them, or give both the same subject and part",
    )


def _files(case: Case) -> list[Path]:
    return image_files(case.frames) if case.frames.is_dir() else [case.frames]


def _size(path: Path) -> object:
    return path.stat().st_size


def _head(path: Path) -> object:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.sha256(file.read(_HEAD_BYTES)).digest()


def _whole(path: Path) -> object:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
