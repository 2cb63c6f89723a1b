"""`uniultra bench`: what is fast and small, in numbers; by itself, beside the official SAM2 predictor."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_uniultra.errors import ConfigError
from napari_uniultra.model.choices import DEFAULT_MODEL

_LONG = 10_000  # frames


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "bench",
        help="measure speed and memory, also beside the official SAM2 predictor",
        description="Prints one Markdown table. By itself, it runs this package and the official predictor on the same "
        "weights and loop, in turn; the options below measure something else instead.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--interaction", action="store_true", help="loading a model, the first mask, and each prompt after it"
    )
    what.add_argument(
        "--long",
        nargs="?",
        type=int,
        const=_LONG,
        metavar="FRAMES",
        help=f"memory and time per frame along a long loop (default: {_LONG} frames)",
    )
    what.add_argument("--start-up", action="store_true", help="what the panel adds to the start of napari")
    what.add_argument("--training", action="store_true", help="the trainer beside a plain PyTorch loop")
    what.add_argument("--gpu", action="store_true", help="frames a second and memory on an NVIDIA GPU")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a model's name or path (default: %(default)s)")
    parser.add_argument(
        "--image-size", type=int, metavar="N", help="input size of the network in px, where it may vary"
    )
    parser.add_argument("--quick", action="store_true", help="fewer frames and repeats")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table to this file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark and print its table."""
    table = _table(arguments)
    print(table)
    if arguments.out is not None:
        from napari_uniultra.core.atomic import atomic_path

        with atomic_path(arguments.out) as path:
            path.write_text(table, encoding="utf-8")
    return 0


def _table(arguments: argparse.Namespace) -> str:
    model, quick, size = arguments.model, arguments.quick, arguments.image_size
    if size is not None and (arguments.interaction or arguments.start_up or arguments.training):
        raise ConfigError("--image-size changes nothing here", fix="Leave it out, or measure something else")
    sized = {} if size is None else {"image_size": size}
    if arguments.interaction:
        from napari_uniultra.benchmarks.interaction import run_interaction

        return run_interaction(model, quick)
    if arguments.long is not None:
        from napari_uniultra.benchmarks.long_loop import run_long

        return run_long(model, arguments.long, **sized)
    if arguments.start_up:
        from napari_uniultra.benchmarks.start_up import run_start_up

        return run_start_up(quick)
    if arguments.training:
        from napari_uniultra.benchmarks.training import run_training

        return run_training(quick=quick)
    if arguments.gpu:
        from napari_uniultra.benchmarks.gpu import Plan, run_gpu

        return run_gpu(plan=Plan(**sized), quick=quick)
    from napari_uniultra.benchmarks.suite import run_benchmarks

    return run_benchmarks(model, quick, size)
