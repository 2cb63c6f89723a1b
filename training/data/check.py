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
    same_as : tuple of Case
        Earlier cases with a picture of this one, whatever the file's format.
    """

    case: Case
    frames: int = 0
    structures: int = 0
    problem: str = ""
    same_as: tuple[Case, ...] = ()

    @property
    def leaks(self) -> tuple[Case, ...]:
        """Those of another part; cases in no part yet do not count."""
        return tuple(other for other in self.same_as if other.part and self.case.part not in ("", other.part))


def check_manifest(manifest: Manifest) -> Iterator[Checked]:
    """Read every annotated frame of every case, and compare their pixels."""
    seen: dict[bytes, dict[str, Case]] = {}
    for case in manifest.cases:
        frames = structures = 0
        same_as: dict[str, Case] = {}
        try:
            for annotated in iterate_case(case):
                frames += 1
                structures += len(annotated.masks)
                shape = repr(annotated.image.shape).encode()
                digest = hashlib.sha256(shape + annotated.image.tobytes()).digest()
                known = seen.setdefault(digest, {})
                same_as |= known
                known[case.name] = case
            problem = ""
        except ReadError as error:
            problem = str(error)
        same_as.pop(case.name, None)  # a loop may show one picture twice
        yield Checked(case, frames, structures, problem, tuple(same_as.values()))
