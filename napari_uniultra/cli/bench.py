"""`uniultra bench`: speed and memory beside the official SAM2 predictor, on the same weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "bench",
        help="compare speed and memory with the official SAM2 predictor",
        description="Runs both predictors on the same weights and loop, in turn, and prints a Markdown table.",
    )
    parser.add_argument("--model", default="uniultra-mini", help="a model's name or path (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer frames and repeats")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table to this file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark and print its table."""
    from napari_uniultra.benchmarks import run_benchmarks

    table = run_benchmarks(model=arguments.model, quick=arguments.quick)
    if arguments.out is not None:
        from napari_uniultra.core.atomic import atomic_path

        with atomic_path(arguments.out) as path:
            path.write_text(table, encoding="utf-8")
    print(table)
    return 0
