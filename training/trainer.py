"""The training loop: one for every task, on one process or many, resumable at any step.

A *task* (see `task.Task`) knows the network, the loss of a batch, how to validate and how to export; the trainer does
the rest. Start several processes with torchrun: each takes its own batches, and the gradients are averaged over them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from napari_uniultra.core.atomic import atomic_path, write_error
from napari_uniultra.core.lock import locked
from napari_uniultra.core.settings import write_file
from napari_uniultra.core.stop_file import STOP
from napari_uniultra.errors import ResourceError, TrainingError, UniUltraError
from napari_uniultra.model.attempt import attempt
from napari_uniultra.model.device import describe_device
from napari_uniultra.training.checkpoints import (
    check_own,
    check_spared,
    load_training_checkpoint,
    remove_run,
    save_training_checkpoint,
)
from napari_uniultra.training.config import RunSettings
from napari_uniultra.training.data.samples import Batch, Samples
from napari_uniultra.training.ending import Ending
from napari_uniultra.training.events import Events, Listener, tensorboard
from napari_uniultra.training.launch import StopSignal, make_fabric
from napari_uniultra.training.layout import CHECKPOINT, OVERLAYS, SETTINGS
from napari_uniultra.training.loading import batches_of
from napari_uniultra.training.meter import Meter
from napari_uniultra.training.optim import Average, average_gradients, learning_rate, make_optimiser, trainable
from napari_uniultra.training.origin import check_origin, origin_of
from napari_uniultra.training.places import absolute
from napari_uniultra.training.sharpness import worst_neighbour
from napari_uniultra.training.task import Outcome, Task, TaskConfig, Validation

__all__ = ["CHECKPOINT", "Outcome", "Task", "Trainer", "TrainingError", "Validation"]

T = TypeVar("T")
_REASONS = (None, *Ending)  # as processes tell each other


class Trainer:
    """Trains a task's network.

    Parameters
    ----------
    config : dataclass of settings
        With ``output``, ``data``, ``optimiser`` and ``run``. Where the output folder holds a checkpoint of the same
        settings, `fit` goes on from there.
    task : Task
    samples : Dataset, optional
        Batches by number, in place of those that ``config.data`` describes.
    listeners : sequence of callable
        Called with every event, in the first process.
    restart : bool
        Delete the run in the output folder and begin anew.
    stage_of : path, optional
        Folder of the run that this is a stage of: a stop file there ends this one as well.

    Attributes
    ----------
    step : int
        Steps done.
    average : Average
        The averaged weights.
    late_stop : Ending or None
        What asked the run to stop when it had come to its end by itself.

    Raises
    ------
    ConfigError
        When the checkpoint there belongs to other settings, the settings do not fit the machine, or the run would
        delete or replace what it begins with.
    CheckpointError, ResourceError, WriteError
    """

    def __init__(
        self,
        config: TaskConfig,
        task: Task,
        samples: Dataset[Batch] | None = None,
        listeners: Sequence[Listener] = (),
        restart: bool = False,
        stage_of: Path | None = None,
    ) -> None:
        self.config, self.task, self.folder = config, task, Path(config.output)
        self.step = 0
        self.late_stop: Ending | None = None
        self._stop_files = [folder / STOP for folder in (self.folder, stage_of) if folder is not None]
        self._run = config.run
        self._best: float | None = None
        self._since_best = 0  # validations
        self._validated = -1  # the step of the last validation
        self._bad_steps = 0
        self._all_lack_memory = False  # all processes know that one does, and give up together
        self._saving_seconds = self._validating_seconds = 0.0
        self._signal, self._meter = StopSignal(), Meter()
        self.fabric = make_fabric(config.run)
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        torch.use_deterministic_algorithms(config.run.deterministic, warn_only=True)
        self.network = task.network.to(self.fabric.device).train()
        self._parameters = list(trainable(self.network).values())
        groups = task.parameter_groups(config.optimiser)
        self.optimiser = self.fabric.setup_optimizers(make_optimiser(groups, config.optimiser))
        self.average = Average(self.network, config.optimiser.ema_decay)
        self._origin = origin_of(config, self.fabric.world_size)
        self._clear_or_resume(restart)
        self._samples = self._make_samples() if samples is None else samples
        self._listeners = tuple(listeners)
        self._events: Events | None = None

    # --- the loop

    def fit(self) -> Ending:
        """Train to the end, or until something stops the run; there is a checkpoint then.

        Returns
        -------
        Ending
            Why it ended.

        Raises
        ------
        TrainingError
            When the loss is not a number several times in a row.
        ResourceError
            When there is not enough memory.
        WriteError
            When a checkpoint cannot be written; the one before is kept. Also when another process trains in the folder.
        """
        with locked(self.folder) if self.fabric.is_global_zero else nullcontext():
            return self._fit()

    def _fit(self) -> Ending:
        self._events = self._make_events() if self.fabric.is_global_zero else None
        self._emit("start", steps=self._run.steps, **self._description())
        for text in self.config.warnings:
            self._emit("notice", text=text)
        try:
            with self._signal.listening():
                self._begin_records()
                self._meter.start()
                reason = self._loop()
            if not reason.is_urgent:
                self._export_last()
            self.late_stop = self._agreed(self._request())
        except UniUltraError as error:
            with suppress(UniUltraError):  # such as a full disk, which may be the very error
                self._emit("error", text=str(error))
            raise
        self._emit("end", reason=reason)
        return reason

    def measure(self, steps: int = 3) -> float:
        """Seconds a step takes, by trying a few; nothing is written, but this trainer's weights change.

        Raises
        ------
        ResourceError
            When there is not enough memory.
        """
        first = self.step
        with self._batches() as batches:
            for _ in range(min(steps + 1, self._run.steps - first)):
                if self.step == first + 1:
                    self._meter.start()  # the first step warms up
                group = self._next_batches(batches)
                if not attempt(lambda group=group: self._step(group))[0]:
                    raise self._memory_error(group, "nothing was written")
        return self._meter.elapsed() / max(self.step - first - 1, 1)

    def measure_validation(self, run: RunSettings) -> float:
        """Seconds that a validation takes by these settings; its pictures, if any, are written."""
        began = time.monotonic()
        self._validation(run)
        return time.monotonic() - began

    def _loop(self) -> Ending:
        reason = self._why_stop()
        if self.step == 0 and self._run.validate_every:
            self._validate()
        with self._batches() as batches:
            while not reason:
                reason = self._advance(batches)
        return reason

    def _advance(self, batches: Iterator[Batch]) -> Ending | None:
        """Do a step and what is due after it; why the run ends then, or None."""
        group = self._next_batches(batches)
        if not group:
            self.save(together=False)
            return self._signal.reason
        had_memory, is_bad = attempt(lambda: self._step(group))
        if not had_memory:
            self._give_up_for_memory(group)
        self._count_bad(is_bad)
        reason = self._why_stop()
        if reason or self._is_due(self._run.log_every):
            self._report()
        if self._validates_after(self.step):
            self._validate()
            reason = reason or self._why_stop()
        if reason or (self._is_due(self._run.save_every) and not self._bad_steps):
            self.save()
        return reason

    def _next_batches(self, batches: Iterator[Batch]) -> list[Batch]:
        """The batches of one step; none when a data process died with the signal to stop."""
        began = time.monotonic()
        try:
            group = [next(batches) for _ in range(self._run.accumulate)]
        except (RuntimeError, EOFError, OSError):  # so torch, or a pipe, tells of a process that died
            if self._signal.reason:
                return []
            raise
        self._meter.waited(time.monotonic() - began)
        for name, reason in (case for batch in group for case in batch.skipped):
            self._emit("notice", text=f"{name} was left out: {reason}")
        return group

    def _step(self, batches: Sequence[Batch]) -> bool:
        """Change the weights once; True when the loss was no number and they were left as they are."""
        settings = self.config.optimiser
        device = self.fabric.device
        batches = self._together(lambda: [batch.to(device) for batch in batches])  # simulates some, which needs memory
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(settings, self.step, self._run.steps) * group["relative_rate"]
        outcomes = self._gradients(batches)
        if settings.sharpness:
            with worst_neighbour(self._parameters, settings.sharpness):
                self._gradients(batches)
        norm = self.fabric.clip_gradients(
            self.network, self.optimiser, max_norm=settings.clip_gradient or float("inf"), error_if_nonfinite=False
        )
        loss = torch.stack([outcome.loss for outcome in outcomes]).mean()
        loss = float(self.fabric.all_reduce(loss, reduce_op="mean"))
        is_sound = bool(np.isfinite(loss) and torch.isfinite(norm))
        scales = getattr(self.fabric.strategy.precision, "scaler", None) is not None
        if is_sound or scales:  # fp16's scaler skips by itself, and has to see why to lower its scale
            self.optimiser.step()
        self.step += 1
        if is_sound:
            self.average.update(self.step)
        frames = sum(batch.images.shape[0] * batch.images.shape[1] for batch in batches)
        self._meter.add(outcomes, frames, loss, float(norm), skipped=not is_sound)
        return not np.isfinite(loss) if scales else not is_sound

    def _gradients(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Compute the gradients of a step, averaged over its batches and over the processes."""
        self.optimiser.zero_grad(set_to_none=True)
        outcomes = self._together(lambda: self._own_gradients(batches))
        average_gradients(self._parameters, self.fabric)
        if outcomes[-1].after_backward is not None:
            outcomes[-1].after_backward()
        return outcomes

    def _own_gradients(self, batches: Sequence[Batch]) -> list[Outcome]:
        outcomes = []
        for number, batch in enumerate(batches):
            # Everything random follows from the step's number, so that a resumed run repeats an uninterrupted one.
            seed = _seed(self._run.seed, self.step, number, self.fabric.global_rank)
            torch.manual_seed(seed)
            with self.fabric.autocast():
                outcome = self.task.loss(batch, torch.Generator().manual_seed(seed), self.step / self._run.steps)
            self.fabric.backward(outcome.loss / len(batches))
            outcomes.append(replace(outcome, loss=outcome.loss.detach()))
        return outcomes

    def _together(self, work: Callable[[], T]) -> T:
        """What ``work`` returns. Where one process has not the memory for it, all of them raise MemoryError."""
        had_memory, value = attempt(work)
        if self.fabric.world_size > 1:
            lack = torch.tensor(float(not had_memory), device=self.fabric.device)
            self._all_lack_memory = bool(self.fabric.all_reduce(lack, reduce_op="sum"))
        if not had_memory or self._all_lack_memory:
            raise MemoryError
        return value

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _validates_after(self, step: int) -> bool:
        every = self._run.validate_every
        return every > 0 and (step % every == 0 or step >= self._run.steps)

    # --- what ends a run

    def _why_stop(self) -> Ending | None:
        """Why the run ends now, the same in every process; None to go on."""
        return self._agreed(self._own_reason())

    def _agreed(self, reason: Ending | None) -> Ending | None:
        if self.fabric.world_size > 1:
            code = torch.tensor(float(_REASONS.index(reason)), device=self.fabric.device)
            reason = _REASONS[int(self.fabric.all_reduce(code, reduce_op="max"))]
        if reason is Ending.STOP_FILE and self.fabric.is_global_zero:
            for file in self._stop_files:
                file.unlink(missing_ok=True)  # it has done its work: the next start goes on
        return reason

    def _own_reason(self) -> Ending | None:
        if self.step >= self._run.steps:
            return Ending.DONE
        if self._run.early_stopping and self._since_best >= self._run.early_stopping:
            return Ending.NO_IMPROVEMENT
        if request := self._request():
            return request
        # The next step and what comes after it have to fit; the first step is done in any case.
        step = self._meter.seconds_a_step
        needed = self._meter.elapsed() + step + self._saving_seconds
        if self._validates_after(self.step + 1):
            needed += self._validating_seconds
        is_up = self._run.max_minutes and step and needed > 60 * self._run.max_minutes
        return Ending.TIME if is_up else None

    def _request(self) -> Ending | None:
        """What asks this process to stop; None for nothing."""
        if not self._signal.reason and self.fabric.is_global_zero and self.step:
            return Ending.STOP_FILE if any(file.exists() for file in self._stop_files) else None
        return self._signal.reason

    def _count_bad(self, is_bad: bool) -> None:
        self._bad_steps = self._bad_steps + 1 if is_bad else 0
        if is_bad:
            self._emit("notice", text="the loss or its gradient is not a number; this step was skipped")
        if self._bad_steps >= self._run.bad_steps:
            raise TrainingError(
                f"The loss was not a number in {self._bad_steps} steps in a row, the last of them step {self.step}",
                f"such steps change nothing, and the last checkpoint is kept: {self.folder / CHECKPOINT}",
                "Lower optimiser.learning_rate, lengthen optimiser.warmup, or use run.precision bf16 or fp32",
            )

    def _give_up_for_memory(self, batches: Sequence[Batch]) -> None:
        """Save what there is and say what to lower. A step that ran out of memory has not changed the weights."""
        self.optimiser.zero_grad(set_to_none=True)
        if self.fabric.device.type == "cuda":
            torch.cuda.empty_cache()
        self.save(together=self._all_lack_memory)
        is_saved = self.fabric.is_global_zero or self._all_lack_memory  # else the first does not know of it
        state = f"the run is saved up to step {self.step}" if is_saved else "the last checkpoint is kept"
        raise self._memory_error(batches, state)

    def _memory_error(self, batches: Sequence[Batch], state: str) -> ResourceError:
        shape = " x ".join(map(str, batches[0].shape))
        return ResourceError(
            f"There is not enough memory on {self.device_name} for step {self.step + 1}",
            f"its batch was {shape} (clips x frames x height x width); {state}",
            "Lower data.batch (and raise run.accumulate), turn on run.activation_checkpointing, use run.precision "
            "bf16, shorten data.clip_frames, or lower model.image_size",
        )

    # --- validation and export

    def _validate(self) -> None:
        if self._validated == self.step:
            return
        self._validated = self.step
        began = time.monotonic()
        found = self._safe_validation() if self.fabric.is_global_zero else None
        found = self.fabric.broadcast(found.metrics if found else None)
        if found is not None:
            self._rate(found)
        self._validating_seconds = time.monotonic() - began
        self._meter.pause()

    def _rate(self, metrics: dict[str, float]) -> None:
        """Compare a validation with the best one so far; the weights of a better one are exported if asked for."""
        is_better = self._is_better(metrics) and self.step > 0  # the start is there to compare with
        self._since_best = 0 if is_better or self.step == 0 else self._since_best + 1
        self._emit("validation", metrics=metrics, best=is_better, seconds=self._meter.elapsed())
        if is_better:
            if self._run.keep == "best":
                self._export()
            self._best = metrics[self._run.monitor]

    def _safe_validation(self) -> Validation | None:
        """A validation; where it fails, the state is saved before the error is told."""
        try:
            had_memory, found = attempt(lambda: self._validation(self._run))
        except Exception:
            self.save(together=False)
            raise
        if not had_memory:
            self.save(together=False)
            raise ResourceError(
                f"There is not enough memory on {self.device_name} to validate after step {self.step}",
                "the run is saved up to there",
                "Lower run.validation_frames, use run.precision bf16, or validate less with run.validate_every",
            )
        return found

    def _validation(self, run: RunSettings) -> Validation | None:
        self.network.eval()
        try:
            with self.average.in_place(), torch.no_grad(), self.fabric.autocast():
                found = self.task.validate(run)
        finally:
            self.network.train()
        if found and run.monitor not in found.metrics:
            known = ", ".join(found.metrics)
            raise TrainingError(
                f"run.monitor is {run.monitor!r}", "validation gives no such metric", f"Choose from {known}"
            )
        for name, reason in found.skipped if found else ():
            self._emit("notice", text=f"{name} was left out: {reason}")
        for number, picture in enumerate(found.pictures if found else ()):
            with atomic_path(self.folder / OVERLAYS / f"step_{self.step:06d}_{number}.png") as path:
                Image.fromarray(picture).save(path)
        return found

    def _is_better(self, metrics: dict[str, float]) -> bool:
        name = self._run.monitor
        sign = -1 if name.endswith(("error", "loss")) else 1
        return bool(np.isfinite(metrics[name])) and (self._best is None or sign * metrics[name] > sign * self._best)

    def _export_last(self) -> None:
        if self._run.keep == "last" or self._best is None:
            self._export()

    def _export(self) -> None:
        """Write the model of the averaged weights; where that fails, the state is saved before the error is told."""
        if self.fabric.is_global_zero:
            try:
                files = self.task.export({**self.network.state_dict(), **self.average.values}, self.folder)
            except Exception:
                self.save(together=False)
                raise
            self._emit("checkpoint", paths=[str(file) for file in files], kind="model")
        self.fabric.barrier()

    # --- state

    def save(self, together: bool = True) -> None:
        """Write the checkpoint, in one go, in the first process.

        Parameters
        ----------
        together : bool
            Wait for the other processes.

        Raises
        ------
        WriteError
            The checkpoint before is kept.
        """
        began = time.monotonic()
        if self.fabric.is_global_zero:
            save_training_checkpoint(self.folder / CHECKPOINT, self._state())
            self._emit("checkpoint", paths=[str(self.folder / CHECKPOINT)], kind="state")
        if together:
            self.fabric.barrier()
        self._saving_seconds = time.monotonic() - began
        self._meter.pause()

    def _state(self) -> dict[str, Any]:
        network = self.network.state_dict()
        return {
            "step": self.step,
            "network": network,
            "average": {**network, **self.average.values},
            "optimiser": self.optimiser.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "best": self._best,
            "since_best": self._since_best,
            **self._origin,
            "model_config": self.task.model_config.to_dict(),
            "about": self.task.about,
        }

    def _clear_or_resume(self, restart: bool) -> None:
        check_spared(self.config.sources, self.folder)
        check_own(self.folder)
        if restart and self.fabric.is_global_zero:
            with locked(self.folder):
                remove_run(self.folder)
        self.fabric.barrier()  # so that no process sees what another is about to delete
        self._resume()

    def _resume(self) -> None:
        """Take up the run in the output folder, if there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        state = load_training_checkpoint(path)
        check_origin(state, self._origin, self.folder)
        self.network.load_state_dict(state["network"])
        self.average.load(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step = state["step"]
        if state["config"]["run"]["monitor"] == self._run.monitor:  # else what was best so far says nothing
            self._best, self._since_best = state["best"], state["since_best"]

    # --- data and progress

    @property
    def device_name(self) -> str:
        """What it computes on, in words."""
        return describe_device(self.fabric.device)

    def _make_samples(self) -> Samples:
        run, count = self._run, self._run.steps * self._run.accumulate
        size = self.task.model_config.image_size
        return Samples(self.config.data, size, count, run.seed, self.fabric.global_rank, self.fabric.world_size)

    def _batches(self) -> AbstractContextManager[Iterator[Batch]]:
        """The batches from this step on."""
        first, end = (step * self._run.accumulate for step in (self.step, self._run.steps))
        on_gpu = self.fabric.device.type == "cuda"
        return batches_of(self._samples, range(first, end), self.config.data.workers, pin_memory=on_gpu)

    def _make_events(self) -> Events:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.folder, error) from error
        return Events(self.folder, self._listeners)

    def _begin_records(self) -> None:
        """Write what a run has besides events. They come first: by them the folder is known as a run's."""
        if self._events is None:
            return
        write_file(absolute(self.config, Path.cwd()), self.folder / SETTINGS)
        board = tensorboard(self.folder)
        if board is not None:
            self._events.listeners += (board,)

    def _emit(self, event: str, **values: Any) -> None:
        if self._events is not None:
            self._events.emit(event, self.step, **values)

    def _description(self) -> dict[str, Any]:
        own = sum(parameter.numel() for parameter in self._parameters)
        total = sum(parameter.numel() for parameter in self.network.parameters())
        return {
            "device": self.device_name,
            "processes": self.fabric.world_size,
            "precision": self._run.precision,
            "trainable_parameters": own,
            "parameters": total,
        }

    def _report(self) -> None:
        rate = learning_rate(self.config.optimiser, max(self.step - 1, 0), self._run.steps)
        line = self._meter.report(self._run.steps - self.step, self.fabric.world_size)
        self._emit("step", learning_rate=rate, **line)


def _seed(*numbers: int) -> int:
    """One seed of several numbers, so that neighbouring ones have nothing in common."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
