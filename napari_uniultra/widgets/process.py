"""A program that a panel asks something of: it ends with the panel, and its answer is what it printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from qtpy.QtCore import QObject, QProcess

_END_MS = 3_000
_PREFIX = "uniultra: "


class Question(QObject):
    """Runs one command at a time.

    Parameters
    ----------
    parent : QObject
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._process: QProcess | None = None

    @property
    def running(self) -> bool:
        """Whether an answer is awaited."""
        return self._process is not None

    def ask(self, command: Sequence[str], answered: Callable[[str], None], failed: Callable[[str], None]) -> None:
        """Run a command; ``answered`` gets what it printed, or ``failed`` why it ended otherwise.

        A command that still runs is ended, and its answer dropped.
        """
        self.drop()
        process = QProcess(self)
        process.setProcessChannelMode(QProcess.ProcessChannelMode.SeparateChannels)
        process.finished.connect(lambda code, *_: self._on_finished(process, code, answered, failed))
        self._process = process
        process.start(command[0], list(command[1:]))

    def drop(self) -> None:
        """End the command, if one runs; nobody is told."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.waitForFinished(_END_MS)

    def _on_finished(
        self, process: QProcess, code: int, answered: Callable[[str], None], failed: Callable[[str], None]
    ) -> None:
        process.deleteLater()
        if process is not self._process:
            return
        self._process = None
        if code == 0:
            answered(bytes(process.readAllStandardOutput()).decode("utf-8", "replace"))
            return
        said = bytes(process.readAllStandardError()).decode("utf-8", "replace").strip().splitlines()
        failed(said[-1].removeprefix(_PREFIX) if said else f"The program ended with code {code}")


def uniultra(*arguments: str) -> list[str]:
    """The `uniultra` command of this installation."""
    return [sys.executable, "-m", "napari_uniultra.cli", *arguments]
