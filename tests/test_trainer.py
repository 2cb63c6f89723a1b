"""The training loop, on a toy task: what it promises about resuming, stopping, several processes and bad luck.

This file is also the program of the processes that torchrun starts: ``torchrun ... test_trainer.py FOLDER STEPS``.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from napari_uniultra.core.lock import InUseError, locked
from napari_uniultra.core.stop_file import STOP
from napari_uniultra.errors import CheckpointError, ReadError, ResourceError, TrainingError, WriteError
from napari_uniultra.model.config import architecture
from napari_uniultra.training import optim
from napari_uniultra.training.checkpoints import CHECKPOINT, load_training_checkpoint, save_training_checkpoint
from napari_uniultra.training.config import ConfigError, FineTuneConfig, ModelSettings, OptimiserSettings, RunSettings
from napari_uniultra.training.data.samples import Batch
from napari_uniultra.training.data.settings import DataSettings
from napari_uniultra.training.data.simulate_batches import SimulatedPart
from napari_uniultra.training.events import EVENTS, ConsoleBar, read_events
from napari_uniultra.training.launch import StopSignal
from napari_uniultra.training.layout import SETTINGS
from napari_uniultra.training.loading import make_loader
from napari_uniultra.training.sharpness import worst_neighbour
from napari_uniultra.training.task import Outcome, Validation
from napari_uniultra.training.trainer import Trainer

CANARY = "CANARY^PATIENT"


class Toy:
    """A small network with dropout that learns noise; everything that a resumed run could get wrong."""

    model_config = architecture("uniultra-mini", image_size=64)

    def __init__(self, dropout: float = 0.1, scores: tuple[float, ...] = ()) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network: nn.Module = nn.Sequential(
                nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)
            )
        self.about: dict[str, Any] = {}
        self.scores = list(scores)
        self.exports: list[dict[str, Tensor]] = []

    def loss(self, batch: Batch, generator: Generator, progress: float) -> Outcome:
        goal = batch.masks.flatten(1).float().mean(dim=1, keepdim=True) + 0 * torch.rand((), generator=generator)
        loss = (self.network(batch.images.flatten(1).float() / 255) - goal).square().mean()
        return Outcome(loss, {"squares": loss.detach()}, {"toy": [1.0]})

    def parameter_groups(self, optimiser: OptimiserSettings) -> list[dict[str, Any]]:
        return optim.parameter_groups(self.network, optimiser)

    def validate(self, run: RunSettings) -> Validation | None:
        assert not self.network.training
        picture = np.zeros((4, 6, 3), np.uint8)
        return Validation({"dice": self.scores.pop(0)}, [picture], [(CANARY, "no such file")]) if self.scores else None

    def export(self, state: Mapping[str, Tensor], folder: Path) -> list[Path]:
        self.exports.append({name: value.clone() for name, value in state.items()})
        return [folder / "toy"]


class ToyData(Dataset):
    """Batches by number; ``share`` of ``shares`` has its own, and with several ``merged`` one has those of all."""

    def __init__(self, share: int = 0, shares: int = 1, merged: int = 1) -> None:
        self.share, self.shares, self.merged = share, shares, merged
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, step: int) -> Batch:
        self.asked.append(step)
        parts = [self._one(step * self.shares * self.merged + self.share + k) for k in range(self.merged)]
        return Batch(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def _one(self, number: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(number)
        images = torch.randint(0, 255, (2, 1, 4, 4), generator=generator, dtype=torch.uint8)
        return images, torch.rand(2, 1, 4, 4, generator=generator) < 0.3


def config(folder: Path, optimiser: dict[str, Any] | None = None, **run: Any) -> FineTuneConfig:
    settings = {"steps": 12, "device": "cpu", "log_every": 1, **run}
    optimiser = {"learning_rate": 0.01, "ema_decay": 0.9, **(optimiser or {})}
    return FineTuneConfig(
        str(folder),
        data=DataSettings(workers=0),
        optimiser=OptimiserSettings(**optimiser),
        run=RunSettings(**settings),
    )


def train(folder: Path, task: Toy | None = None, samples: Dataset | None = None, **changes: Any) -> Trainer:
    trainer = Trainer(config(folder, **changes), task or Toy(), samples or ToyData())
    trainer.reason = trainer.fit()
    return trainer


def assert_same_state(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_state(one[key], other[key])
    elif isinstance(one, list):
        for pair in zip(one, other, strict=True):
            assert_same_state(*pair)
    else:
        assert one == other


def stop_after(step: int, folder: Path) -> Callable[[Mapping[str, Any]], None]:
    """A listener that leaves a stop file while that step is on its way."""

    def listen(event: Mapping[str, Any]) -> None:
        if event["event"] in ("start", "step") and event["step"] == step - 1:
            (folder / STOP).touch()

    return listen


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [event for event in read_events(folder) if event["event"] == "step"]


# Resuming


@pytest.mark.parametrize("sharpness", [0.0, 0.05])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, sharpness: float) -> None:
    changes = {"accumulate": 2, "optimiser": {"sharpness": sharpness, "warmup": 3}}
    whole_data, first_data, rest_data = ToyData(), ToyData(), ToyData()
    train(tmp_path / "whole", samples=whole_data, **changes)
    stop = stop_after(5, tmp_path / "parts")
    assert Trainer(config(tmp_path / "parts", **changes), Toy(), first_data, [stop]).fit() == "stop file"
    rest = Trainer(config(tmp_path / "parts", **changes), Toy(), rest_data)
    assert rest.step == 5
    assert rest.fit() == "done"
    states = [load_training_checkpoint(tmp_path / name / CHECKPOINT) for name in ("whole", "parts")]
    for state in states:
        state["config"].pop("output")
    assert_same_state(*states)
    assert whole_data.asked == list(range(24)) == first_data.asked + rest_data.asked
    losses = [[line["loss"] for line in steps_of(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    process = launch_alone(tmp_path / "killed", steps=10**6, save_every=1)
    wait_for(lambda: len(steps_of(tmp_path / "killed")) > 5)
    process.kill()
    process.wait()
    done = load_training_checkpoint(tmp_path / "killed" / CHECKPOINT)["step"]
    changes = {"steps": done + 3, "save_every": 1, "optimiser": {"schedule": "constant"}}
    killed, whole = (train(tmp_path / name, Toy(dropout=0), **changes) for name in ("killed", "whole"))
    assert killed.step == whole.step == done + 3
    assert_same_state(dict(killed.network.state_dict()), dict(whole.network.state_dict()))
    assert_same_state(killed.average.values, whole.average.values)


@pytest.mark.slow
def test_a_run_that_is_killed_in_its_first_seconds_can_be_started_again(tmp_path: Path) -> None:
    process = launch_alone(tmp_path, steps=10**6)
    wait_for(lambda: (tmp_path / SETTINGS).exists())
    process.kill()
    process.wait()
    assert not (tmp_path / CHECKPOINT).exists()
    assert train(tmp_path, Toy(dropout=0), steps=2, optimiser={"schedule": "constant"}).step == 2


def test_a_changed_setting_is_named_and_a_harmless_one_is_not(tmp_path: Path) -> None:
    train(tmp_path, steps=2)
    with pytest.raises(ConfigError, match=r"optimiser.learning_rate was 0.01, is 0.5; run.seed was 1, is 7"):
        Trainer(config(tmp_path, {"learning_rate": 0.5}, seed=7), Toy(), ToyData())
    assert Trainer(config(tmp_path, steps=3, log_every=2, max_minutes=5.0), Toy(), ToyData()).fit() == "done"
    assert Trainer(config(tmp_path, {"learning_rate": 0.5}), Toy(), ToyData(), restart=True).step == 0
    assert not (tmp_path / CHECKPOINT).exists()


def test_paths_may_be_written_in_two_ways_and_a_project_may_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()

    def begun_with(base: str) -> FineTuneConfig:
        return replace(config(Path("run"), steps=2), model=ModelSettings(base=base))

    monkeypatch.chdir(here)
    assert Trainer(begun_with("base.pt"), Toy(), ToyData()).fit() == "done"
    assert Trainer(begun_with(str(here / "base.pt")), Toy(), ToyData()).step == 2
    state = load_training_checkpoint(here / "run" / CHECKPOINT)
    save_training_checkpoint(
        here / "run" / CHECKPOINT, {key: state[key] for key in state if key not in ("cases", "working_folder")}
    )
    assert Trainer(begun_with("base.pt"), Toy(), ToyData()).step == 2  # an older checkpoint
    save_training_checkpoint(here / "run" / CHECKPOINT, state)
    monkeypatch.chdir(tmp_path)
    here.rename(there)
    monkeypatch.chdir(there)
    assert Trainer(begun_with("base.pt"), Toy(), ToyData()).step == 2
    with pytest.raises(ConfigError, match=r"model.base was 'base.pt', is '/other/base.pt'"):
        Trainer(begun_with("/other/base.pt"), Toy(), ToyData())


def test_a_run_that_another_process_trains_is_not_deleted(tmp_path: Path) -> None:
    train(tmp_path, steps=2)
    with locked(tmp_path), pytest.raises(InUseError, match="in use"):
        Trainer(config(tmp_path), Toy(), ToyData(), restart=True)
    assert load_training_checkpoint(tmp_path / CHECKPOINT)["step"] == 2


def test_what_was_best_by_another_metric_counts_no_more(tmp_path: Path) -> None:
    train(tmp_path, Toy(scores=(0.5, 0.9)), steps=4, validate_every=4)
    assert Trainer(config(tmp_path), Toy(), ToyData())._best == 0.9
    again = Trainer(config(tmp_path, monitor="iou_error"), Toy(), ToyData())
    assert (again.step, again._best) == (4, None)


def test_a_damaged_checkpoint_and_one_that_would_run_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"PK nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Trainer(config(tmp_path), Toy(), ToyData())
    torch.save({"step": Canary(tmp_path / "canary")}, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Trainer(config(tmp_path), Toy(), ToyData())
    assert not (tmp_path / "canary").exists()


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


# Stopping


def test_a_stop_file_ends_the_run_within_a_step_with_a_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path), Toy(), ToyData(), [stop_after(5, tmp_path)])
    assert trainer.fit() == "stop file"
    assert trainer.step == load_training_checkpoint(tmp_path / CHECKPOINT)["step"] == 5
    assert not (tmp_path / STOP).exists()
    assert train(tmp_path).step == 12


def test_a_stop_file_that_comes_too_late_is_told_and_taken_away(tmp_path: Path) -> None:
    def stop_at_the_end(event: Mapping[str, Any]) -> None:
        if event["event"] == "checkpoint" and event["kind"] == "model":
            (tmp_path / STOP).touch()

    trainer = Trainer(config(tmp_path), Toy(), ToyData(), [stop_at_the_end])
    assert trainer.fit() == "done"
    assert trainer.late_stop == "stop file"
    assert not (tmp_path / STOP).exists()


def test_a_stage_also_heeds_the_stop_file_of_its_run(tmp_path: Path) -> None:
    stop = stop_after(5, tmp_path)
    trainer = Trainer(config(tmp_path / "stage"), Toy(), ToyData(), [stop], stage_of=tmp_path)
    assert (trainer.fit(), trainer.step) == ("stop file", 5)
    assert not (tmp_path / STOP).exists()


def test_time_is_up_before_the_limit_and_with_a_checkpoint(tmp_path: Path) -> None:
    began = time.monotonic()
    trainer = train(tmp_path, steps=10**6, max_minutes=2 / 60, log_every=1000)
    assert trainer.reason == "time"
    assert time.monotonic() - began < 4
    assert load_training_checkpoint(tmp_path / CHECKPOINT)["step"] == trainer.step > 1


class SlowToValidate(Toy):
    def validate(self, run: RunSettings) -> Validation | None:
        time.sleep(1.5)
        return Validation({"dice": 0.5})


def test_a_validation_that_would_end_after_the_limit_is_left_to_the_next_start(tmp_path: Path) -> None:
    began = time.monotonic()
    trainer = train(tmp_path, SlowToValidate(), steps=10**6, max_minutes=2.5 / 60, validate_every=20)
    assert trainer.reason == "time"
    assert time.monotonic() - began < 2.5 + 0.5
    assert trainer.step % 20 == 19


def test_the_speed_is_that_of_the_steps(tmp_path: Path) -> None:
    train(tmp_path, SlowToValidate(), steps=12, validate_every=6, log_every=2)
    speeds = [line["samples_per_second"] for line in steps_of(tmp_path)]
    assert len(speeds) == 6
    assert min(speeds) > 2 * 2 / 1.4  # two steps of two samples, and no validation


def test_sigterm_may_come_again_and_a_second_ctrl_c_ends_at_once() -> None:
    stop = StopSignal()
    with stop.listening():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "terminated"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_the_run_with_a_checkpoint(tmp_path: Path, number: int, reason: str) -> None:
    def send(event: Mapping[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            os.kill(os.getpid(), number)

    trainer = Trainer(config(tmp_path), Toy(), ToyData(), [send])
    assert trainer.fit() == reason
    assert load_training_checkpoint(tmp_path / CHECKPOINT)["step"] in (3, 4)
    assert signal.getsignal(number) != trainer._signal._note


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    task = Toy(scores=(0.9, 0.5, 0.8, 0.7, math.nan, 0.75))
    trainer = train(tmp_path, task, steps=100, validate_every=2, early_stopping=3)
    assert (trainer.reason, trainer.step) == ("no improvement", 10)
    assert len(task.exports) == 2  # of the first and the second validation after the start
    assert not all(torch.equal(task.exports[-1][name], value) for name, value in trainer.average.values.items())
    found = [event for event in read_events(tmp_path) if event["event"] == "validation"]
    assert [event["best"] for event in found] == [False, True, True, False, False, False]


def test_validation_sees_the_averaged_weights_and_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    task = Toy(scores=(0.5, 0.6))
    seen: dict[str, Tensor] = {}
    validate = task.validate

    def spy(run: RunSettings) -> Validation | None:
        seen.update({name: value.clone() for name, value in task.network.state_dict().items()})
        return validate(run)

    task.validate = spy
    trainer = train(tmp_path, task, validate_every=12)
    unseen = train(tmp_path / "plain")
    assert all(torch.equal(seen[name], value) for name, value in trainer.average.values.items())
    for name, value in unseen.network.state_dict().items():
        assert torch.equal(trainer.network.state_dict()[name], value)
        assert not torch.equal(seen[name], value)


def test_pictures_are_numbered_and_unreadable_cases_told(tmp_path: Path) -> None:
    train(tmp_path, Toy(scores=(0.5, 0.6)), validate_every=12)
    names = sorted(path.name for path in (tmp_path / "overlays").iterdir())
    assert names == ["step_000000_0.png", "step_000012_0.png"]
    assert Image.open(tmp_path / "overlays" / "step_000012_0.png").size == (6, 4)
    notices = [event["text"] for event in read_events(tmp_path) if event["event"] == "notice"]
    assert notices == [f"{CANARY} was left out: no such file"] * 2


# Bad luck


class Unsound(Toy):
    """Gives a loss that is no number at some steps."""

    def __init__(self, bad: range) -> None:
        super().__init__()
        self.bad, self.calls = bad, 0

    def loss(self, batch: Batch, generator: Generator, progress: float) -> Outcome:
        outcome = super().loss(batch, generator, progress)
        self.calls += 1
        if self.calls in self.bad:
            outcome.loss = outcome.loss * math.nan
        return outcome


def test_a_step_without_a_number_is_skipped(tmp_path: Path) -> None:
    trainer = train(tmp_path, Unsound(range(3, 6)), steps=8)
    assert trainer.reason == "done"
    assert all(torch.isfinite(value).all() for value in trainer.network.state_dict().values())
    assert [line["skipped"] for line in steps_of(tmp_path)] == [0, 0, 1, 1, 1, 0, 0, 0]
    assert steps_of(tmp_path)[3]["loss"] is None


def test_several_such_steps_in_a_row_end_the_run_and_keep_the_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"5 steps in a row.*learning_rate"):
        train(tmp_path, Unsound(range(5, 99)), save_every=4)
    state = load_training_checkpoint(tmp_path / CHECKPOINT)
    assert state["step"] == 4
    assert all(torch.isfinite(value).all() for value in state["network"].values())
    assert read_events(tmp_path)[-1]["event"] == "error"


class Greedy(Toy):
    """Asks for more memory than there is at one step."""

    calls = 0

    def loss(self, batch: Batch, generator: Generator, progress: float) -> Outcome:
        self.calls += 1
        if self.calls == 4:
            torch.empty(1 << 60)
        return super().loss(batch, generator, progress)


@pytest.mark.parametrize("sharpness", [0.0, 0.05])
def test_out_of_memory_says_what_to_lower_and_keeps_the_state(tmp_path: Path, sharpness: float) -> None:
    with pytest.raises(ResourceError, match=r"2 x 1 x 4 x 4.*data.batch.*activation_checkpointing"):
        train(tmp_path, Greedy(), optimiser={"sharpness": sharpness})
    done = 1 if sharpness else 3  # with sharpness, the fourth call is in the second pass of the second step
    state = load_training_checkpoint(tmp_path / CHECKPOINT)
    assert state["step"] == done
    stop = stop_after(done, tmp_path / "other")
    reference = Trainer(config(tmp_path / "other", {"sharpness": sharpness}), Toy(), ToyData(), [stop])
    reference.fit()
    assert reference.step == done
    assert all(torch.equal(state["network"][name], value) for name, value in reference.network.state_dict().items())


class HugePart(SimulatedPart):
    def make(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        return torch.empty(1 << 60), torch.empty(1 << 60)


class Simulated(ToyData):
    """What is to be simulated for one step takes more memory than there is."""

    def __getitem__(self, step: int) -> Batch:
        batch = super().__getitem__(step)
        return replace(batch, simulated=HugePart(5, 1, 4, 0)) if step == 3 else batch


def test_out_of_memory_while_samples_are_simulated_is_no_other_case(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"7 x 1 x 4 x 4.*saved up to step 3"):
        train(tmp_path, samples=Simulated())
    assert load_training_checkpoint(tmp_path / CHECKPOINT)["step"] == 3


class Unvalidated(Toy):
    """Its second validation fails, for want of memory or otherwise."""

    def __init__(self, wants_memory: bool) -> None:
        super().__init__(scores=(0.5,))
        self.wants_memory = wants_memory

    def validate(self, run: RunSettings) -> Validation | None:
        if self.scores:
            return super().validate(run)
        if self.wants_memory:
            torch.empty(1 << 60)
        raise ReadError("A case cannot be read")


@pytest.mark.parametrize(
    ("wants_memory", "error", "words"),
    [(True, ResourceError, "to validate after step 3: the run is saved"), (False, ReadError, "A case")],
)
def test_a_validation_that_fails_costs_no_step(
    tmp_path: Path, wants_memory: bool, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        train(tmp_path, Unvalidated(wants_memory), validate_every=3)
    state = load_training_checkpoint(tmp_path / CHECKPOINT)
    assert state["step"] == 3
    reference = Trainer(config(tmp_path / "other"), Toy(), ToyData(), [stop_after(3, tmp_path / "other")])
    reference.fit()
    assert all(torch.equal(state["network"][name], value) for name, value in reference.network.state_dict().items())
    assert read_events(tmp_path)[-1]["event"] == "error"


def test_a_run_that_goes_on_by_a_metric_that_is_none_keeps_its_steps(tmp_path: Path) -> None:
    train(tmp_path, steps=2)
    with pytest.raises(TrainingError, match=r"run.monitor is 'dise'.*Choose from"):
        Trainer(config(tmp_path, monitor="dise", validate_every=4), Toy(scores=(0.5,)), ToyData()).fit()
    assert load_training_checkpoint(tmp_path / CHECKPOINT)["step"] == 4


class Unexportable(Toy):
    def export(self, state: Mapping[str, Tensor], folder: Path) -> list[Path]:
        raise WriteError("The model cannot be written")


def test_an_export_that_fails_costs_no_step(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="The model"):
        train(tmp_path, Unexportable(scores=(0.5, 0.6)), validate_every=4)
    state = load_training_checkpoint(tmp_path / CHECKPOINT)
    assert (state["step"], state["best"]) == (4, None)  # there is no model of it


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes cannot be limited there")
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    save_training_checkpoint(path, {"step": 1})
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(WriteError, match=CHECKPOINT):
            save_training_checkpoint(path, {"step": 2, "large": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert load_training_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT]


def test_fp16_is_refused_where_there_is_no_gpu_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NVIDIA"):
        Trainer(config(tmp_path, precision="fp16"), Toy(), ToyData())


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(tmp_path: Path) -> None:
    trainer = train(tmp_path, precision="bf16")
    exact = train(tmp_path / "exact")
    for name, value in trainer.network.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact.network.state_dict()[name], atol=0.05, rtol=0.05)
    assert any(not torch.equal(v, exact.network.state_dict()[n]) for n, v in trainer.network.state_dict().items())


# Progress


def test_events_are_json_lines_that_say_how_it_goes(tmp_path: Path) -> None:
    train(tmp_path, steps=4, log_every=2)
    lines = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "step", "step", "checkpoint", "checkpoint", "end"]
    assert {"event", "time", "step"} <= set.intersection(*(set(line) for line in lines))
    step = lines[1]
    assert step["terms"]["squares"] == step["loss"]
    assert step["dice"] == {"toy": [1.0, 2]}
    assert 0 <= step["data_wait"] <= 1
    assert step["seconds_left"] > 0 == lines[2]["seconds_left"]
    assert step["samples_per_second"] == pytest.approx(4 / step["seconds"], rel=0.2)
    assert lines[3]["paths"] == [str(tmp_path / CHECKPOINT)]


def test_the_log_says_when_a_run_waits_for_its_data(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    class SlowData(ToyData):
        def __getitem__(self, step: int) -> Batch:
            time.sleep(0.2)
            return super().__getitem__(step)

    Trainer(config(tmp_path, steps=2), Toy(), SlowData(), [ConsoleBar()]).fit()
    assert min(line["data_wait"] for line in steps_of(tmp_path)) > 0.5
    assert "waiting for data" in capsys.readouterr().err

    bar = ConsoleBar()
    bar({"event": "start", "step": 0, "steps": 2})
    bar({"event": "step", "step": 1, "loss": 0.5, "data_wait": 0.01})
    assert "waiting" not in capsys.readouterr().err, "a little is no news"


def test_tensorboard_gets_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, Toy(scores=(0.25, 0.5)), steps=4, validate_every=4)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    losses = [(scalar.step, scalar.value) for scalar in board.Scalars("train/loss")]
    assert losses == [(line["step"], pytest.approx(line["loss"])) for line in steps_of(tmp_path)]
    assert [(scalar.step, scalar.value) for scalar in board.Scalars("validation/dice")] == [(0, 0.25), (4, 0.5)]


def test_data_processes_inherit_no_locks() -> None:
    # Forked after a validation had opened a video, they hung in the decoder's threads, which only the parent has.
    loader = make_loader(ToyData(), range(3), workers=1)
    assert loader.multiprocessing_context.get_start_method() == "spawn"


class Dying(ToyData):
    """Its process is told to stop together with the trainer's, and dies of it."""

    def __getitem__(self, step: int) -> Batch:
        if step == 3:
            os.kill(os.getppid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(step)


class Unreadable(ToyData):
    def __getitem__(self, step: int) -> Batch:
        if step == 2:
            raise ReadError("Nothing can be read", "all files are damaged", "Mend them")
        return super().__getitem__(step)


def with_worker(folder: Path, samples: Dataset) -> Trainer:
    """Trains with batches from another process."""
    asked = config(folder)
    return Trainer(replace(asked, data=replace(asked.data, workers=1)), Toy(), samples)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals reach processes in another way there")
def test_a_data_process_that_dies_of_the_signal_to_stop_costs_no_step(tmp_path: Path) -> None:
    trainer = with_worker(tmp_path, Dying())
    assert trainer.fit() == "terminated"
    assert load_training_checkpoint(tmp_path / CHECKPOINT)["step"] == trainer.step


@pytest.mark.slow
def test_an_error_of_a_data_process_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ReadError) as told:
        with_worker(tmp_path, Unreadable()).fit()
    assert str(told.value) == "Nothing can be read: all files are damaged. Mend them."
    assert (told.value.what, told.value.fix) == ("Nothing can be read", "Mend them")
    assert read_events(tmp_path)[-1]["text"] == str(told.value)


