"""A new run: choose what to learn from and how, check what it will be like, start it or write it for elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_info
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QGroupBox, QVBoxLayout, QWidget

from napari_uniultra.core.settings import read_file, write_file
from napari_uniultra.errors import UniUltraError
from napari_uniultra.runner import launch
from napari_uniultra.runner.data import MadeData, make_data
from napari_uniultra.runner.registry import new_run, remove_draft
from napari_uniultra.runner.remote import write_remote
from napari_uniultra.runner.run import CONFIG, DATA, DISTIL, FINE_TUNE, KINDS, Run, RunInfo
from napari_uniultra.widgets.parts import push_button, row_of, scrolling, settle, tell, try_or_tell, with_path
from napari_uniultra.widgets.process import Question, uniultra
from napari_uniultra.widgets.train_data import MANIFEST, DataChooser
from napari_uniultra.widgets.train_plan import PlanView
from napari_uniultra.widgets.train_settings import SettingsChooser
from napari_uniultra.widgets.worker import InferenceThread

_CLOSE_S = 5.0
_FILES = "Training settings (*.yaml *.yml)"
_CHECK_FIRST = "Check shows what the training will learn from, how long it takes, and what speaks against it."


class NewRun(QWidget):
    """Makes runs. What was checked lies in a draft until it is started, changed, or the panel goes.

    Parameters
    ----------
    viewer : napari.Viewer
    thread : InferenceThread
        Where files are read and written.
    """

    started = Signal(object)  # Run, also one that was written for another computer

    def __init__(self, viewer: Any, thread: InferenceThread) -> None:
        super().__init__()
        self._thread = thread
        self.draft: Run | None = None
        self._is_checked = False
        self.plan_question = Question(self)
        self.data = DataChooser(viewer, thread)
        self.settings, self.plan = SettingsChooser(), PlanView()
        self.load_button = push_button("Open settings…", "Fill the form in from a file of `uniultra train`")
        self.save_button = push_button("Save settings…", "Write the file that `uniultra train` reads")
        self.check_button = push_button("Check", _CHECK_FIRST)
        self.start_button = push_button("Start", "Train, in a process of its own. Check first.")
        self.remote_button = push_button("For another computer…", "Write a folder to train with on another computer")
        self._build()
        self._connect()
        self._set_checked(False)

    def _build(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        for words, part in (("Learn from", self.data), ("Training", self.settings), ("Before the start", self.plan)):
            group = QGroupBox(words)
            QVBoxLayout(group).addWidget(part)
            column.addWidget(group)
        column.addWidget(self.remote_button)
        column.addLayout(row_of(self.load_button, self.save_button))
        column.addStretch(1)
        self._new_scroll = scrolling(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 4)
        outer.addWidget(self._new_scroll)
        outer.addLayout(row_of(self.check_button, self.start_button))

    def _connect(self) -> None:
        self.data.changed.connect(lambda: self._set_checked(False))
        self.settings.changed.connect(lambda: self._set_checked(False))
        self.check_button.clicked.connect(self.check)
        self.start_button.clicked.connect(self.start)
        self.remote_button.clicked.connect(self._on_remote)
        opens, saves, title = QFileDialog.getOpenFileName, QFileDialog.getSaveFileName, "Training settings"
        self.load_button.clicked.connect(lambda: with_path(opens, self, title, _FILES, self.load))
        self.save_button.clicked.connect(lambda: with_path(saves, self, title, _FILES, self.save))

    # Settings files -------------------------------------------------------------------------------------------------

    def load(self, path: str) -> None:
        """Fill the form in from a settings file."""

        def read() -> None:
            kind = DISTIL if "teacher:" in Path(path).read_text(encoding="utf-8", errors="replace") else FINE_TUNE
            self.show_settings(kind, read_file(KINDS[kind], path), Path(path).stem)

        try_or_tell(read)

    def save(self, path: str) -> None:
        """Write the settings as a file for the shell; results go beside it."""

        def write() -> None:
            target = Path(path)
            output = target.with_suffix("")
            named = [path for path in self.data.choice().manifests if path]
            write_file(self.settings.settings(str(output), *(named or [str(output / "manifest.csv")])), target)

        try_or_tell(write)

    def show_settings(self, kind: str, config: Any, title: str) -> None:
        """Fill everything in from a run's settings."""
        self.settings.show_settings(kind, config, title)
        self.data.choose_source(MANIFEST)
        self.data.set_path("; ".join(config.data.manifests))

    # Before the start -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Make the data set, try a few steps in a process of their own, and show what the run will be like."""
        self.drop_draft()
        try:
            self.draft = draft = new_run(
                RunInfo(self.settings.name, self.settings.kind, processes=self.settings.cards.value())
            )
            config = self.settings.settings(str(draft.folder), "")
        except UniUltraError as error:
            self.drop_draft()
            tell(error)
            return
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

        self._thread.submit(
            work, lambda made: self._on_data(draft, made), lambda error: self._on_bad(draft, str(error))
        )

    def _on_data(self, draft: Run, made: MadeData) -> None:
        if draft != self.draft:
            return
        self._say("Trying a few steps to see how long they take…", made.warnings)
        command = uniultra(draft.info.kind, str(draft.folder / CONFIG), "--dry-run", "--json")
        self.plan_question.ask(
            command,
            lambda text: self._on_plan(draft, made, text),
            lambda words: self._on_bad(draft, words),
        )

    def _on_plan(self, draft: Run, made: MadeData, text: str) -> None:
        if draft != self.draft:
            return
        plan = json.loads(text.strip().splitlines()[-1])
        self.settings.offer_cards(plan["gpus"])
        self.plan.show_plan(plan, made.warnings)
        self._show_plan()
        self._set_checked(True)

    def _on_bad(self, draft: Run, words: str) -> None:
        if draft == self.draft:
            self._set_checked(False)
            self._say("This cannot be trained yet:", (words,))

    def _say(self, words: str, warnings: tuple[str, ...] = ()) -> None:
        """Tell of the check, where it is seen."""
        self.plan.say(words, warnings)
        self._show_plan()

    def _show_plan(self) -> None:
        settle(self.plan)
        bar = self._new_scroll.verticalScrollBar()
        bar.setValue(bar.maximum())

    def _set_checked(self, is_checked: bool) -> None:
        """Whether what is chosen was looked at; any change of it takes that back."""
        self._is_checked = is_checked
        self.start_button.setEnabled(is_checked)
        self.remote_button.setEnabled(is_checked)
        self.check_button.setEnabled(True)
        if not is_checked:
            self.drop_draft()
            self.plan.say(_CHECK_FIRST)

    def drop_draft(self) -> None:
        """Let go of what was checked."""
        self.plan_question.drop()
        draft, self.draft = self.draft, None
        if draft is not None:  # in the thread, which may still write into it
            self._thread.submit(lambda: remove_draft(draft), lambda _: None, tell)

    def close_draft(self) -> None:
        """Let go of what was checked, at once: the panel goes. What is still being written goes at a later start."""
        self.plan_question.drop()
        draft, self.draft = self.draft, None
        if self._thread.stop(_CLOSE_S) and draft is not None:
            remove_draft(draft)

    # The start --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start what was checked; it waits for its turn where another run trains."""
        draft = self.draft
        if draft is not None and self._is_checked and try_or_tell(lambda: launch.start(draft)):
            self.draft = None
            self._set_checked(False)
            self.started.emit(draft)

    def _on_remote(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "A new folder for the other computer", self.settings.name)
        if path:
            self.write_remote(path)

    def write_remote(self, folder: str) -> None:
        """Write what was checked as a folder for another computer, and watch its events."""
        draft = self.draft
        if draft is None or not self._is_checked:
            return

        def done(written: tuple[Run, tuple[str, ...]]) -> None:
            run, warnings = written
            show_info(" ".join([f"The folder is written; {run.folder / 'README.txt'} says how to go on.", *warnings]))
            self.started.emit(run)

        self._thread.submit(lambda: write_remote(draft, folder), done, tell)
