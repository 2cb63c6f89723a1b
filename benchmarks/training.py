"""`uniultra bench --training`: the trainer beside a plain loop, its waiting for data, and its memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Generator
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import Dataset

from napari_uniultra import sample_data
from napari_uniultra.benchmarks.pairs import Row, timed
from napari_uniultra.benchmarks.process import in_own_process
from napari_uniultra.benchmarks.report import machine, row, table
from napari_uniultra.core.settings import read_settings
from napari_uniultra.model.device import choose_device
from napari_uniultra.training.config import FineTuneConfig
from napari_uniultra.training.data.samples import Batch, Samples
from napari_uniultra.training.ending import Ending
from napari_uniultra.training.finetune import FineTune
from napari_uniultra.training.trainer import Trainer

_WARM_UP = 3  # steps
_QUICK = dict(steps=8, batch=4, image_size=128, large_size=128)
_COLUMNS = ("case", "trainer", "plain PyTorch loop", "ratio (range)")


class Plan(NamedTuple):
    """What is measured.

    Attributes
    ----------
    device : str
        As `choose_device` takes it.
    steps, batch, image_size : int
        Steps that count, frames of each, and side of the input in pixels: of UniUltra-mini, for speed.
    large, large_size : str and int
        The architecture, and side of its input, that is trained once with activation checkpointing and once without.
    """

    device: str = "auto"
    steps: int = 25
    batch: int = 8
    image_size: int = 256
    large: str = "uniultra-l"
    large_size: int = 256


def run_training(plan: Plan = Plan(), quick: bool = False) -> str:  # noqa: B008 - immutable
    """Measure and return a table in Markdown.

    Parameters
    ----------
    plan : Plan
    quick : bool
        Fewer steps, of smaller batches of smaller images.
    """
    plan = plan._replace(**_QUICK) if quick else plan
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = _manifest(folder / "images")
        lines = [
            _beside_plain(folder / "pairs", plan, manifest),
            _waiting("images of a manifest", folder / "real", plan, manifest),
            _waiting("simulated data", folder / "simulated", plan, None),
            *_memory(plan),
        ]
    heading = (
        f"UniUltra-mini at {plan.image_size} px, batches of {plan.batch}, CH-Adapters trained; "
        f"{machine(device=plan.device)}"
    )
    return table(heading, _COLUMNS, lines)


def measure_steps(architecture: str, image_size: int, checkpointing: bool, device: str) -> float:
    """Seconds of a step of one image, from random weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = Plan(device, steps=3, batch=1, image_size=image_size)
        config = _config(folder / "run", plan, _manifest(folder / "images"))
        model = replace(config.model, base=None, architecture=architecture)
        run = replace(config.run, activation_checkpointing=checkpointing)
        config = replace(config, model=model, run=run, data=replace(config.data, workers=0))
        return Trainer(config, FineTune(config)).measure(2)


class _Prepared(Dataset):
    """Batches that were made before, again and again."""

    def __init__(self, config: FineTuneConfig, count: int) -> None:
        samples = Samples(config.data, config.model.image_size, count, config.run.seed)
        self._batches = [samples[step] for step in range(count)]
        self._steps = config.run.steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        return self._batches[step % len(self._batches)]


class _PlainLoop:
    """What a person would write first: the same network, batches, loss, optimiser and clipping, and nothing else."""

    def __init__(self, config: FineTuneConfig, batches: Dataset[Batch], device: torch.device) -> None:
        self._task, self._batches, self._device = FineTune(config), batches, device
        network = self._task.network.to(device).train()
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=config.optimiser.learning_rate)
        self._generator = Generator().manual_seed(0)

    def step(self, number: int) -> None:
        """One change of the weights."""
        batch = self._batches[number].to(self._device)
        self._optimiser.zero_grad(set_to_none=True)
        loss = self._task.loss(batch, self._generator, 0.0).loss
        loss.backward()
        clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        loss.item()