def test_measuring_a_step_writes_nothing(tmp_path: Path) -> None:
    seconds = Trainer(config(tmp_path / "run"), Toy(), ToyData()).measure()
    assert 0 < seconds < 5
    assert not (tmp_path / "run").exists()


# Optimisation


def test_accumulated_batches_count_as_one_large_batch(tmp_path: Path) -> None:
    two = train(tmp_path / "two", Toy(dropout=0), ToyData(), accumulate=2)
    one = train(tmp_path / "one", Toy(dropout=0), ToyData(merged=2))
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def test_schedules() -> None:
    def rates(**changes: Any) -> list[float]:
        settings = OptimiserSettings(learning_rate=1.0, **changes)
        return [optim.learning_rate(settings, step, 10) for step in range(10)]

    assert rates(schedule="constant", warmup=4)[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert rates(schedule="exponential", decay=0.5, decay_every=3) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    cosine = rates(schedule="cosine", warmup=2, final=0.1)
    assert cosine[2] == 1
    assert cosine[6] == pytest.approx(0.55)  # half of the way from 1 to 0.1
    # The paper's: PyTorch's own exponential schedule, stepped once an epoch.
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-4)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, gamma=0.98)
    paper = OptimiserSettings(learning_rate=1e-4, schedule="exponential", decay=0.98, decay_every=5)
    for step in range(20):
        assert optim.learning_rate(paper, step, 20) == pytest.approx(schedule.get_last_lr()[0])
        if step % 5 == 4:
            optimiser.step()
            schedule.step()


