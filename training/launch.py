"""Where a run computes: one device, or the processes that torchrun started, and how it hears that it should stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from napari_uniultra.errors import ResourceError
from napari_uniultra.model.device import choose_device
from napari_uniultra.training.config import ConfigError, RunSettings
from napari_uniultra.training.ending import Ending
from napari_uniultra.training.parent import LAUNCHED, watch_parent

STOPS = signal.SIGINT, signal.SIGTERM
_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_fabric(run: RunSettings) -> Fabric:
    """The device or process group of a run.

    Under torchrun every process takes the GPU of its local rank (or the CPU, when ``run.device`` says so), and ends
    soon after torchrun does.

    Raises
    ------
    ConfigError
        For a precision that the device does not have.
    ResourceError
        When the device is not there, or there are fewer GPUs than processes.
    """
    device = choose_device(run.device)
    if run.precision == "fp16" and device.type != "cuda":
        raise ConfigError("run.precision fp16 needs an NVIDIA GPU", f"this run is on {device.type}", "Use bf16 or fp32")
    precision = _PRECISIONS[run.precision]
    if run.precision == "bf16" and device.type == "cpu":
        _spare_amx()
    if LAUNCHED not in os.environ:
        devices = [device.index or 0] if device.type == "cuda" else 1
        alone = LightningEnvironment()  # also within a cluster's job, whose processes fabric would otherwise count
        return Fabric(accelerator=device.type, devices=devices, precision=precision, plugins=[alone])
    watch_parent()
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if device.type == "cuda" and local > torch.cuda.device_count():
        raise ResourceError(
            f"torchrun started {local} processes", f"this machine has {torch.cuda.device_count()} GPUs", "Start fewer"
        )
    strategy = "ddp" if world > 1 else "auto"
    fabric = Fabric(
        accelerator=device.type, strategy=strategy, devices=local, num_nodes=world // local, precision=precision
    )
    fabric.launch()
    return fabric


def _spare_amx() -> None:
    """Keep the matrix units of Intel's processors, AMX, out of computations in bfloat16; others are not concerned.

    With PyTorch 2.13 (oneDNN 3.12) they wrote beyond their memory while UniUltra-mini was trained, and the process
    ended within 40 steps; without them it took about as long. oneDNN asks for this when it computes for the first time.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")


class StopSignal:
    """Remembers the first Ctrl-C or SIGTERM in place of ending at once; the second Ctrl-C ends at once.

    Clusters may send SIGTERM several times while the last checkpoint is written: that changes nothing.
    """

    def __init__(self) -> None:
        self.reason: Ending | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block, and in the main thread, which is the only one that signals reach."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.reason and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = self.reason or (Ending.INTERRUPTED if number == signal.SIGINT else Ending.TERMINATED)
