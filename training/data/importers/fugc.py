"""FUGC, the cervix in transvaginal ultrasound: ``images`` and ``labels`` in ``train/labeled_data``, ``val``, ``test``.

Labels are 1, the anterior lip, and 2, the posterior lip. Images without labels are left out. The makers' own parts are
kept; where ``test`` has labels it becomes the part of that name.
"""

from __future__ import annotations

from pathlib import Path

from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.importers.found import Found, joined, paired_cases

TITLE = "FUGC 2025: anterior and posterior lip of the cervix (890 images; Bai et al.)"
WHERE = "https://zenodo.org/records/14305302"
LICENCE = "CC BY 4.0 as stated on Zenodo: check it there"

LABELS = {1: "anterior lip", 2: "posterior lip"}
_PARTS = {"train/labeled_data": "train", "val": "val", "test": "test"}


def read(folder: Path, _out: Path | None = None) -> Found:
    """Cases of the folder that holds ``train``, ``val`` and ``test``, as far as they have labels."""
    found = []
    for place, part in _PARTS.items():
        images, labels = folder / place / "images", folder / place / "labels"
        if images.is_dir() and labels.is_dir():
            found.append(paired_cases("fugc", images, labels, part=part, prefix=f"{part}/", labels=LABELS))
    if not found:
        raise ReadError(
            f"{folder} does not look as expected",
            "it has no train/labeled_data/images with labels beside it",
            "Name the folder that FUGC was unpacked into",
        )
    return joined(found)
