"""JNU-IFM, pubic symphysis and fetal head in loops: a folder a video with ``image``, ``mask`` and ``mask_enhance``.

``image/<video>_<n>.png`` has its mask in ``mask/<video>_<n>_mask.png``, with the values 7 (symphysis) and 8 (head).
Each video becomes a loop. Which of the 78 videos are of the same of 51 women is not published: a video counts as a
subject. The challenge's version, single ``image_mha`` and ``label_mha`` with 1 and 2, becomes stills.
"""

from __future__ import annotations

from pathlib import Path

from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.importers.found import Found, paired_cases

TITLE = "JNU-IFM: pubic symphysis and fetal head (78 videos, 6224 frames of 51 women; Lu et al., Data in Brief 2022)"
WHERE = "https://figshare.com/articles/dataset/JNU-IFM/14371652, and https://zenodo.org/records/7851339 (stills)"
LICENCE = "CC BY 4.0 as stated on Figshare: check it there"

LABELS = {7: "pubic symphysis", 8: "fetal head"}
STILL_LABELS = {1: "pubic symphysis", 2: "fetal head"}


def read(folder: Path, _out: Path | None = None) -> Found:
    """A loop for each video's folder, or the challenge's stills."""
    if (folder / "image_mha").is_dir():
        return paired_cases("jnu_ifm", folder / "image_mha", folder / "label_mha", labels=STILL_LABELS)
    videos = sorted(path.parent for path in folder.rglob("image") if path.is_dir() and (path.parent / "mask").is_dir())
    if not videos:
        raise ReadError(
            f"{folder} does not look as expected",
            "no folder in it has the folders image and mask",
            "Name the folder that JNU-IFM was unpacked into",
        )
    cases = [
        Case(f"jnu_ifm/{path.name}", path / "image", (path / "mask",), path.name, "jnu_ifm", labels=LABELS)
        for path in videos
    ]
    return Found(tuple(cases))
