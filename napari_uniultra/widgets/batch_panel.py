"""The panel "Batch": fill in a job, save it as the file that `uniultra batch` reads, run it, look at the results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QProcess
from qtpy.QtWidgets import (
    QFileDialog,
    QFrame,
    QGroupBox,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.batch.corrections import work_file
from napari_uniultra.batch.results import ranked_records
from napari_uniultra.batch.run import JOB
from napari_uniultra.batch.settings import JobSettings, check_job, read_job, with_absolute_paths, write_job
from napari_uniultra.batch.task import LoopTask
from napari_uniultra.errors import UniUltraError
from napari_uniultra.plugin.session_host import autosave_folder
from napari_uniultra.widgets.batch_open import open_loop
from napari_uniultra.widgets.parts import push_button, row_of, tell
from napari_uniultra.widgets.settings_form import SettingsForm

_FILES = "Batch jobs (*.yaml *.yml)"
_TITLES = {
    "start": "Where loops start from",
    "post": "Tidy masks",
    "inputs": "Loops",
    "objects": "Names of objects",
    "outputs": "Results",
    "workers": "Workers",
    "workers.slurm": "Slurm",
}
_STOP_MS = 10_000


class BatchPanel(QWidget):
    """Labels folders of loops.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._opened: LoopTask | None = None
        self._process: QProcess | None = None
        self._rest = ""
        self._build()
        self._refresh()

    # Building -------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.form = SettingsForm(JobSettings, _TITLES)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(self.form)
        self.load_button = push_button("Open job…", "Fill the form in from a job file")
        self.save_button = push_button("Save job…", "Write the job as the file that `uniultra batch` reads")
        self.run_button = push_button("Run", "Label all loops that are not done yet")
        self.stop_button = push_button("Stop", "Stop; loops that are finished stay")
        self.progress = QProgressBar()
        self.status = QLabel()
        self.status.setWordWrap(True)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.addLayout(row_of(self.load_button, self.save_button))
        outer.addWidget(scroll, 1)
        outer.addLayout(row_of(self.run_button, self.stop_button))
        outer.addWidget(self.progress)
        outer.addWidget(self.status)
        outer.addWidget(self._build_results())
        self.setMinimumWidth(320)
        self.load_button.clicked.connect(lambda: self._with_file(QFileDialog.getOpenFileName, self.load))
        self.save_button.clicked.connect(lambda: self._with_file(QFileDialog.getSaveFileName, self.save))
        self.run_button.clicked.connect(self.run)
        self.stop_button.clicked.connect(self.stop)

    def _build_results(self) -> QWidget:
        self.results = QListWidget()
        self.results.setMaximumHeight(140)
        self.results.setToolTip("Loops that are done; those that most need a look come first")
        self.open_button = push_button("Correct", "Open the loop with its marks and masks")
        self.take_button = push_button("Take back", "Put your corrections of the opened loop into the results")
        self.open_button.clicked.connect(self.open_result)
        self.take_button.clicked.connect(self.take_back)
        group = QGroupBox("Results")
        column = QVBoxLayout(group)
        column.addWidget(self.results)
        column.addLayout(row_of(self.open_button, self.take_button))
        return group

    def _with_file(self, ask: Callable[..., Any], use: Callable[[str], None]) -> None:
        path, _ = ask(self, "Batch job", "", _FILES)
        if path:
            use(path)

    # The job --------------------------------------------------------------------------------------------------------

    def load(self, path: str) -> None:
        """Fill the form in from a job file."""
        try:
            self.form.show_settings(with_absolute_paths(read_job(path)))
        except UniUltraError as error:
            tell(error)
        self._refresh()

    def save(self, path: str) -> None:
        """Write the form as a job file."""
        job = self._job()
        if job is not None:
            self._try(lambda: write_job(path, job))

    def _job(self) -> JobSettings | None:
        """What the form says, or None after the user was told what is wrong with it."""
        try:
            job = with_absolute_paths(self.form.settings())
            check_job(job)
        except UniUltraError as error:
            tell(error)
            return None
        return job

    @staticmethod
    def _try(work: Callable[[], Any]) -> bool:
        try:
            work()
        except UniUltraError as error:
            tell(error)
            return False
        return True

    # Running --------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a job, or taking a correction back, is under way."""
        return self._process is not None

    def run(self) -> None:
        """Save the job into its folder of results and run it as a process of its own."""
        job = self._job()
        if job is None or self.running:
            return
        file = job.folder / JOB
        if self._try(lambda: write_job(file, job)):
            self.status.setText("Starting…")
            self._start([str(file), "--json"])

    def stop(self) -> None:
        """End the process; what is finished stays."""
        if self._process is not None:
            self._process.terminate()

    def _start(self, arguments: list[str]) -> None:
        process = QProcess(self)
        process.setProcessChannelMode(QProcess.ProcessChannelMode.SeparateChannels)
        process.readyReadStandardOutput.connect(self._on_output)
        process.finished.connect(self._on_finished)
        self._process, self._rest = process, ""
        process.start(sys.executable, ["-m", "napari_uniultra.cli", "batch", *arguments])
        self._refresh()

    def _on_output(self) -> None:
        if self._process is None:
            return
        text = self._rest + bytes(self._process.readAllStandardOutput()).decode("utf-8", "replace")
        *lines, self._rest = text.split("\n")
        for line in lines:
            if line.startswith("{"):
                self._on_event(json.loads(line))

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "start":
            self.progress.setRange(0, max(1, event["loops"]))
        elif event["event"] == "loop":
            now = event["progress"]
            self.progress.setValue(now["done"] + now["unchanged"] + now["failed"])
            left = "" if now["seconds_left"] is None else f", {now['seconds_left'] / 60:.0f} min left"
            self.status.setText(f"{now['frames_per_s']:.1f} frames/s{left}, {now['failed']} failed")
        elif event["event"] == "end":
            words = f"{event['done']} done, {event['unchanged']} unchanged, {event['failed']} failed"
            self.status.setText(words)

    def _on_finished(self, code: int, *_: Any) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        said = bytes(process.readAllStandardError()).decode("utf-8", "replace").strip().splitlines()
        process.deleteLater()
        if code not in (0, 9) and said:
            show_warning(said[-1])
        self._refresh()

    # Results --------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        self.run_button.setEnabled(not self.running)
        self.stop_button.setEnabled(self.running)
        self.take_button.setEnabled(self._opened is not None and not self.running)
        folder = self.form.controls["outputs.folder"].text()
        self.results.clear()
        for record in ranked_records(Path(folder)) if folder else ():
            signs = "; ".join(record["review"]["signs"])
            entry = QListWidgetItem(f"{record['name']}  ({record['review']['rank']:.2f})", self.results)
            entry.setToolTip(signs or "Nothing stands out")
            entry.setData(256, record["name"])
        self.open_button.setEnabled(self.results.count() > 0)

    def open_result(self) -> None:
        """Open the chosen loop in the segment panel, with its session."""
        entry, job = self.results.currentItem(), self._job()
        if entry is None or job is None:
            return
        try:
            self._opened = open_loop(self._viewer, job, entry.data(256))
        except UniUltraError as error:
            tell(error)
        self._refresh()

    def take_back(self) -> None:
        """Put the work on the opened loop into the results."""
        if self._opened is None or self.running:
            return
        work = work_file(self._opened, autosave_folder())
        self._start([str(self._opened.folder / JOB), "--take-in", self._opened.name, str(work)])
        show_info(f"Your corrections of {self._opened.name} go into the results")

    def closeEvent(self, event: Any) -> None:
        """End what runs with the panel."""
        if self._process is not None:
            self._process.kill()
            self._process.waitForFinished(_STOP_MS)
        super().closeEvent(event)