class _InTurn:
    """A listener of the trainer's events, which does a step of the plain loop after each of the trainer's."""

    def __init__(self, plain: _PlainLoop) -> None:
        self._plain, self._since = plain, 0.0
        self.times: list[tuple[float, float]] = []

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "step":
            took, number = time.perf_counter() - self._since, event["step"]
            self.times.append((took, timed(lambda: self._plain.step(number))))
        self._since = time.perf_counter()


def _beside_plain(folder: Path, plan: Plan, manifest: Path) -> str:
    """Step by step in turn, on the same batches, which are there already."""
    config = _config(folder, plan, manifest)
    config = replace(config, data=replace(config.data, workers=0))
    batches = _Prepared(config, 4)
    turns = _InTurn(_PlainLoop(config, batches, choose_device(plan.device)))
    _train_to_the_end(Trainer(config, FineTune(config), batches, [turns]))
    times = np.array(turns.times[_WARM_UP:])
    ours, plain = plan.batch / np.median(times, axis=0)
    ratios = tuple((times[:, 1] / times[:, 0]).tolist())
    return Row("speed", float(ours), float(plain), ratios, "samples/s").markdown()


def _waiting(case: str, folder: Path, plan: Plan, manifest: Path | None) -> str:
    """What the log says of waiting for data, with as many data processes as there are by default."""
    config = _config(folder, plan, manifest)
    events: list[Mapping[str, Any]] = []
    _train_to_the_end(Trainer(config, FineTune(config), listeners=[events.append]))
    seen = [event for event in events if event["event"] == "step"][_WARM_UP:]
    speed = np.median([event["samples_per_second"] for event in seen])
    wait = 100 * np.mean([event["data_wait"] for event in seen])
    return row(f"{case}: speed, waiting for data", f"{speed:.3g} samples/s, {wait:.1f} % of the time", "", "")


def _train_to_the_end(trainer: Trainer) -> None:
    """The trainer takes Ctrl-C as a wish to stop its run; here it is one to stop everything."""
    if trainer.fit() is not Ending.DONE:
        raise KeyboardInterrupt


def _memory(plan: Plan) -> Iterator[str]:
    """An architecture with and without activation checkpointing, each in a process of its own."""
    for checkpointing in (False, True):
        settings = dict(architecture=plan.large, image_size=plan.large_size, device=plan.device)
        found = in_own_process("train", checkpointing=checkpointing, **settings)
        case = (
            f"{plan.large}, {plan.large_size} px, batch 1, activation checkpointing {'on' if checkpointing else 'off'}"
        )
        yield row(case, f"{found['peak_mb']:.0f} MB at most, {found['seconds']:.2f} s a step", "", "")


def _config(output: Path, plan: Plan, manifest: Path | None) -> FineTuneConfig:
    """A fine-tuning by adapters that writes a line of progress every step; simulated where there is no manifest."""
    steps = plan.steps + _WARM_UP
    values = {
        "output": str(output),
        "model": {"base": "uniultra-mini", "image_size": plan.image_size},
        "method": {"name": "ch_adapter"},
        "data": {
            "manifests": [str(manifest)] if manifest else [],
            "simulated_share": 0.0 if manifest else 1.0,
            "batch": plan.batch,
        },
        "run": {"steps": steps, "device": plan.device, "log_every": 1, "save_every": steps},
    }
    return read_settings(FineTuneConfig, values)


def _manifest(folder: Path) -> Path:
    """The simulated sample loop's frames as images with masks."""
    folder.mkdir()
    lines = ["frames,masks,subject,part"]
    loop, masks = (tifffile.imread(path) for path in (sample_data.simulated_path(), sample_data.simulated_masks_path()))
    for number, (frame, mask) in enumerate(zip(loop, masks, strict=True)):
        Image.fromarray(frame).save(folder / f"{number}.png")
        Image.fromarray(((mask == 1) * 255).astype(np.uint8)).save(folder / f"{number}_mask.png")
        lines.append(f"{number}.png,{number}_mask.png,s{number},train")
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
