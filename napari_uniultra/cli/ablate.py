"""`uniultra ablate`: a table of the paper, run on your own data, beside the paper's numbers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_uniultra.cli.evaluate import PARTS
from napari_uniultra.cli.exit_codes import INTERRUPTED, OK
from napari_uniultra.cli.train import read_changes
from napari_uniultra.core.atomic import check_writable
from napari_uniultra.model.choices import DEVICES

if TYPE_CHECKING:
    from napari_uniultra.training.ablation.plan import Asked

_DESCRIPTION = """\
Trains, distils and scores whatever a table or figure of the UniUltra paper needs (table1 to table10, fig5, fig6), and
writes it as Markdown beside the paper's numbers. Models and scores in the folder DIR are shared by all tables, and what
is finished is not done again: stop with Ctrl-C and give the same command to go on.
"""


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "ablate",
        help="run a table of the paper on your own data",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="TABLE", help="table1 to table10, fig5 or fig6")
    parser.add_argument("--data", required=True, action="append", metavar="MANIFEST", help="may be given several times")
    parser.add_argument("--out", type=Path, default=Path("runs/tables"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--part",
        default="test",
        choices=PARTS,
        help="the part to score (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="list runs, parameter counts and the time they may take")
    parser.add_argument("--quick", action="store_true", help="tiny random networks and two steps, to see that it runs")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting of all runs that have it"
    )
    parser.add_argument(
        "--predictions",
        action="append",
        default=[],
        metavar="ROW=DIR",
        help="score another tool's masks for a row, as `uniultra evaluate --predictions` does",
    )
    parser.add_argument("--device", default="auto", choices=DEVICES, help="default: the fastest there is")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run a table, or say what it would take."""
    from napari_uniultra.training.ablation.plan import training_cases
    from napari_uniultra.training.ablation.presets import read_table

    table = read_table(arguments.table)
    check_writable(arguments.out)
    asked = _asked(arguments)
    if arguments.dry_run:
        from napari_uniultra.training.ablation.estimate import describe, estimate_table
        from napari_uniultra.training.ablation.make import Workshop

        workshop = Workshop(arguments.out, training_cases(asked.manifest))
        print(describe(estimate_table(table, asked, workshop), table, asked))
        return 0
    return _run_table(arguments, asked)


def _run_table(arguments: argparse.Namespace, asked: Asked) -> int:
    from napari_uniultra.training.ablation.make import Stopped
    from napari_uniultra.training.ablation.run import run_table
    from napari_uniultra.training.events import ConsoleBar

    def tell(label: str, what: str) -> None:
        print(f"{label}: {what}", file=sys.stderr)

    predictions = _predictions(arguments.predictions)
    try:
        path = run_table(arguments.table, asked, arguments.out, predictions, [ConsoleBar()], tell)
    except Stopped as stopped:
        print(f"uniultra: {stopped}", file=sys.stderr)
        return INTERRUPTED
    print(path.read_text(encoding="utf-8"))
    print(path)
    return OK


def _asked(arguments: argparse.Namespace) -> Asked:
    from napari_uniultra.training.ablation.plan import Asked
    from napari_uniultra.training.ablation.quick import quick_start
    from napari_uniultra.training.data.importers import open_manifests

    return Asked(
        manifest=open_manifests(arguments.data),
        part=arguments.part,
        start=quick_start(arguments.out) if arguments.quick else None,
        device=arguments.device,
        changes=read_changes(arguments.set),
    )


def _predictions(arguments: list[str]) -> dict[str, str]:
    """``ROW=DIR`` arguments."""
    from napari_uniultra.core.settings import ConfigError

    pairs = [argument.partition("=") for argument in arguments]
    for argument, (row, _, folder) in zip(arguments, pairs, strict=True):
        if not (row and folder):
            raise ConfigError(f"--predictions {argument} names no masks", fix="Write --predictions 'ROW=FOLDER'")
    return {row: folder for row, _, folder in pairs}
