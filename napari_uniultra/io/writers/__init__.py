"""Masks, measurements and pictures to files; each file is written whole or not at all."""

from napari_uniultra.io.writers.formats import FORMAT_NAMES, FORMATS, format_of, usual_path, write_masks
from napari_uniultra.io.writers.masks import write_masks_tiff
from napari_uniultra.io.writers.measurements import write_cycles_csv, write_measurements_csv
from napari_uniultra.io.writers.overlay import write_contact_sheet, write_overlay_video
from napari_uniultra.io.writers.prompts import ObjectPrompts, read_prompts, write_prompts

__all__ = [
    "FORMATS",
    "FORMAT_NAMES",
    "ObjectPrompts",
    "format_of",
    "read_prompts",
    "usual_path",
    "write_contact_sheet",
    "write_cycles_csv",
    "write_masks",
    "write_masks_tiff",
    "write_measurements_csv",
    "write_overlay_video",
    "write_prompts",
]
