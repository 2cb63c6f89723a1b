"""`uniultra segment`: a loop and prompts in; masks, measurements and pictures out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_uniultra.cli.job import Job, finish, output_paths
from napari_uniultra.cli.outputs import check_outputs
from napari_uniultra.model.choices import DEFAULT_MODEL, DEVICES

if TYPE_CHECKING:
    from napari_uniultra.core.types import Cine
    from napari_uniultra.io.writers import ObjectPrompts


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "segment",
        help="segment and track structures through a loop",
        description="Segments the prompted structures of an ultrasound loop in every frame, measures them, and writes "
        "masks.tif, measurements.csv, overlay.mp4, contact_sheet.png, prompts.json and run.json.",
    )
    parser.add_argument(
        "loop",
        type=Path,
        metavar="LOOP",
        help="DICOM, video, TIFF, NRRD, MHA, NIfTI, NumPy, Zarr, an image, or a folder of images",
    )
    prompts = parser.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompts", type=Path, metavar="FILE", help="a prompts.json")
    prompts.add_argument(
        "--box",
        type=_box,
        action="append",
        metavar="X0,Y0,X1,Y1",
        help="a box in pixels, x to the right and y down from the top left corner; once for every object",
    )
    parser.add_argument("--frame", type=int, metavar="N", help="the frame of the boxes (default: 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a model's name or path (default: %(default)s)")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="default: the fastest there is")
    parser.add_argument("--start", type=int, metavar="N", help="first frame to visit")
    parser.add_argument("--stop", type=int, metavar="N", help="last frame to visit")
    parser.add_argument(
        "--direction",
        default="both",
        choices=("forward", "backward", "both"),
        help="from the prompts to the end, to the beginning, or the whole loop (default: %(default)s)",
    )
    parser.add_argument(
        "--zoom",
        action=argparse.BooleanOptionalAction,
        help="track small structures in close views that follow them (default: as the model was trained)",
    )
    parser.add_argument(
        "--format",
        action="append",
        default=[],
        metavar="NAME",
        help="write the masks as nrrd, nifti, dicom, coco, yolo, png or gif as well, besides tiff and mp4, which are "
        "always written; may be given several times",
    )
    parser.add_argument("--force", action="store_true", help="write over results, and other files, of the same names")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Segment one loop."""
    if arguments.prompts is not None and arguments.frame is not None:
        arguments.parser.error("--frame is the frame of --box; a file of prompts names the frames itself")
    from napari_uniultra.io.readers import read_cine
    from napari_uniultra.io.writers import read_prompts

    cine = read_cine(arguments.loop)
    if arguments.prompts is not None:
        objects = read_prompts(arguments.prompts, cine.shape_hw)
    else:
        objects = _objects_of_boxes(arguments.box, arguments.frame or 0, cine)
    check_outputs(output_paths(arguments.out, arguments.format), [arguments.loop, arguments.prompts])
    job = Job(
        cine=cine,
        objects=objects,
        out=arguments.out,
        model=arguments.model,
        device=arguments.device,
        direction=arguments.direction,
        zoom=arguments.zoom,
        start=arguments.start,
        stop=arguments.stop,
        formats=tuple(arguments.format),
    )
    return finish(job, arguments.force)


def _box(text: str) -> tuple[float, ...]:
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        words = f"{text!r} is not a box: give four numbers in pixels, x0,y0,x1,y1, as in 157,56,212,127"
        raise argparse.ArgumentTypeError(words) from None
    return x0, y0, x1, y1


def _objects_of_boxes(boxes: list[tuple[float, ...]], frame: int, cine: Cine) -> list[ObjectPrompts]:
    """One object per box, on one frame."""
    from napari_uniultra.core.prompts import normalise_box
    from napari_uniultra.core.types import Prompt, default_name
    from napari_uniultra.io.writers import ObjectPrompts

    cine.frame(frame)  # says which frames there are when this one does not exist
    return [
        ObjectPrompts(number, default_name(number), {frame: Prompt(box=normalise_box(box, cine.shape_hw))})
        for number, box in enumerate(boxes, start=1)
    ]
