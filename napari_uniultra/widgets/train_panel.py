"""The panel "Train": fine-tune or distil a model on what was corrected, watch it, and use what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_info
from qtpy.QtCore import Qt, QTimer, QUrl
from qtpy.QtGui import QDesktopServices, QShowEvent
from qtpy.QtWidgets import (
    QDockWidget,
    QFileDialog,
    QFrame,
    QGroupBox,
    QMessageBox,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.core.settings import read_file, write_file
from napari_uniultra.errors import UniUltraError
from napari_uniultra.runner import launch
from napari_uniultra.runner.data import MadeData, make_data
from napari_uniultra.runner.product import evaluation_command, export, report_of, snapshot
from napari_uniultra.runner.registry import add_folder, delete_run, list_runs, new_run, remove_drafts
from napari_uniultra.runner.remote import write_remote
from napari_uniultra.runner.run import CONFIG, DATA, DISTIL, FINE_TUNE, KINDS, Run, RunInfo, State
from napari_uniultra.widgets.parts import push_button, row_of, tell
from napari_uniultra.widgets.process import Question, uniultra
from napari_uniultra.widgets.train_close import CloseGuard
from napari_uniultra.widgets.train_data import MANIFEST, DataChooser
from napari_uniultra.widgets.train_plan import PlanView
from napari_uniultra.widgets.train_progress import RunView
from napari_uniultra.widgets.train_runs import RunList
from napari_uniultra.widgets.train_settings import SettingsChooser
from napari_uniultra.widgets.worker import InferenceThread

_POLL_MS, _SETTLE_MS = 1000, 100
_PLUGIN, _SEGMENT_PANEL = "napari-uniultra", "Segment loop"
_FILES = "Training settings (*.yaml *.yml)"
_CHECK_FIRST = "Check shows what the training will learn from, how long it takes, and what speaks against it."


class TrainPanel(QWidget):
    """Trains models.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._draft: Run | None = None
        self._is_checked = self._has_place = False
        self.confirm: Callable[[str], bool] = self._confirm
        self.open_report: Callable[[Path], None] = lambda path: QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))
        self.thread_ = InferenceThread()
        self.plan_question, self.score_question = Question(self), Question(self)
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
        self.data = DataChooser(self._viewer, self.thread_)
        self.settings = SettingsChooser()
        self.plan = PlanView()
        self.view, self.runs = RunView(), RunList()
        self.load_button = push_button("Open settings…", "Fill the form in from a file of `uniultra train`")
        self.save_button = push_button("Save settings…", "Write the file that `uniultra train` reads")
        self.check_button = push_button("Check", _CHECK_FIRST)
        self.start_button = push_button("Start", "Train, in a process of its own. Check first.")
        self.remote_button = push_button("For another computer…", "Write a folder to train with on another computer")
        self.tabs = QTabWidget()
        self.tabs.addTab(self._build_new(), "New")
        self.tabs.addTab(_scrolling(self.view), "Progress")
        self.tabs.addTab(_scrolling(self.runs), "Runs")
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.addWidget(self.tabs)
        self.setMinimumWidth(340)
        self._set_checked(False)

    def _build_new(self) -> QWidget:
        content, page = QWidget(), QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        for words, part in (("Learn from", self.data), ("Training", self.settings), ("Before the start", self.plan)):
            group = QGroupBox(words)
            QVBoxLayout(group).addWidget(part)
            column.addWidget(group)
        column.addWidget(self.remote_button)
        column.addLayout(row_of(self.load_button, self.save_button))
        column.addStretch(1)
        self._new_scroll = _scrolling(content)
        outer = QVBoxLayout(page)
        outer.setContentsMargins(0, 0, 0, 4)
        outer.addWidget(self._new_scroll)
        outer.addLayout(row_of(self.check_button, self.start_button))
        return page

    def _connect(self) -> None:
        self.data.changed.connect(lambda: self._set_checked(False))
        self.settings.changed.connect(lambda: self._set_checked(False))
        self.check_button.clicked.connect(self.check)
        self.start_button.clicked.connect(self.start)
        self.remote_button.clicked.connect(self._on_remote)
        self.load_button.clicked.connect(lambda: self._with_path(QFileDialog.getOpenFileName, _FILES, self.load))
        self.save_button.clicked.connect(lambda: self._with_path(QFileDialog.getSaveFileName, _FILES, self.save))
        self.view.stop_asked.connect(lambda: self._try(self._stop))
        self.view.resume_asked.connect(lambda: self._try(lambda: self.resume(self.view.run)))
        self.view.use_asked.connect(lambda: self._try(lambda: self.use(self.view.run)))
        self.runs.asked.connect(self._on_asked)
        self.destroyed.connect(lambda: self.thread_.stop(0.0))

    # Settings files -------------------------------------------------------------------------------------------------

    def load(self, path: str) -> None:
        """Fill the form in from a settings file."""

        def read() -> None:
            kind = DISTIL if "teacher:" in Path(path).read_text(encoding="utf-8", errors="replace") else FINE_TUNE
            self._show_settings(kind, read_file(KINDS[kind], path), Path(path).stem)

        self._try(read)

    def save(self, path: str) -> None:
        """Write the settings as a file for the shell; results go beside it."""

        def write() -> None:
            target = Path(path)
            manifest = next(iter(self.data.choice().manifests), None) or str(target.with_suffix("") / "manifest.csv")
            write_file(self.settings.settings(str(target.with_suffix("")), manifest), target)

        self._try(write)

    def _show_settings(self, kind: str, config: Any, title: str) -> None:
        self.settings.show_settings(kind, config, title)
        self.data.choose_source(MANIFEST)
        self.data.set_path("; ".join(config.data.manifests))
        self.tabs.setCurrentIndex(0)

    # Before the start -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Make the data set, try a few steps in a process of their own, and show what the run will be like."""
        self._drop_draft()
        try:
            info = RunInfo(self.settings.name, self.settings.kind, processes=self.settings.cards.value())
            draft = new_run(info)
            config = self.settings.settings(str(draft.folder), "")
        except UniUltraError as error:
            remove_drafts(mine=True)
            tell(error)
            return
        self._draft = draft
        choice, between = self.data.choice(), config.data.clip_share > 0
        self.check_button.setEnabled(False)
        self._say("Preparing the data…")

        def work() -> MadeData:
            made = make_data(choice, draft.folder / DATA, between)
            write_file(
                replace(config, data=replace(config.data, manifests=(str(made.manifest),))), draft.folder / CONFIG
            )
            draft.write_info(replace(draft.info, warnings=made.warnings))
            return made

        self.thread_.submit(
            work, lambda made: self._on_data(draft, made), lambda error: self._on_bad(draft, str(error))
        )

    def _on_data(self, draft: Run, made: MadeData) -> None:
        if draft != self._draft:
            return
        self._say("Trying a few steps to see how long they take…", made.warnings)
        command = uniultra(draft.info.kind, str(draft.folder / CONFIG), "--dry-run", "--json")
        self.plan_question.ask(
            command,
            lambda text: self._on_plan(draft, made, text),
            lambda words: self._on_bad(draft, words),
        )

    def _on_plan(self, draft: Run, made: MadeData, text: str) -> None:
        if draft != self._draft:
            return
        plan = json.loads(text.strip().splitlines()[-1])
        self.settings.offer_cards(plan["gpus"])
        self.plan.show_plan(plan, made.warnings)
        QTimer.singleShot(_SETTLE_MS, self._show_plan)
        self._set_checked(True)

    def _on_bad(self, draft: Run, words: str) -> None:
        if draft == self._draft:
            self._set_checked(False)
            self._say("This cannot be trained yet:", (words,))

    def _say(self, words: str, warnings: tuple[str, ...] = ()) -> None:
        """Tell of the check, where it is seen."""
        self.plan.say(words, warnings)
        QTimer.singleShot(_SETTLE_MS, self._show_plan)

    def _show_plan(self) -> None:
        bar = self._new_scroll.verticalScrollBar()
        bar.setValue(bar.maximum())

    def _set_checked(self, is_checked: bool) -> None:
        """Whether what is chosen was looked at; any change of it takes that back."""
        self._is_checked = is_checked
        self.start_button.setEnabled(is_checked)
        self.remote_button.setEnabled(is_checked)
        self.check_button.setEnabled(True)
        if not is_checked:
            self._drop_draft()
            self.plan.say(_CHECK_FIRST)

    def _drop_draft(self) -> None:
        self.plan_question.drop()
        if self._draft is not None:
            self._draft = None
            self.thread_.submit(lambda: remove_drafts(mine=True), lambda _: None, tell)

    # Running --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start what was checked; it waits for its turn where another run trains."""
        draft = self._draft
        if draft is not None and self._is_checked and self._try(lambda: launch.start(draft)):
            self._draft = None
            self._set_checked(False)
            self.watch(draft)

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
        if run.status().state is not State.STOPPING:
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
                self._try(lambda: self.watch(add_folder(folder)))
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
            self._try(lambda: self.delete(runs))
        elif len(runs) == 1:
            self._try(lambda: does[action](runs[0]))

    def duplicate(self, run: Run) -> None:
        """Fill the form in with a run's settings and data."""
        self._show_settings(run.info.kind, run.config(), f"{run.info.title} again")

    def use(self, run: Run) -> None:
        """Put a run's model into the segment panel."""
        path = snapshot(run)
        dock, panel = self._viewer.window.add_plugin_dock_widget(_PLUGIN, _SEGMENT_PANEL)
        dock.raise_()
        panel.add_model_file(str(path))
        show_info(f"“{run.info.title}” is the model of the panel {_SEGMENT_PANEL} now")

    def evaluate(self, run: Run) -> None:
        """Score a run's model on what it did not learn from, and open the report."""
        show_info(f"“{run.info.title}” is being scored; the report opens when it is done")

        def ask(command: list[str]) -> None:
            self.score_question.ask(command, lambda _: self.open_report(report_of(run)), tell_words)

        self.thread_.submit(lambda: evaluation_command(run), ask, tell)

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
            delete_run(run)
            if self.view.run == run:
                self.view.show_run(None)
        self.runs.update_view()

    def _on_remote(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "A new folder for the other computer", self.settings.name)
        if path:
            self.write_remote(path)

    def write_remote(self, folder: str) -> None:
        """Write what was checked as a folder for another computer, and watch its events."""
        draft = self._draft
        if draft is None or not self._is_checked:
            return

        def done(written: tuple[Run, tuple[str, ...]]) -> None:
            run, warnings = written
            show_info(" ".join([f"The folder is written; {run.folder / 'README.txt'} says how to go on.", *warnings]))
            self.watch(run)

        self.thread_.submit(lambda: write_remote(draft, folder), done, tell)

    # Small things ---------------------------------------------------------------------------------------------------

    def _with_path(self, dialog: Callable[..., Any], kinds: str, work: Callable[[str], None]) -> None:
        path, _ = dialog(self, "Training settings", "", kinds)
        if path:
            work(path)

    def _try(self, work: Callable[[], Any]) -> bool:
        try:
            work()
        except (UniUltraError, OSError) as error:
            tell(error)
            return False
        return True

    def _confirm(self, question: str) -> bool:
        return QMessageBox.question(self, "Train", question) == QMessageBox.StandardButton.Yes

    def showEvent(self, event: QShowEvent | None) -> None:
        """Watch the window that the panel is in, to ask before it closes over a running training."""
        super().showEvent(event)
        if self.window() is not self:
            CloseGuard.of(self.window())
            QTimer.singleShot(0, self._share_the_side)
        self.data.look()

    def _share_the_side(self) -> None:
        """The first time, lie behind a tab where there are other panels: stacked, both would be too low to use."""
        window, own = self.window(), _dock_of(self)
        if self._has_place or own is None or own.isFloating():
            return
        self._has_place = True
        area = window.dockWidgetArea(own)
        docks = [dock for dock in window.findChildren(QDockWidget) if dock is not own and dock.isVisible()]
        other = next((dock for dock in docks if window.dockWidgetArea(dock) == area and not dock.isFloating()), None)
        if other is not None:
            window.tabifyDockWidget(other, own)
            own.raise_()

    def closeEvent(self, event: Any) -> None:
        """Let go of what only this panel wanted; runs go on."""
        self._drop_draft()
        self.score_question.drop()
        super().closeEvent(event)


def _dock_of(widget: QWidget) -> QDockWidget | None:
    """The dock that a widget lies in."""
    while widget is not None and not isinstance(widget, QDockWidget):
        widget = widget.parentWidget()
    return widget


def tell_words(words: str) -> None:
    """Show what a program said."""
    tell(UniUltraError(words))


def _scrolling(content: QWidget) -> QScrollArea:
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setFrameShape(QFrame.Shape.NoFrame)
    scroll.setWidget(content)
    return scroll
