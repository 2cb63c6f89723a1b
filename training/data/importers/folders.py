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
from napari_uniultra.training.data.importers.found import Found, subfolder
from napari_uniultra.training.data.labels import mask_of, masks_by_name, stem_of

TITLE = "plain folders: images/ and masks/ with files, or folders of frames, of the same name"
WHERE = "your own data"
LICENCE = "as you received them"


def read(folder: Path, _out: Path | None = None) -> Found:
    """Cases of a folder that holds ``images`` (or ``frames``) and ``masks`` (or ``labels``)."""
    images = subfolder(folder, "images", "image", "frames")
    masks = subfolder(folder, "masks", "mask", "labels", "label")
    by_name = masks_by_name(path for path in sorted(masks.iterdir()) if not path.name.startswith("."))
    cases, left_out = [], []
    for path in sorted(images.iterdir()):
        if path.name.startswith("."):
            continue
        mask = mask_of(path, by_name)
        if mask is None:
            left_out.append((path.name, f"there is nothing of this name in {masks.name}"))
        elif not can_read(path):
            left_out.append((path.name, "it is of a kind that cannot be read"))
        else:
            cases.append(Case(stem_of(path), path, (mask,), source=folder.resolve().name))
    return Found(tuple(cases), tuple(left_out))