def test_relative_rates_and_decay_by_name() -> None:
    network = nn.ModuleDict({"adapter": nn.Linear(4, 4), "memory_encoder": nn.Linear(4, 4), "decoder": nn.Linear(4, 4)})
    network["decoder"].bias.requires_grad_(False)
    settings = OptimiserSettings(weight_decay=0.5, rates={"adapter": 10, "memory": 0.1})
    groups = {(g["relative_rate"], g["weight_decay"]): g["params"] for g in optim.parameter_groups(network, settings)}
    assert groups.keys() == {(10.0, 0.5), (10.0, 0.0), (0.1, 0.5), (0.1, 0.0), (1.0, 0.5)}
    assert groups[10.0, 0.0] == [network["adapter"].bias]
    with pytest.raises(ConfigError, match="adaptor"):
        optim.parameter_groups(network, OptimiserSettings(rates={"adaptor": 2.0}))
    with pytest.raises(ConfigError, match="left to train"):
        optim.parameter_groups(network.requires_grad_(False), settings)


def test_the_average_is_an_exponential_one_with_a_short_memory_at_first() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = optim.Average(network, decay=0.5)
    expected = 0.0
    for step in range(1, 30):
        nn.init.constant_(network.weight, step)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert average.values["weight"].item() == pytest.approx(expected)
    with average.in_place():
        assert network.weight.item() == pytest.approx(expected)
    assert network.weight.item() == 29


