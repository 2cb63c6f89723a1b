"""`uniultra demo`: the sample loop, segmented with the bundled model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_uniultra.cli.job import Job, finish
from napari_uniultra.model.choices import DEFAULT_MODEL, DEVICES


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "demo",
        help="segment the sample loop that comes with the package",
        description="Tracks the left ventricle through a beating heart, on this computer. Nothing is downloaded.",
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a model's name or path (default: %(default)s)")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--force", action="store_true", help="compute and write again what is there already")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Segment the sample loop, unless its results are there."""
    from napari_uniultra.io.readers import read_cine
    from napari_uniultra.io.writers import read_prompts
    from napari_uniultra.sample_data import heart_path, heart_prompts_path

    cine = read_cine(heart_path())
    objects = read_prompts(heart_prompts_path(), cine.shape_hw)
    job = Job(cine=cine, objects=objects, out=arguments.out, model=arguments.model, device=arguments.device)
    return finish(job, arguments.force)
