"""Plain folders: ``images`` and ``masks`` with files, or folders of frames, of the same name.

An entry of ``images`` is an image, a video, a DICOM or other file of a loop, or a folder of frames; the entry of
``masks`` of the same name (``_mask`` may follow) is its mask file, or a folder with a mask for each annotated frame.
What stands before the first ``_`` or ``-`` of a name is *not* taken for the subject: nobody could know. Fill in the
manifest's ``subject`` column before you split, or cases of one person may end up in several parts.
"""

from __future__ import annotations

from pathlib import Path

from napari_uniultra.io.readers import can_read
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.importers.found import Found, pairs, subfolder
from napari_uniultra.training.data.labels import stem_of

TITLE = "plain folders: images/ and masks/ with files, or folders of frames, of the same name"
WHERE = "your own data"
LICENCE = "as you received them"


def read(folder: Path, _out: Path | None = None) -> Found:
    """Cases of a folder that holds ``images`` (or ``frames``) and ``masks`` (or ``labels``)."""
    images = subfolder(folder, "images", "image", "frames")
    masks = subfolder(folder, "masks", "mask", "labels", "label")
    found, left_out = pairs(_entries(images), _entries(masks))
    cases = []
    for path, mask in found:
        if can_read(path):
            cases.append(Case(stem_of(path), path, (mask,), source=folder.resolve().name))
        else:
            left_out.append((path.name, "it is of a kind that cannot be read"))
    return Found(tuple(cases), tuple(left_out))


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
