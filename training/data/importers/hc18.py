"""HC18, fetal heads: ``training_set`` with ``<n>_HC.png`` and the drawn ellipse in ``<n>_HC_Annotation.png``.

The ellipse is an outline one pixel wide and gets filled. Images ``<n>_2HC.png`` and so on are of the same examination
as ``<n>_HC.png``: the number is the subject. Pixel sizes come from the CSV file. The test set has no annotations.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.importers.found import Found, image_files, pixel_sizes, subfolder, write_mask

TITLE = "HC18: fetal heads (999 annotated images; van den Heuvel et al., PLoS ONE 2018)"
WHERE = "https://zenodo.org/records/1327317"
LICENCE = "CC BY 4.0"

_SIZES = "training_set_pixel_size_and_HC.csv"
_THICKEST_LINE = 3  # pixels from its edge: what is thicker is no line


def read(folder: Path, out: Path | None = None) -> Found:
    """Cases of the training set; filled masks are written under ``out``."""
    images = subfolder(folder, "training_set")
    table = next((path for path in (folder / _SIZES, images / _SIZES) if path.is_file()), None)
    sizes = pixel_sizes(table, "filename", "pixel size(mm)") if table else {}
    cases, left_out = [], []
    for image in (path for path in image_files(images) if not path.stem.endswith("_Annotation")):
        outline = image.with_name(f"{image.stem}_Annotation.png")
        if not outline.is_file():
            left_out.append((image.name, "it has no annotation"))
            continue
        filled = _filled(outline)
        if not filled.any():
            left_out.append((image.name, "its outline encloses nothing"))
            continue
        size = sizes.get(image.name)
        cases.append(
            Case(
                f"hc18/{image.stem}",
                image,
                (write_mask(filled, out, image),),
                subject=image.stem.partition("_")[0],
                source="hc18",
                spacing_mm=(size, size) if size else None,
            )
        )
    return Found(tuple(cases), tuple(left_out))


def _filled(outline: Path) -> np.ndarray:
    """The inside of a drawn ellipse, (H, W) uint8 of 0 and 255; a mask that is filled already stays as it is.

    Nothing where the line encloses nothing.
    """
    with Image.open(outline) as opened:
        line = np.asarray(opened.convert("L")) > 127
    if not ndimage.binary_erosion(line, iterations=_THICKEST_LINE).any():
        inside = _inside(line)
        line = line | inside if inside.any() else inside
    return line.astype(np.uint8) * 255


def _inside(line: np.ndarray) -> np.ndarray:
    """The part of the picture (H, W) bool that an ellipse's line encloses, by itself or with the picture's edges."""
    parts, count = ndimage.label(~line)
    if count < 2:
        return np.zeros_like(line)
    # Heads may reach out of the picture on any side. An ellipse is convex: the middle of its line lies in it.
    row, column = np.argwhere(line).mean(axis=0).round().astype(int)
    return (parts == parts[row, column]) & ~line
