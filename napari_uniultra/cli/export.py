"""`uniultra export`: masks from one format to another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_uniultra.cli.outputs import check_outputs


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "export",
        help="save masks in another format",
        description="Reads masks and writes them as TIFF, .seg.nrrd for 3D Slicer, NIfTI, a DICOM segmentation, COCO "
        "JSON, YOLO polygons, PNG files, or a video or animation with contours. See docs/export.md.",
    )
    parser.add_argument("masks", type=Path, metavar="MASKS", help="TIFF, NRRD, NIfTI, COCO, DICOM, or a folder of PNG")
    parser.add_argument("out", type=Path, metavar="OUT", help="its suffix says the format")
    parser.add_argument("--format", metavar="NAME", help="the format, where the suffix does not say it")
    parser.add_argument("--loop", type=Path, metavar="LOOP", help="the loop that the masks belong to")
    parser.add_argument(
        "--with-patient-data",
        action="store_true",
        help="keep the patient's name in a DICOM segmentation, and what is written beside the scan area in a video",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert one file or folder of masks."""
    from napari_uniultra.io.readers import read_cine
    from napari_uniultra.io.readers.masks import read_masks
    from napari_uniultra.io.writers import format_of, write_masks

    format_of(arguments.out, arguments.format)  # a format that is not known is said before anything is read
    check_outputs([arguments.out], [arguments.masks, arguments.loop])
    if arguments.loop is None:
        masks = read_masks(arguments.masks)
    else:
        loop = read_cine(arguments.loop)
        masks = read_masks(arguments.masks, len(loop)).with_loop(loop)
    for path in write_masks(arguments.out, masks, arguments.format, arguments.with_patient_data):
        print(path)
    return 0
