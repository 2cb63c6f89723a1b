"""TN3K, thyroid nodules: ``trainval-image`` and ``trainval-mask``, ``test-image`` and ``test-mask``, JPEG.

The test set that its makers fixed becomes the part ``test``; ``tn3k-trainval-fold0.json``, where it is there, divides
the rest as they did. Subjects are not known (3493 images of 2421 patients).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.importers.found import Found, joined, paired_cases, subfolder

TITLE = "TN3K: thyroid nodules (3493 images of 2421 patients; Gong et al., ISBI 2021)"
WHERE = "https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation"
LICENCE = "for research, with citation; its page states no licence for the images"


def read(folder: Path, _out: Path | None = None) -> Found:
    """Cases of the folder ``tn3k``."""
    folders = {name: subfolder(folder, name) for name in ("trainval-image", "trainval-mask", "test-image", "test-mask")}
    test = paired_cases("tn3k", folders["test-image"], folders["test-mask"], part="test", prefix="test/")
    others = paired_cases("tn3k", folders["trainval-image"], folders["trainval-mask"], prefix="trainval/")
    parts = _fold(folder / "tn3k-trainval-fold0.json")
    others = replace(others, cases=tuple(replace(c, part=parts.get(c.frames.stem, "")) for c in others.cases))
    return joined((others, test))


def _fold(path: Path) -> dict[str, str]:
    """The part of each image of the training folder, by its name."""
    if not path.is_file():
        return {}
    try:
        fold = json.loads(path.read_text(encoding="utf-8"))
        return {f"{int(number):04d}": part for part in ("train", "val") for number in fold[part]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(f"{path.name} cannot be read", str(error), "Remove it, and split the cases anew") from error
