"""CAMUS, hearts in two views: ``database_nifti/patient0001/patient0001_2CH_half_sequence.nii.gz`` and its ``_gt``.

A view's loop from one end of the beat to the other is taken where it is annotated as a whole; else end-diastole (ED)
and end-systole (ES) become stills, as in the first release (MetaImage, ``.mhd``). ``database_split``, where it is
there, gives the parts.
"""

from __future__ import annotations

import re
from pathlib import Path

from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.importers.found import Found

TITLE = "CAMUS: left ventricle, its muscle, left atrium (500 patients, 2 views; Leclerc et al., IEEE TMI 2019)"
WHERE = "https://www.creatis.insa-lyon.fr/Challenge/camus/"
LICENCE = "CC BY-NC-SA 4.0: not for commercial use; check it there"

LABELS = {1: "left ventricle", 2: "myocardium", 3: "left atrium"}
_SPLITS = {"train": "subgroup_training.txt", "val": "subgroup_validation.txt", "test": "subgroup_testing.txt"}
_SUFFIXES = (".nii.gz", ".nii", ".mhd")


def read(folder: Path, _out: Path | None = None) -> Found:
    """Cases of all patients' folders within ``folder``."""
    patients = sorted(path for path in folder.rglob("patient*") if path.is_dir())
    if not patients:
        raise ReadError(
            f"{folder} does not look as expected",
            "it has no folder patient0001",
            "Name the folder that CAMUS was unpacked into",
        )
    parts = _parts(folder)
    cases, left_out = [], []
    for patient in patients:
        for view in ("2CH", "4CH"):
            found = _view(patient, f"{patient.name}_{view}", parts.get(patient.name, ""))
            cases += found
            if not found:
                left_out.append((f"{patient.name} {view}", "it has no annotation"))
    return Found(tuple(cases), tuple(left_out))


def _view(patient: Path, name: str, part: str) -> list[Case]:
    """A loop, or stills."""
    found = {kind: _annotated(patient, f"{name}_{kind}") for kind in ("half_sequence", "ED", "ES")}
    kinds = ("half_sequence",) if found["half_sequence"] else ("ED", "ES")
    return [
        Case(f"camus/{name}_{kind}", *pair, patient.name, "camus", part=part, labels=LABELS)
        for kind in kinds
        if (pair := found[kind])
    ]


def _annotated(patient: Path, name: str) -> tuple[Path, tuple[Path, ...]] | None:
    for suffix in _SUFFIXES:
        image, mask = patient / f"{name}{suffix}", patient / f"{name}_gt{suffix}"
        if image.is_file() and mask.is_file():
            return image, (mask,)
    return None


def _parts(folder: Path) -> dict[str, str]:
    parts = {}
    for part, name in _SPLITS.items():
        for path in folder.rglob(name):
            parts |= dict.fromkeys(re.findall(r"patient\d+", path.read_text(encoding="utf-8")), part)
    return parts
