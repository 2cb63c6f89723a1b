"""BUSI, breast ultrasound images: ``benign``, ``malignant`` and ``normal`` with masks beside the images.

``benign (1).png`` has its mask in ``benign (1)_mask.png``, a second lesion's in ``benign (1)_mask_1.png``. Subjects are
not known (about 780 images of 600 women). Normal images have no lesion and are left out.
"""

from __future__ import annotations

from pathlib import Path

from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.importers.found import Found, image_files, subfolder

TITLE = "BUSI: breast lesions (780 images, 600 women; Al-Dhabyani et al., Data in Brief 2020)"
WHERE = "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset"
LICENCE = "free for research, with citation; its page states no licence"


def read(folder: Path, _out: Path | None = None) -> Found:
    """Cases of the folder ``Dataset_BUSI_with_GT``."""
    cases, left_out = [], []
    for kind in ("benign", "malignant"):
        files = image_files(subfolder(folder, kind))
        for image in (path for path in files if "_mask" not in path.stem):
            masks = tuple(path for path in files if path.stem.startswith(f"{image.stem}_mask"))
            if masks:
                cases.append(Case(f"busi/{image.stem}", image, masks, source="busi"))
            else:
                left_out.append((image.name, "it has no mask"))
    return Found(tuple(cases), tuple(left_out))
