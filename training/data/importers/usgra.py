"""usgra-seg, nerves and vessels in regional anaesthesia: ``dataset`` with PNG images and masks, and ``dataset/test``.

Labels are 1, nerve, and 2, vessel; every connected part is a structure of its own. Images and masks lie in folders
``images`` and ``masks``. The makers' ``test`` stays the part of that name. Volunteers are not told apart.
"""

from __future__ import annotations

from pathlib import Path

from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.importers.found import Found, joined, paired_cases

TITLE = "usgra-seg: nerves and vessels of five regions (244 images of volunteers, 2025)"
WHERE = "the repository usgra-seg on GitHub, folder dataset"
LICENCE = "CC BY 4.0"

LABELS = {1: "nerve", 2: "vessel"}


def read(folder: Path, _out: Path | None = None) -> Found:
    """Cases of the repository's folder, or of its ``dataset``."""
    base = folder / "dataset" if (folder / "dataset").is_dir() else folder
    found = []
    for place, part in ((base, ""), (base / "train", ""), (base / "test", "test")):
        for images, masks in (("images", "masks"), ("image", "mask"), ("img", "mask")):
            if (place / images).is_dir() and (place / masks).is_dir():
                facts = {"part": part, "prefix": f"{part}/" if part else "", "labels": LABELS, "separate": True}
                found.append(paired_cases("usgra", place / images, place / masks, **facts))
    if not found:
        raise ReadError(
            f"{folder} does not look as expected",
            "it has no folders images and masks",
            "Name the folder that usgra-seg was unpacked into",
        )
    return joined(found)
