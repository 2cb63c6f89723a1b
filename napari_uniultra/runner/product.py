"""What comes of a run: a model to use, to score, and to give away with its card."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.words import counted
from napari_uniultra.errors import CheckpointError, ReadError
from napari_uniultra.model.about import read_about
from napari_uniultra.model.zoo import pack_model
from napari_uniultra.runner.history import History
from napari_uniultra.runner.run import Run
from napari_uniultra.training.data.importers import open_manifests
from napari_uniultra.training.data.manifest import write_manifest
from napari_uniultra.training.places import PLACES

EVALUATION, REPORT, CARD = "evaluation", "report.html", "MODEL_CARD.md"
_DATA, _SNAPSHOTS = "data.csv", "used"
_SHOWN_SETTINGS = ("model", "teacher", "student", "method", "data", "prompts", "loss", "optimiser", "run")


def model_of(run: Run) -> Path:
    """The file of the run's model.

    Raises
    ------
    CheckpointError
        When there is none yet.
    """
    if run.model is None:
        why = "it writes one at its first good validation, and when it ends"
        raise CheckpointError(f"{run.info.title} has no model yet", why, "Let it go on, or stop it")
    return run.model


def snapshot(run: Run) -> Path:
    """The run's model as it is now, in a file that the run does not touch any more, named by the step of its weights.

    Raises
    ------
    CheckpointError
        When there is none yet.
    WriteError
    """
    source = model_of(run)
    name = re.sub(r"[^\w.-]+", "-", run.info.title.lower()).strip("-._") or "model"
    history = _history(run)
    step = history.step if history.exported is None else history.exported
    target = run.folder / _SNAPSHOTS / f"{name}-step-{step}{source.suffix}"
    if target.exists() and target.stat().st_mtime_ns == source.stat().st_mtime_ns:
        return target
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without links
            shutil.copy2(source, temporary)
    return target


def evaluation_command(run: Run) -> list[str]:
    """The command that scores a run's model on what it did not learn from; its report is `report_of`.

    The test part is taken where the data have one, else the part that it was validated on.

    Raises
    ------
    CheckpointError, ReadError, WriteError
    """
    manifest = open_manifests(run.config().data.manifests)
    part = next((name for name in ("test", "val") if manifest.part(name)), None)
    if part is None:
        raise ReadError(
            f"{run.info.title} has no data to be scored on", "all cases are in the train part", "Add other subjects"
        )
    model, folder = model_of(run), run.folder / EVALUATION
    write_manifest(manifest, folder / _DATA)
    options = ["--data", str(folder / _DATA), "--part", part, "--out", str(folder)]
    return [sys.executable, "-m", "napari_uniultra.cli", "evaluate", str(model), *options]


def report_of(run: Run) -> Path:
    """Where the report of an evaluation is."""
    return run.folder / EVALUATION / REPORT


def export(run: Run, folder: str | Path) -> Path:
    """Check a run's model and put it into a new folder, with a card that says what it is.

    Raises
    ------
    CheckpointError, WriteError
    """
    folder = Path(folder)
    source = model_of(run)
    pack_model(source, folder)
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(model_card(run, source), encoding="utf-8")
    return folder


def model_card(run: Run, source: Path) -> str:
    """What a model is, what it learnt from and how well it did, as Markdown; without paths and names of cases."""
    card, info = read_about(source).get("card", {}), run.info
    history = _history(run)
    steps = f"{history.step:,} of {counted(history.steps, 'step')}"
    lines = [
        f"# {info.title}",
        "",
        f"{card.get('description', 'A model for the segmentation of ultrasound')}.",
        "",
        f"- Intended use: {card.get('intended_use', 'Research use, not a medical device')}",
        f"- Licence: {card.get('licence', 'unknown')}",
        f"- Made: {info.created[:10]}, {steps} on {history.device or 'unknown'}",
        "",
        "## Learnt from",
        "",
        *(f"- {item}" for item in _listed(card.get("training_data"))),
        "",
        "## Validation",
        "",
        *_validation(history),
        *(f"- {words}" for words in info.warnings),
        "",
        "These numbers were used to choose the weights. Score the model on other subjects before you rely on it.",
        "",
        "## Settings",
        "",
        "```yaml",
        *_settings(run.settings_values()),
        "```",
        "",
    ]
    return "\n".join(lines)


def _history(run: Run) -> History:
    follower = run.follower()
    follower.update()
    return follower.history


def _validation(history: History) -> list[str]:
    """The scores of the weights in the file, or of the last ones before them that were scored."""
    found = history.validated_export()
    if found is None:
        return ["It was not validated."]
    step, metrics = found
    where = f"step {step}" if step == history.exported else f"step {step}; the weights are of step {history.exported}"
    return [f"- {name}: {value:.4g} ({where})" for name, value in metrics.items() if isinstance(value, (int, float))]


def _listed(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value or "unknown")]


def _settings(values: dict[str, Any]) -> list[str]:
    """The settings as YAML, without places on this computer."""
    import yaml

    groups = {
        group: {name: value for name, value in values[group].items() if name not in PLACES}
        for group in _SHOWN_SETTINGS
        if isinstance(values.get(group), dict)
    }
    return yaml.safe_dump(groups, sort_keys=False).splitlines()
