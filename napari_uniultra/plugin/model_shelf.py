"""The models of this computer as the user tends them: download, add, forget, look at. No widgets.

The work runs in a thread of its own, so that segmenting goes on meanwhile.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_uniultra.model import zoo
from napari_uniultra.model.catalogue import ModelInfo, find_model, model_card
from napari_uniultra.plugin.jobs import Jobs

_TELL_EVERY_S = 0.1


@dataclass(frozen=True)
class Transfer:
    """How far a download is; ``seconds_left`` is None until there is something to reckon from."""

    name: str
    have: int
    total: int
    seconds_left: float | None = None


class _Cancelled(Exception):
    """The user stopped the download."""


class ModelShelf(QObject):
    """Does one thing at a time, in the order asked.

    Parameters
    ----------
    jobs : Jobs
        A thread for this alone.
    """

    changed = Signal(str)  # the name of the model that came or went
    progressed = Signal(object)  # Transfer, or None when it ended
    said = Signal(str)  # what is being done, in words
    failed = Signal(object)  # an exception
    card_read = Signal(object, object)  # ModelInfo, its card

    _received = Signal(object)  # a Transfer, from the thread

    def __init__(self, jobs: Jobs) -> None:
        super().__init__()
        self._jobs = jobs
        self._cancel = threading.Event()
        self._running = ""
        self._received.connect(self._on_received)

    @property
    def downloading(self) -> str:
        """The name of the model that is being downloaded, or nothing."""
        return self._running

    def download(self, name: str) -> None:
        """Download official weights; what an earlier try has left is used."""
        if self._running:
            return
        self._running, self._cancel = name, threading.Event()
        report = _Report(name, self._cancel, self._received.emit)
        self.said.emit(f"Downloading {name}")
        self.progressed.emit(Transfer(name, zoo.bytes_received(name), find_model(name).size_bytes))
        self._jobs.submit(lambda: zoo.download_model(name, report), self._downloaded, self._download_failed)

    def cancel(self) -> None:
        """Stop the download; what has come stays for the next try."""
        if self._running:
            self._cancel.set()
            self.said.emit("Stopping")

    def add(self, path: str | Path) -> None:
        """Check a checkpoint and copy it to the models."""
        path = Path(path)
        self.said.emit(f"Checking and copying {path.name}")
        self._jobs.submit(lambda: zoo.add_model(path), self._added, self._failed)

    def forget(self, name: str) -> None:
        """Delete an added or downloaded model from this computer."""
        self._jobs.submit(lambda: zoo.remove_model(name), lambda _: self._gone(name), self._failed)

    def read_card(self, info: ModelInfo) -> None:
        """Read what a model says of itself; `card_read` brings it."""
        self._jobs.submit(lambda: model_card(info), lambda card: self.card_read.emit(info, card), self._failed)

    def close(self) -> None:
        """Stop everything; a server that does not answer is not waited for."""
        self._cancel.set()
        self._jobs.stop(timeout_s=1.0)
        self._running = ""

    def _on_received(self, transfer: Transfer) -> None:
        if self._running and not self._cancel.is_set():
            self.progressed.emit(transfer)
            if transfer.have >= transfer.total:
                self.said.emit("Checking what came")

    def _downloaded(self, info: ModelInfo) -> None:
        self._end(f"{info.name} is here")
        self.changed.emit(info.name)

    def _download_failed(self, error: Exception) -> None:
        if isinstance(error, _Cancelled):
            self._end("Stopped. What has come is kept, and the next try goes on from there")
            return
        self._end("The download did not succeed")
        self.failed.emit(error)

    def _end(self, words: str) -> None:
        self._running = ""
        self.progressed.emit(None)
        self.said.emit(words)

    def _added(self, info: ModelInfo) -> None:
        self.said.emit(f"{info.name} was added")
        self.changed.emit(info.name)

    def _gone(self, name: str) -> None:
        self.said.emit(f"{name} was removed from this computer")
        self.changed.emit(name)

    def _failed(self, error: Exception) -> None:
        self.said.emit("That did not work; everything else is as it was")
        self.failed.emit(error)


class _Report:
    """What a download calls with the bytes there are and the bytes in all, in its thread."""

    def __init__(self, name: str, cancel: threading.Event, tell: Any) -> None:
        self._name, self._cancel, self._tell = name, cancel, tell
        self._first: tuple[float, int] | None = None
        self._told = 0.0

    def __call__(self, have: int, total: int) -> None:
        if self._cancel.is_set():
            raise _Cancelled
        now = time.monotonic()
        self._first = self._first or (now, have)
        if now - self._told < _TELL_EVERY_S and have < total:
            return
        self._told = now
        start, had = self._first
        rate = (have - had) / (now - start) if now > start else 0.0
        self._tell(Transfer(self._name, have, total, (total - have) / rate if rate else None))
