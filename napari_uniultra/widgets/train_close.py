"""What becomes of running trainings when the viewer is closed: the user is asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_uniultra.errors import UniUltraError
from napari_uniultra.runner.launch import ask_to_stop
from napari_uniultra.runner.registry import list_runs
from napari_uniultra.runner.run import Run

KEEP, STOP, CANCEL = "keep", "stop", "cancel"


class CloseGuard(QObject):
    """Watches a window, and outlives the panel that made it.

    Parameters
    ----------
    window : QWidget
        The viewer's. There is one guard for each.
    """

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self.ask: Callable[[list[str]], str] = lambda titles: _ask(window, titles)
        window.installEventFilter(self)

    @classmethod
    def of(cls, window: QWidget) -> CloseGuard:
        """The guard of a window."""
        return window.findChild(cls) or cls(window)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Ask before the window closes while something trains; the event ends here when the user cancels."""
        if event.type() != QEvent.Type.Close:
            return False
        active = [run for run in list_runs() if run.status().is_active_here]
        answer = self.ask([run.info.title for run in active]) if active else KEEP
        if answer == CANCEL:
            event.ignore()
            return True
        if answer == STOP:
            _stop(active)
        return False


def _stop(runs: list[Run]) -> None:
    for run in runs:
        with suppress(UniUltraError):  # the window closes in any case; a run that cannot be told goes on
            ask_to_stop(run)


def _ask(window: QWidget, titles: list[str]) -> str:
    box = QMessageBox(window)
    box.setWindowTitle("Training is running")
    box.setText(f"Should the training go on without napari?\n\n{', '.join(titles)}")
    box.setInformativeText("Whether it goes on or stops with a checkpoint: you find it again in the panel Train.")
    keep = box.addButton("Keep training", QMessageBox.ButtonRole.AcceptRole)
    stop = box.addButton("Stop with a checkpoint", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(keep)
    box.exec()
    chosen = box.clickedButton()
    return KEEP if chosen is keep else STOP if chosen is stop else CANCEL