def test_the_worst_neighbour_lies_up_the_gradient_and_the_weights_come_back() -> None:
    # f(w) = (w . A w) / 2 has the gradient A w; Foret et al. step by the gradient at w + rho g / |g|.
    a = torch.diag(torch.tensor([1.0, 10.0]))
    weight = nn.Parameter(torch.tensor([3.0, 0.4]))
    idle = nn.Parameter(torch.ones(1))
    before = weight.detach().clone()
    (weight @ a @ weight / 2).backward()
    gradient = a @ before
    neighbour = before + 0.1 * gradient / gradient.norm()
    with worst_neighbour([weight, idle], 0.1):
        torch.testing.assert_close(weight.detach(), neighbour)
        weight.grad = None
        (weight @ a @ weight / 2).backward()
    assert torch.equal(weight.detach(), before)
    torch.testing.assert_close(weight.grad, a @ neighbour)
    with pytest.raises(ZeroDivisionError), worst_neighbour([weight], 0.1):
        raise ZeroDivisionError
    assert torch.equal(weight.detach(), before)


def test_gradients_are_clipped_to_their_norm(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, {"clip_gradient": 1e-3}), Toy(), ToyData())
    trainer._step([ToyData()[0]])
    norm = torch.stack([parameter.grad.norm() for parameter in trainer.network.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


# Several processes


def launch(folder: Path, steps: int, **run: Any) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", __file__, str(folder), str(steps), json.dumps(run)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def launch_alone(folder: Path, **run: Any) -> subprocess.Popen:
    command = [sys.executable, __file__, str(folder), str(run.pop("steps")), json.dumps(run)]
    return subprocess.Popen(command, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "localhost", "GLOO_SOCKET_IFNAME": "lo"}


def wait_for(condition: Any, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    process = launch(tmp_path / "two", steps=12)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    ranks = [torch.load(tmp_path / "two" / f"weights_{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    alone = train(tmp_path / "one", Toy(dropout=0), ToyData(merged=2), optimiser={"schedule": "constant"})
    start = Toy().network.state_dict()
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(ranks[0][name], value, atol=1e-5, rtol=0)
        assert not torch.equal(value, start[name])
    assert read_events(tmp_path / "two")[0]["processes"] == 2
    assert load_training_checkpoint(tmp_path / "two" / CHECKPOINT)["step"] == 12
    with pytest.raises(ConfigError, match="processes was 2, is 1"):
        Trainer(config(tmp_path / "two", {"schedule": "constant"}), Toy(dropout=0), ToyData())


@pytest.mark.slow
def test_out_of_memory_in_another_process_keeps_the_state(tmp_path: Path) -> None:
    process = launch(tmp_path, steps=12, greedy=1)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "the run is saved up to step 3" in output
    assert load_training_checkpoint(tmp_path / CHECKPOINT)["step"] == 3
    assert read_events(tmp_path)[-1]["event"] == "error"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's launcher is killed in another way there")
def test_every_process_ends_when_its_launcher_is_killed(tmp_path: Path) -> None:
    process = launch(tmp_path, steps=10**6)
    try:
        wait_for(lambda: process.poll() is not None or steps_of(tmp_path))
        pids = [int(path.read_text()) for path in tmp_path.glob("pid_*")]
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), seconds=20)


def main(folder: Path, steps: int, run: Mapping[str, Any]) -> None:
    """What each process runs: alone on all data, or under torchrun on its share; one may be ``greedy``."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"pid_{rank}").write_text(str(os.getpid()))
    run = dict(run)
    task = (Greedy if run.pop("greedy", None) == rank else Toy)(dropout=0)
    trainer = Trainer(config(folder, {"schedule": "constant"}, steps=steps, **run), task, ToyData(rank, world))
    trainer.fit()
    torch.save(trainer.network.state_dict(), folder / f"weights_{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
