"""`uniultra evaluate`: how well a model, or any other tool, segments and tracks annotated cases."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_uniultra.cli.outputs import check_outputs, check_replaced
from napari_uniultra.core.atomic import check_writable
from napari_uniultra.core.words import counted
from napari_uniultra.model.choices import DEVICES

if TYPE_CHECKING:
    from napari_uniultra.training.evaluation.run import Evaluation
    from napari_uniultra.training.evaluation.settings import EvaluationSettings

PARTS = ("train", "val", "test", "all")  # that can be scored


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="score a model, or masks of another tool, on annotated images and loops",
        description="Scores Dice, IoU, HD, HD95 and NSD for each image and object, beside the ellipse inscribed in the "
        "same box, and tracking through loops. Prints a table, and writes scores.csv, summary.json and report.html.",
    )
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="a model's name or path")
    parser.add_argument("--data", required=True, metavar="MANIFEST", help="a manifest, or a folder with a splits.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (default: only the table)")
    parser.add_argument(
        "--force", action="store_true", help="replace files of the results' names that no evaluation wrote, or changed"
    )
    parser.add_argument("--part", default="val", choices=PARTS, help="default: %(default)s; all is every case")
    parser.add_argument(
        "--prompts",
        type=lambda text: text.split(","),
        action="extend",
        metavar="KINDS",
        help="of none,point,3points,box,box+point, with commas between, or 'all' (default: box); may be given several "
        "times",
    )
    parser.add_argument(
        "--preset", choices=("paper",), help="as the paper scores: 1024 px, smooth 1, infinite HD dropped"
    )
    parser.add_argument("--image-size", type=int, metavar="N", help="the network's input size in px")
    parser.add_argument(
        "--zoom",
        action=argparse.BooleanOptionalAction,
        help="track small structures in close views that follow them (default: as the model was trained)",
    )
    parser.add_argument(
        "--jitter", type=float, default=20.0, metavar="PX", help="of boxes, in px at 1024 (default: 20)"
    )
    parser.add_argument("--jitter-sweep", action="store_true", help="score boxes at six jitters")
    parser.add_argument(
        "--predictions",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="masks of another tool under the cases' names; may be given several times",
    )
    parser.add_argument("--no-stills", action="store_true", help="do not score single frames")
    parser.add_argument("--no-tracking", action="store_true", help="do not track through loops")
    parser.add_argument("--corrections", action="store_true", help="also track with one frame in ten corrected")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="track through every N-th frame of loops")
    parser.add_argument("--pictures", type=int, default=4, metavar="N", help="best and worst cases to show; 0 for none")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides boxes and clicks (default: 0)")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="default: the fastest there is")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score, print the tables and write the files; those of the finished cases, where it is stopped."""
    from tqdm import tqdm

    from napari_uniultra.core.settings import ConfigError
    from napari_uniultra.training.evaluation.others import OtherTool
    from napari_uniultra.training.evaluation.run import Scoring, select_cases

    settings = _settings(arguments)
    if arguments.checkpoint is None and not arguments.predictions:
        raise ConfigError("There is nothing to score", fix="Name a checkpoint, or --predictions DIR, or both")
    others = [OtherTool(folder) for folder in arguments.predictions]
    cases = select_cases(arguments.data, arguments.part)
    for tool in others:
        tool.check(cases)
    if arguments.out is not None:
        _check_place(arguments)
        check_writable(arguments.out)  # before any work is done for nothing
    model = None
    if arguments.checkpoint is not None:
        from napari_uniultra.model.load import model_at

        model = model_at(arguments.checkpoint, arguments.device, settings.image_size)
    scoring = Scoring(settings, model, others)
    try:
        for case in tqdm(cases, unit="case", desc="Scoring", dynamic_ncols=True):
            scoring.add(case)
    except KeyboardInterrupt:
        if scoring.done:
            _keep(scoring.evaluation(len(cases) - scoring.done), arguments.out)
        raise
    _keep(scoring.evaluation(), arguments.out)
    return 0


def _check_place(arguments: argparse.Namespace) -> None:
    from napari_uniultra.training.evaluation.run import REPORT, SCORES, SUMMARY

    scores, summary, report = (arguments.out / name for name in (SCORES, SUMMARY, REPORT))
    check_outputs([scores, summary, report], [path for path in (Path(arguments.data),) if path.is_file()])
    if not arguments.force:
        check_replaced(summary, [scores, report])


def _keep(evaluation: Evaluation, out: Path | None) -> None:
    from napari_uniultra.training.evaluation.run import write_evaluation

    written = [] if out is None else write_evaluation(evaluation, out)  # first: what reads our output may be gone
    _print(evaluation)
    for path in written:
        print(path)


def _settings(arguments: argparse.Namespace) -> EvaluationSettings:
    from napari_uniultra.core.settings import read_settings
    from napari_uniultra.training.evaluation.settings import PROMPTS, SWEEP, EvaluationSettings

    values = {
        "part": arguments.part,
        "prompts": PROMPTS if arguments.prompts == ["all"] else arguments.prompts,
        "jitter": arguments.jitter,
        "jitter_sweep": SWEEP if arguments.jitter_sweep else (),
        "stills": not arguments.no_stills,
        "tracking": not arguments.no_tracking,
        "corrections": arguments.corrections,
        "every": arguments.every,
        "image_size": arguments.image_size,
        "zoom": arguments.zoom,
        "pictures": arguments.pictures,
        "seed": arguments.seed,
    }
    settings = read_settings(EvaluationSettings, {key: value for key, value in values.items() if value is not None})
    return settings.as_paper() if arguments.preset == "paper" else settings


def _print(evaluation: Evaluation) -> None:
    from napari_uniultra.training.evaluation.tables import drift_table, markdown, reliability_table, score_table

    rows, drifts, trust = evaluation.table(), evaluation.drifts(), evaluation.reliability()
    by = "image" if evaluation.settings.canvas else "object"
    shown = [row for row in rows if row.by == by or row.prompt not in {own.prompt for own in rows if own.by == by}]
    print(markdown(*score_table(shown)))
    for found, make in ((drifts, drift_table), (trust, reliability_table)):
        if found:
            print("\n" + markdown(*make(found)))
    if evaluation.left:
        print(f"uniultra: {counted(evaluation.left, 'case')} not reached: this is of the others", file=sys.stderr)
    for case, why in evaluation.not_scored:
        print(f"uniultra: {case} was not scored: {why}", file=sys.stderr)
