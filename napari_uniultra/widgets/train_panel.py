"""The panel "Train": fine-tune or distil a model on what was corrected, watch it, and use what comes of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer, QUrl
from qtpy.QtGui import QDesktopServices, QShowEvent
from qtpy.QtWidgets import (
    QFileDialog,
    QMessageBox,
    QTabWidget,
    QVBoxLayout,
)

from napari_uniultra.errors import UniUltraError, WriteError
from napari_uniultra.runner import launch
from napari_uniultra.runner.product import evaluation_command, export, report_of, snapshot
from napari_uniultra.runner.registry import add_folder, delete_run, list_runs, remove_drafts
from napari_uniultra.runner.run import Run
from napari_uniultra.widgets.docks import DockPanel, find_panel, main_window, open_panel
from napari_uniultra.widgets.parts import scrolling, tell, try_or_tell
from napari_uniultra.widgets.process import Question
from napari_uniultra.widgets.train_close import CloseGuard
from napari_uniultra.widgets.train_new import NewRun
from napari_uniultra.widgets.train_progress import RunView, can_end
from napari_uniultra.widgets.train_runs import RunList
from napari_uniultra.widgets.worker import InferenceThread

_POLL_MS = 1000
_SEGMENT_PANEL = "Segment loop"


class TrainPanel(DockPanel):
    """Trains models.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        if self.is_second:
            return
        self.confirm: Callable[[str], bool] = self._confirm
        self.open_report: Callable[[Path], None] = lambda path: QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))
        self.thread_, self.reader_ = InferenceThread(), InferenceThread()  # data sets are made while runs are watched
        self.score_question = Question(self)
        self._to_score: deque[Run] = deque()  # the first is at it
        self._build()
        self._connect()
        remove_drafts()
        self._attach()
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self._poll)
        self._timer.start()

    # Building -------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.new, self.view, self.runs = (
            NewRun(self._viewer, self.thread_),
            RunView(self.reader_),
            RunList(self.reader_),
        )
        self.tabs = QTabWidget()
        self.tabs.addTab(self.new, "New")
        self.tabs.addTab(scrolling(self.view), "Progress")
        self.tabs.addTab(scrolling(self.runs), "Runs")
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.addWidget(self.tabs)
        self.setMinimumWidth(340)

    def _connect(self) -> None:
        self.new.started.connect(self.watch)
        self.view.stop_asked.connect(lambda: try_or_tell(self._stop))
        self.view.resume_asked.connect(lambda: try_or_tell(lambda: self.resume(self.view.run)))
        self.view.use_asked.connect(lambda: try_or_tell(lambda: self.use(self.view.run)))
        self.runs.asked.connect(self._on_asked)
        for thread in (self.thread_, self.reader_):
            self.destroyed.connect(lambda _=None, thread=thread: thread.stop(0.0))

    # Running --------------------------------------------------------------------------------------------------------

    def watch(self, run: Run) -> None:
        """Show how a run goes."""
        self.view.show_run(run)
        self.tabs.setCurrentIndex(1)
        self.runs.update_view()

    def resume(self, run: Run) -> None:
        """Go on with a run."""
        launch.start(run)
        self.watch(run)

    def _stop(self) -> None:
        run = self.view.run
        if run is None:
            return
        if not can_end(run.status()):
            launch.ask_to_stop(run)
        elif self.confirm("End it at once? What it did since its last checkpoint is lost."):
            launch.end_now(run)
        self.view.update_view()

    def _attach(self) -> None:
        """Watch what an earlier viewer left running."""
        active = next((run for run in list_runs() if run.status().state.is_active), None)
        if active is not None:
            self.watch(active)

    def _poll(self) -> None:
        launch.reap()
        if self.isVisible():
            (self.view if self.tabs.currentIndex() == 1 else self.runs).update_view()

    # What comes of it -----------------------------------------------------------------------------------------------

    def _on_asked(self, action: str, runs: list[Run]) -> None:
        if action == "add":
            folder = QFileDialog.getExistingDirectory(self, "The output folder of a run")
            if folder:
                try_or_tell(lambda: self.watch(add_folder(folder)))
            return
        does = {
            "watch": self.watch,
            "resume": self.resume,
            "duplicate": self.duplicate,
            "use": self.use,
            "evaluate": self.evaluate,
            "export": self._on_export,
        }
        if action == "delete":
            try_or_tell(lambda: self.delete(runs))
        elif len(runs) == 1:
            try_or_tell(lambda: does[action](runs[0]))

    def duplicate(self, run: Run) -> None:
        """Fill the form in with a run's settings and data."""
        self.new.show_settings(run.info.kind, run.config(), f"{run.info.title} again")
        self.tabs.setCurrentIndex(0)

    def use(self, run: Run) -> None:
        """Put a run's model into the segment panel."""
        path = snapshot(run)
        open_panel(self._viewer, _SEGMENT_PANEL).add_model_file(str(path))
        show_info(f"“{run.info.title}” is the model of the panel {_SEGMENT_PANEL} now")

    def evaluate(self, run: Run) -> None:
        """Score a run's model on what it did not learn from, and open the report."""
        show_info(f"“{run.info.title}” is being scored; the report opens when it is done")
        self._to_score.append(run)
        if len(self._to_score) == 1:
            self._score()

    def _score(self) -> None:
        """Score the first of the runs that wait for it; the others follow."""
        run = self._to_score[0]

        def ask(command: list[str]) -> None:
            self.score_question.ask(command, lambda _: done(self.open_report, report_of(run)), failed)

        def failed(words: str) -> None:
            done(tell, UniUltraError(words))

        def done(show: Callable[[Any], None], what: Any) -> None:
            self._to_score.popleft()
            if self._to_score:
                self._score()
            show(what)

        self.thread_.submit(lambda: evaluation_command(run), ask, lambda error: done(tell, error))

    def _on_export(self, run: Run) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "A new folder for the model and its card", run.info.title)
        if path:
            self.export(run, path)

    def export(self, run: Run, folder: str) -> None:
        """Write a run's model with its card into a new folder."""
        done = f"“{run.info.title}” and its card are in {folder}"
        self.thread_.submit(lambda: export(run, folder), lambda _: show_info(done), tell)

    def delete(self, runs: list[Run]) -> None:
        """Delete runs, once the user has agreed."""
        titles = ", ".join(run.info.title for run in runs)
        if not runs or not self.confirm(f"Delete {titles}, with models, checkpoints and data made for them?"):
            return
        for run in runs:
            self._check_unused(run)
            delete_run(run)
            if self.view.run == run:
                self.view.show_run(None)
        self.runs.update_view()

    def _check_unused(self, run: Run) -> None:
        panel = find_panel(self._viewer, _SEGMENT_PANEL)
        if panel is not None and Path(panel.model_box.name).is_relative_to(run.folder):
            why, fix = f"the panel {_SEGMENT_PANEL} uses its model", "Choose another model there first"
            raise WriteError(f"{run.info.title} cannot be deleted", why, fix)

    # Small things ---------------------------------------------------------------------------------------------------

    def _confirm(self, question: str) -> bool:
        return QMessageBox.question(self, "Train", question) == QMessageBox.StandardButton.Yes

    def showEvent(self, event: QShowEvent | None) -> None:
        """Have the user asked before the window closes over a running training."""
        super().showEvent(event)
        if self.is_second:
            return
        window = main_window(self)
        if window is not self:
            CloseGuard.of(window)
        self.new.data.look()

    def end(self) -> None:
        """Let go of what only this panel wanted; runs go on."""
        self.score_question.drop()
        self.reader_.stop(0.0)
        self.new.close_draft()
