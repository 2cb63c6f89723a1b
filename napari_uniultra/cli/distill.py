"""`uniultra distill`: a small model learns to see as a large one does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_uniultra.cli.train import add_config_arguments, read_config, show_plan, tell_end
from napari_uniultra.core.words import counted

if TYPE_CHECKING:
    from napari_uniultra.training.distillation.config import DistillConfig
    from napari_uniultra.training.distillation.task import Distill

_DESCRIPTION = """\
Distils a teacher's image encoder into a student's as CONFIG says, a YAML file or the name of a preset (distill,
distill_quick), then tunes the student with the mask loss where joint.steps is set. The student is student.safetensors
in the output folder. A run that is already there goes on where it stopped.
"""


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "distill",
        help="distil a large model into a small one",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG", help="settings file, or a preset's name")
    add_config_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Distil, or say what would be distilled."""
    from napari_uniultra.training.distillation.config import DistillConfig
    from napari_uniultra.training.distillation.run import distil
    from napari_uniultra.training.distillation.task import STUDENT
    from napari_uniultra.training.events import ConsoleBar

    config = read_config(DistillConfig, arguments)
    if arguments.dry_run:
        _show_plan(config, arguments.json)
        return 0
    ended = distil(config, [ConsoleBar()], restart=arguments.restart)
    code = tell_end(ended.trainer, ended.reason)
    if ended.is_complete and ended.trainer.fabric.is_global_zero:
        print(f"student: {Path(config.output) / STUDENT}")
    return code


def _show_plan(config: DistillConfig, as_json: bool) -> None:
    from napari_uniultra.training.distillation.task import Distill
    from napari_uniultra.training.trainer import Trainer

    task = Distill(config)
    if not as_json:
        _show_models(task, config)
    joint = counted(config.joint.steps, "step")
    more = [f"The joint stage of {joint} takes further time."] if config.joint.steps else []
    show_plan(Trainer(config, task), as_json, *more)


def _show_models(task: Distill, config: DistillConfig) -> None:
    student, encoder = task.model_config, task.network.student.image_encoder
    sizes = [sum(parameter.numel() for parameter in part.parameters()) for part in (encoder, task.network.necks)]
    print(f"teacher   {config.teacher.checkpoint}")
    print(f"student   {student.architecture}, input {student.image_size} px, {sizes[0]:,} parameters in its encoder")
    print(f"necks     {sizes[1]:,} parameters, dropped afterwards")
    print(f"matched   {', '.join(task.network.names)}")
    if config.joint.steps:
        print(f"then      {counted(config.joint.steps, 'step')} with the mask loss")
