"""What a run will do, before it is started: what is trained, on what, and for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from napari_uniultra.errors import UniUltraError
from napari_uniultra.training.data.cases import PARTS, Case, OpenCase
from napari_uniultra.training.data.importers import open_manifests
from napari_uniultra.training.data.settings import DataSettings


@dataclass(frozen=True)
class PartCount:
    """How much of the data a part of the split holds.

    Attributes
    ----------
    part : str
        ``train``, ``val``, ``test``, or "" for cases in none.
    subjects, cases, frames : int
        Frames are the annotated ones.
    unreadable : int
        Cases that cannot be opened; a run leaves them out.
    """

    part: str
    subjects: int
    cases: int
    frames: int
    unreadable: int


def count_parts(data: DataSettings) -> list[PartCount]:
    """Subjects, cases and annotated frames of each part that holds any.

    Raises
    ------
    ReadError
        When a manifest cannot be used.
    """
    manifest = open_manifests(data.manifests)
    parts = [(part, manifest.part(part)) for part in (*PARTS, "")]
    return [_count(part, cases) for part, cases in parts if cases]


def _count(part: str, cases: tuple[Case, ...]) -> PartCount:
    frames = Counter(_frames(cases))
    unreadable = frames.pop(0, 0)
    total = sum(count * times for count, times in frames.items())
    return PartCount(part, len({case.group for case in cases}), len(cases), total, unreadable)


def _frames(cases: tuple[Case, ...]) -> Iterator[int]:
    """Annotated frames of each case; 0 for one that cannot be opened."""
    for case in cases:
        try:
            yield len(OpenCase(case).frames)
        except UniUltraError:
            yield 0
