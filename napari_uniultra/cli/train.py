"""`uniultra train`: fine-tune a model as a configuration says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_uniultra.cli.exit_codes import INTERRUPTED, OK
from napari_uniultra.core.duration import duration
from napari_uniultra.core.words import counted
from napari_uniultra.errors import CheckpointError

if TYPE_CHECKING:
    from napari_uniultra.training.config import FineTuneConfig
    from napari_uniultra.training.ending import Ending
    from napari_uniultra.training.finetune import FineTune
    from napari_uniultra.training.trainer import Trainer

_DESCRIPTION = """\
Fine-tunes a model as CONFIG says, a YAML file or the name of a preset (quick, paper, video). A run that is already in
the output folder goes on where it stopped. A file called STOP in that folder, or Ctrl-C, ends a run after the step in
progress, with a checkpoint. On several GPUs: torchrun --nproc-per-node 4 --no-python uniultra train CONFIG
"""


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "train",
        help="fine-tune a model on your own annotated images and loops",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="settings file, or a preset's name")
    add_config_arguments(parser)
    parser.add_argument("--methods", action="store_true", help="list the fine-tuning methods and their options")
    parser.set_defaults(run=run, parser=parser)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command has that trains by a configuration."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a setting, such as run.steps=500; may be given several times",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with a run; an error when there is none")
    how.add_argument("--restart", action="store_true", help="begin anew, and delete the run in the output folder")
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained, on what and how long")
    parser.add_argument("--json", action="store_true", help="with --dry-run: as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Train, or say what would be trained."""
    if arguments.methods:
        return _list_methods()
    if arguments.config is None:
        arguments.parser.error("name a CONFIG, or use --methods")
    from napari_uniultra.training.config import FineTuneConfig
    from napari_uniultra.training.events import ConsoleBar
    from napari_uniultra.training.finetune import FineTune
    from napari_uniultra.training.trainer import Trainer

    config = read_config(FineTuneConfig, arguments)
    task = FineTune(config)
    trainer = Trainer(config, task, listeners=[ConsoleBar()], restart=arguments.restart and not arguments.dry_run)
    if arguments.dry_run:
        if not arguments.json:
            _show_model(task, config)
        show_plan(trainer, arguments.json)
        return 0
    return fit(trainer)


def read_config(kind: type, arguments: argparse.Namespace) -> Any:
    """The configuration with the command line's changes, once it is known that ``--resume`` has a run to go on with.

    Raises
    ------
    ConfigError, CheckpointError
    """
    from napari_uniultra.core.settings import read_file
    from napari_uniultra.training.checkpoints import CHECKPOINT
    from napari_uniultra.training.config import find_config

    config = read_file(kind, find_config(arguments.config, kind), read_changes(arguments.set))
    if arguments.resume and not (Path(config.output) / CHECKPOINT).is_file():
        raise CheckpointError(f"There is no run to resume in {config.output}", fix="Leave --resume out to start one")
    return config


def read_changes(arguments: list[str]) -> dict[str, Any]:
    """``--set NAME=VALUE`` arguments; values are read as YAML.

    Raises
    ------
    ConfigError
    """
    import yaml

    from napari_uniultra.core.settings import ConfigError

    changes = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set {argument} changes nothing", fix="Write --set NAME=VALUE, as in run.steps=500")
        try:
            changes[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {argument} cannot be read", str(error).partition("\n")[0]) from error
    return changes


def fit(trainer: Trainer) -> int:
    """Train, say how it ended, and return the exit code."""
    return tell_end(trainer, trainer.fit())


def tell_end(trainer: Trainer, reason: Ending) -> int:
    """Say why a training ended, and return the exit code."""
    if trainer.fabric.is_global_zero:
        print(f"{reason.told} after step {trainer.step}; results are in {trainer.folder}")
    return INTERRUPTED if reason.is_signal else OK


def _show_model(task: FineTune, config: FineTuneConfig) -> None:
    model = task.model_config
    print(f"model     {model.architecture}, input {model.image_size} px, from {config.model.base or 'random weights'}")
    print(f"method    {config.method.name}")


def show_plan(trainer: Trainer, as_json: bool, *more: str) -> None:
    """Print what a training will learn from, and what it will take; a few steps are tried for that.

    ``more`` are further warnings.
    """
    import json
    from dataclasses import asdict, replace

    from napari_uniultra.training.plan import make_plan

    plan = make_plan(trainer)
    plan = replace(plan, warnings=(*plan.warnings, *more))
    if as_json:
        print(json.dumps(asdict(plan)))
        return
    print(f"trained   {plan.trained:,} parameters, {100 * plan.trained / max(plan.parameters, 1):.2f} % of all")
    for part in plan.parts:
        unreadable = f", {part.unreadable:,} of the cases cannot be read" if part.unreadable else ""
        name = part.part or "no part"
        counts = (part.subjects, "subject"), (part.cases, "case"), (part.frames, "annotated frame")
        print(f"{name:<10}{', '.join(counted(*count) for count in counts)}{unreadable}")
    if trainer.config.data.simulated_share:
        print(f"simulated {100 * trainer.config.data.simulated_share:.0f} % of the samples")
    if not plan.steps:
        print(f"time      none: {counted(trainer.config.run.steps, 'step')} done already")
    else:
        steps = f"{counted(plan.steps, 'step')} of {plan.step_seconds:.2f} s, and validations"
        print(f"time      about {duration(plan.seconds)} on {plan.device}: {steps}")
    print(f"memory    about {plan.memory_mb / 1024:.1f} GB of {plan.free_mb / 1024:.1f} GB free")
    for words in plan.warnings:
        print(f"warning   {words}")


def _list_methods() -> int:
    from dataclasses import MISSING, fields

    from napari_uniultra.training.peft_methods import METHODS, method_class

    for name in METHODS:
        kind = method_class(name)
        print(f"{name:<14}{(kind.__doc__ or kind.title).partition(chr(10))[0]}")
        for option in fields(kind.Options):
            default = option.default if option.default is not MISSING else "..."
            print(f"{'':<14}  {option.name} ({default}): {option.metadata['help']}")
    return 0
