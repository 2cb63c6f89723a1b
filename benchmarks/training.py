"""`uniultra bench --training`: the trainer beside a plain loop, its waiting for data, and its memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
from napari_uniultra.training.finetune import FineTune
from napari_uniultra.training.trainer import Trainer

_WARM_UP = 3  # steps
_BATCH = 8
_COLUMNS = ("case", "trainer", "plain PyTorch loop", "ratio (range)")


def run_training(quick: bool = False, device: str = "auto", image_size: int = 256, large_size: int = 256) -> str:
    """Measure and return a table in Markdown.

    Parameters
    ----------
    quick : bool
        Fewer steps.
    device : str
        As `choose_device` takes it.
    image_size, large_size : int
        Sides of the input in pixels: of UniUltra-mini for speed, and of UniUltra-L for memory.
    """
    steps = 5 if quick else 25
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [
            _beside_plain(folder / "pairs", steps, device, image_size),
            *_waits(folder, steps, device, image_size),
            *_memory(large_size, device),
        ]
    heading = f"UniUltra-mini at {image_size} px, batches of {_BATCH}, CH-Adapters trained; {machine(device=device)}"
    return table(heading, _COLUMNS, lines)


def measure_steps(architecture: str, image_size: int, checkpointing: bool, device: str) -> float:
    """Seconds of a step of one image, from random weights."""
    with tempfile.TemporaryDirectory() as name:
        model = {"base": None, "architecture": architecture, "image_size": image_size}
        values = _settings(Path(name), 3, device, image_size, model=model, batch=1, simulated=True)
        values["run"]["activation_checkpointing"] = checkpointing
        config = read_settings(FineTuneConfig, values)
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


def _beside_plain(folder: Path, steps: int, device: str, image_size: int) -> str:
    """Step by step in turn, on the same batches, which are there already."""
    settings = _settings(folder, steps + _WARM_UP, device, image_size, simulated=True)
    settings["data"]["workers"] = 0
    config = read_settings(FineTuneConfig, settings)
    batches = _Prepared(config, 4)
    turns = _InTurn(_PlainLoop(config, batches, choose_device(device)))
    Trainer(config, FineTune(config), batches, [turns]).fit()
    times = np.array(turns.times[_WARM_UP:])
    ours, plain = _BATCH / np.median(times, axis=0)
    ratios = tuple((times[:, 1] / times[:, 0]).tolist())
    return Row("speed", float(ours), float(plain), ratios, "samples/s").markdown()


def _waits(folder: Path, steps: int, device: str, image_size: int) -> Iterator[str]:
    """What the log says of waiting for data, with the data processes that are the default."""
    for case, simulated in (("images of a manifest", False), ("simulated data", True)):
        manifest = None if simulated else _manifest(folder / "images")
        config = read_settings(
            FineTuneConfig,
            _settings(folder / case, steps + _WARM_UP, device, image_size, simulated=simulated, manifest=manifest),
        )
        events: list[Mapping[str, Any]] = []
        Trainer(config, FineTune(config), listeners=[events.append]).fit()
        seen = [event for event in events if event["event"] == "step"][_WARM_UP:]
        speed = np.median([event["samples_per_second"] for event in seen])
        wait = 100 * np.mean([event["data_wait"] for event in seen])
        yield row(f"{case}: speed, waiting for data", f"{speed:.3g} samples/s, {wait:.1f} % of the time", "", "")


def _memory(image_size: int, device: str) -> Iterator[str]:
    """UniUltra-L with and without activation checkpointing, each in a process of its own."""
    for checkpointing in (False, True):
        found = in_own_process(
            "train", architecture="uniultra-l", image_size=image_size, checkpointing=checkpointing, device=device
        )
        case = f"UniUltra-L, {image_size} px, batch 1, activation checkpointing {'on' if checkpointing else 'off'}"
        yield row(case, f"{found['peak_mb']:.0f} MB at most, {found['seconds']:.2f} s a step", "", "")


def _settings(
    output: Path,
    steps: int,
    device: str,
    image_size: int,
    *,
    simulated: bool,
    model: dict[str, Any] | None = None,
    manifest: Path | None = None,
    batch: int = _BATCH,
) -> dict[str, Any]:
    """A fine-tuning by adapters that writes a line of progress every step."""
    return {
        "output": str(output),
        "model": model or {"base": "uniultra-mini", "image_size": image_size},
        "method": {"name": "ch_adapter"},
        "data": {
            "manifests": [str(manifest)] if manifest else [],
            "simulated_share": 1.0 if simulated else 0.0,
            "batch": batch,
        },
        "run": {"steps": steps, "device": device, "log_every": 1, "save_every": steps},
    }


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
