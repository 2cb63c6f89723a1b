"""`uniultra measure`: masks in, tables out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_uniultra.cli.outputs import check_outputs

if TYPE_CHECKING:
    from napari_uniultra.core.measure import CycleMeasurement, Measurement
    from napari_uniultra.core.types import Cine


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "measure",
        help="measure masks",
        description="Measures every object on every frame of a file or folder of masks: area, perimeter, diameters, "
        "circumference of the fitted ellipse, thickness, change over time. In mm where the size of a pixel is known.",
    )
    parser.add_argument("masks", type=Path, metavar="MASKS", help="TIFF, NRRD, NIfTI, COCO, DICOM, or a folder of PNG")
    parser.add_argument("--out", type=_table, required=True, metavar="FILE", help="the table, a .csv")
    parser.add_argument(
        "--loop", type=Path, metavar="LOOP", help="the loop, for its scan area, and spacing and times if MASKS has none"
    )
    parser.add_argument(
        "--spacing", type=_spacing, metavar="ROW,COLUMN", help="size of a pixel in mm, in place of what the files say"
    )
    parser.add_argument(
        "--cycles",
        type=_table,
        metavar="FILE",
        help="also a table of heart cycles, a .csv: end-diastole and end-systole, fractional area change, "
        "ejection fraction",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure one loop's masks."""
    import numpy as np

    from napari_uniultra.core.measure import measurement_rows
    from napari_uniultra.core.types import Cine
    from napari_uniultra.io.readers import read_cine
    from napari_uniultra.io.readers.masks import read_masks
    from napari_uniultra.io.writers import write_cycles_csv, write_measurements_csv

    check_outputs([arguments.out, arguments.cycles], [arguments.masks, arguments.loop])
    loop = None if arguments.loop is None else read_cine(arguments.loop)
    masks = read_masks(arguments.masks, None if loop is None else len(loop))
    if loop is None:
        blank = np.broadcast_to(np.zeros(1, np.uint8), masks.labels.shape)
        cine = Cine(blank, spacing_mm=masks.spacing_mm, frame_times_s=masks.frame_times_s)
    else:
        _check_fit(loop, masks.labels.shape, arguments)
        cine = masks.with_loop(loop).cine
    cine = cine.with_(spacing_mm=arguments.spacing or cine.spacing_mm)
    rows = measurement_rows(cine, masks.labels, masks.names)
    write_measurements_csv(arguments.out, rows)
    print(arguments.out)
    if arguments.cycles is not None:
        write_cycles_csv(arguments.cycles, _cycles(cine, masks.labels, rows), in_mm=cine.spacing_mm is not None)
        print(arguments.cycles)
    return 0


def _table(text: str) -> Path:
    if not text.lower().endswith(".csv"):
        raise argparse.ArgumentTypeError(f"{text} does not end in .csv: tables are CSV files")
    return Path(text)


def _spacing(text: str) -> tuple[float, float]:
    try:
        row, column = (float(part) for part in text.split(","))
    except ValueError:
        words = f"{text!r} is not the size of a pixel: give two numbers in mm, row and column, as in 0.2,0.2"
        raise argparse.ArgumentTypeError(words) from None
    return row, column


def _check_fit(cine: Cine, shape: tuple[int, ...], arguments: argparse.Namespace) -> None:
    from napari_uniultra.errors import ReadError

    if (len(cine), *cine.shape_hw) != shape:
        raise ReadError(
            f"{arguments.masks.name} does not belong to {arguments.loop.name}",
            f"they are {shape} and {(len(cine), *cine.shape_hw)}",
        )


def _cycles(cine: Cine, labels: Any, rows: list[Measurement]) -> list[CycleMeasurement]:
    from napari_uniultra.core.measure import area_curve, find_cycles, measure_object_cycle

    names = {row.object_id: row.object_name for row in rows}
    return [
        measure_object_cycle(cine, labels, cycle, object_id, name)
        for object_id, name in sorted(names.items())
        for cycle in find_cycles(area_curve(rows, object_id, len(cine)), cine.frame_times_s)
    ]
