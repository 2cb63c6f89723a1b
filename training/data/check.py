"""Reading every case of a manifest before a long run: what cannot be read, is empty, does not fit, or comes twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.cases import Case, iterate_case
from napari_uniultra.training.data.manifest import Manifest


@dataclass(frozen=True)
class Checked:
    """What was found about a case.

    Attributes
    ----------
    case : Case
    frames, structures : int
        How many annotated ones.
    problem : str
        Why training would skip it; empty where all is well.
    same_as : Case, optional
        An earlier case with the same picture, whatever the file's format.
    """

    case: Case
    frames: int = 0
    structures: int = 0
    problem: str = ""
    same_as: Case | None = None

    @property
    def is_leak(self) -> bool:
        """Whether the same picture is in two parts."""
        return self.same_as is not None and bool(self.same_as.part) and self.same_as.part != self.case.part


def check_manifest(manifest: Manifest) -> Iterator[Checked]:
    """Read every annotated frame of every case, and compare their pixels."""
    seen: dict[bytes, Case] = {}
    for case in manifest.cases:
        frames = structures = 0
        same_as = None
        try:
            for annotated in iterate_case(case):
                frames += 1
                structures += len(annotated.masks)
                shape = repr(annotated.image.shape).encode()
                digest = hashlib.sha256(shape + annotated.image.tobytes()).digest()
                other = seen.setdefault(digest, case)
                same_as = same_as or (other if other is not case else None)
        except ReadError as error:
            yield Checked(case, frames, structures, str(error), same_as)
        else:
            yield Checked(case, frames, structures, "", same_as)
