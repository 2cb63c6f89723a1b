"""Making the models of the tables, once each: a finished one is known by its fingerprint and shared by all tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.errors import UniUltraError
from napari_uniultra.model.device import choose_device
from napari_uniultra.model.load import load_model
from napari_uniultra.model.loaded import Model
from napari_uniultra.training.ablation.plan import Plan, Settings
from napari_uniultra.training.base import load_base
from napari_uniultra.training.config import FineTuneConfig
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.manifest import Manifest, write_manifest
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.training.distillation.run import distil
from napari_uniultra.training.distillation.task import STUDENT
from napari_uniultra.training.events import Listener
from napari_uniultra.training.finetune import ADAPTER, MODEL, FineTune
from napari_uniultra.training.layout import CHECKPOINT
from napari_uniultra.training.peft_methods.adapter_file import load_adapter
from napari_uniultra.training.trainer import Trainer

MODELS, RUN, DONE, CASES = "models", "run", "done.json", "cases.json"


class Stopped(UniUltraError):
    """A training was stopped before its end; the same command goes on with it."""


class Workshop:
    """A folder of models.

    Parameters
    ----------
    folder : path
        Everything lies in its ``models``.
    cases : sequence of Case
        What is trained and validated on.
    listeners : sequence of callable
        Of the trainings; as `Trainer` takes them.
    """

    def __init__(self, folder: str | Path, cases: Sequence[Case], listeners: Sequence[Listener] = ()) -> None:
        self._cases = tuple(cases)
        self._folder = Path(folder) / MODELS
        self._listeners = tuple(listeners)

    def place(self, plan: Plan) -> Path:
        """The folder of a model."""
        return self._folder / plan.folder

    def is_made(self, plan: Plan) -> bool:
        """Whether a model is there, finished; one that needs no training always is."""
        if plan.kind == "base":
            return True
        try:
            return json.loads((self.place(plan) / DONE).read_text(encoding="utf-8"))["fingerprint"] == plan.fingerprint
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def make(self, plan: Plan) -> None:
        """Train a model that is not there yet, or go on with its training; its teacher comes first.

        Raises
        ------
        Stopped
            When the training was stopped.
        UniUltraError
            As trainings raise.
        """
        if self.is_made(plan):
            return
        if plan.teacher is not None:
            self.make(plan.teacher)
        settings = self._complete(plan)
        if isinstance(settings, DistillConfig):
            reason = distil(settings, self._listeners).reason
        else:
            reason = Trainer(settings, FineTune(settings), listeners=self._listeners).fit()
        if not reason.is_complete:
            raise Stopped(f"The training of {plan.folder} was stopped", reason, "Give the same command to go on")
        with atomic_path(self.place(plan) / DONE) as path:
            path.write_text(json.dumps({"fingerprint": plan.fingerprint, "recipe": plan.recipe}), encoding="utf-8")
        for state in self._run(plan).rglob(CHECKPOINT):  # several times the model's size, and nothing goes on from it
            state.unlink()

    def open(self, plan: Plan) -> Model:
        """A finished model on its device, ready to be asked.

        Raises
        ------
        CheckpointError, ResourceError
        """
        device = plan.settings.run.device
        if isinstance(plan.settings, DistillConfig):
            return load_model(self._run(plan) / STUDENT, device)
        if plan.kind == "finetune" and (self._run(plan) / MODEL).exists():
            return load_model(self._run(plan) / MODEL, device)
        return self._assembled(plan, device)

    def _assembled(self, plan: Plan, device: str) -> Model:
        """A base as it is, or with the parts of a method that no plain checkpoint can hold."""
        base = load_base(plan.settings.model)
        if plan.kind == "finetune":
            load_adapter(self._run(plan) / ADAPTER, base.network, base.config, base.sha256)
        target = choose_device(device)
        return Model(base.network.to(target).eval(), base.config, target, plan.recipe, base.sha256, base.card)

    def _run(self, plan: Plan) -> Path:
        return self.place(plan) / RUN

    def _complete(self, plan: Plan) -> Settings:
        """A plan's settings with the files that they name; its cases are written beside the run."""
        cases = self.place(plan) / CASES
        write_manifest(Manifest(self._cases), cases)
        changes: dict[str, Any] = {
            "output": str(self._run(plan)),
            "data": replace(plan.settings.data, manifests=(str(cases),)),
        }
        if plan.teacher is not None:
            changes["teacher"] = replace(plan.settings.teacher, checkpoint=str(self._file(plan.teacher)))
        return replace(plan.settings, **changes)

    def _file(self, plan: Plan) -> Path | str:
        if isinstance(plan.settings, FineTuneConfig) and plan.kind == "base":
            return plan.settings.model.base
        return self._run(plan) / (STUDENT if isinstance(plan.settings, DistillConfig) else MODEL)
