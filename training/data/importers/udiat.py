"""UDIAT, breast lesions (also called Dataset B): ``original`` and ``GT``, files of the same name; one image a woman."""

from __future__ import annotations

from pathlib import Path

from napari_uniultra.training.data.importers.found import Found, paired_cases, subfolder

TITLE = "UDIAT (Dataset B): breast lesions (163 images; Yap et al., IEEE JBHI 2018)"
WHERE = "http://www2.docm.mmu.ac.uk/STAFF/m.yap/dataset.php (on request)"
LICENCE = "on request and for research only, by its makers' agreement"


def read(folder: Path, _out: Path | None = None) -> Found:
    """Cases of the folder that holds ``original`` and ``GT``."""
    return paired_cases("udiat", subfolder(folder, "original"), subfolder(folder, "GT"))
