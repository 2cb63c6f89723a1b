"""The panel "Batch": fill in a job, save it as the file that `uniultra batch` reads, run it, look at the results."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QProcess, Qt, QTemporaryDir, QTimer
from qtpy.QtWidgets import (
    QFileDialog,
    QGroupBox,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.batch.corrections import work_file
from napari_uniultra.batch.results import ranked_records
from napari_uniultra.batch.run import JOB
from napari_uniultra.batch.settings import JobSettings, check_job, read_job, with_absolute_paths, write_job
from napari_uniultra.batch.task import LoopTask
from napari_uniultra.cli.exit_codes import INTERRUPTED, OK, SOME_FAILED
from napari_uniultra.core.stop_file import STOP
from napari_uniultra.errors import UniUltraError
from napari_uniultra.segment.autosave import autosave_folder
from napari_uniultra.widgets.batch_open import open_loop
from napari_uniultra.widgets.docks import DockPanel, find_panel, open_panel
from napari_uniultra.widgets.parts import push_button, row_of, scrolling, tell, try_or_tell, with_path
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
_TAKE_BACK = "Put your corrections of the loop in use into the results"
_STOP_MS = 60_000  # to finish the tables and the report after Stop
_CLOSE_MS = 5_000
_SUMMED_UP = "Stopped; what is finished is in the results"
_CUT_OFF = (
    "Ended before what is finished was summed up: tables and report are of an earlier time. What was finished stays. "
    "Run does the rest and sums up"
)
_CRASHED = (
    "The batch was ended from outside, often because memory ran out. What was finished stays. Run does the rest; "
    "fewer workers take less memory"
)


class BatchPanel(DockPanel):
    """Labels folders of loops.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        if self.is_second:
            return
        self._opened: dict[Any, tuple[LoopTask, JobSettings]] = {}  # by their image layers
        self._followed: Any = None  # the segment panel, which tells when another loop is in use
        self._place = QTemporaryDir()  # of the job file; the run keeps a copy with the results where that is wanted
        self._process: QProcess | None = None
        self._stop_file: Path | None = None  # that stops the job; taking a correction back is soon over
        self._rest = ""
        self._is_stopping = False
        self._grace = QTimer(self)
        self._grace.setSingleShot(True)
        self._grace.timeout.connect(self._on_grace_over)
        self._build()
        self._refresh()

    # Building -------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.form = SettingsForm(JobSettings, _TITLES)
        self.files_button = push_button("Add files…", "Add loops, or images that are frames of one")
        self.folder_button = push_button("Add folder…", "Add a folder with all loops in it")
        self.form.add_below("inputs.loops", self.files_button, self.folder_button)
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
        outer.addWidget(scrolling(self.form), 1)
        outer.addLayout(row_of(self.run_button, self.stop_button))
        outer.addWidget(self.progress)
        outer.addWidget(self.status)
        outer.addWidget(self._build_results())
        self.setMinimumWidth(320)
        opens, saves, title = QFileDialog.getOpenFileName, QFileDialog.getSaveFileName, "Batch job"
        self.files_button.clicked.connect(lambda: self.add_loops(QFileDialog.getOpenFileNames(self, "Loops")[0]))
        self.folder_button.clicked.connect(
            lambda: self.add_loops([QFileDialog.getExistingDirectory(self, "A folder of loops")])
        )
        self.load_button.clicked.connect(lambda: with_path(opens, self, title, _FILES, self.load))
        self.save_button.clicked.connect(lambda: with_path(saves, self, title, _FILES, self.save))
        self.run_button.clicked.connect(self.run)
        self.stop_button.clicked.connect(self.stop)

    def _build_results(self) -> QWidget:
        self.results = QListWidget()
        self.results.setMaximumHeight(140)
        self.results.setToolTip("Loops that are done; those that most need a look come first")
        self.open_button = push_button("Correct", "Open the loop with its marks and masks")
        self.take_button = push_button("Take back", _TAKE_BACK)
        self.open_button.clicked.connect(self.open_result)
        self.take_button.clicked.connect(self.take_back)
        group = QGroupBox("Results")
        column = QVBoxLayout(group)
        column.addWidget(self.results)
        column.addLayout(row_of(self.open_button, self.take_button))
        return group

    # The job --------------------------------------------------------------------------------------------------------

    def load(self, path: str) -> None:
        """Fill the form in from a job file."""
        try_or_tell(lambda: self.form.show_settings(with_absolute_paths(read_job(path))))
        self._refresh()

    def add_loops(self, paths: list[str]) -> None:
        """Name further files or folders as the loops to label."""
        field = self.form.controls["inputs.loops"]
        known = field.toPlainText().splitlines()
        field.setPlainText("\n".join(filter(None, dict.fromkeys([*known, *paths]))))

    def save(self, path: str) -> None:
        """Write the form as a job file."""
        job = self._job()
        if job is not None:
            try_or_tell(lambda: write_job(path, job))

    def _job(self) -> JobSettings | None:
        """What the form says, or None after the user was told what is wrong with it."""
        try:
            job = with_absolute_paths(self.form.settings())
            check_job(job)
        except UniUltraError as error:
            tell(error)
            return None
        return job

    # Running --------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a job, or taking a correction back, is under way."""
        return self._process is not None

    def run(self) -> None:
        """Run the job as a process of its own."""
        job = self._job()
        if job is None or self.running:
            return
        stop_file = job.folder / STOP
        with suppress(OSError):  # one that came too late for an earlier run
            stop_file.unlink(missing_ok=True)
        if self._start(job, "--json"):
            self._stop_file = stop_file
            self.status.setText("Starting…")
            self._refresh()

    def stop(self) -> None:
        """Ask the process to end, as Ctrl-C does: it sums up what is finished. One that takes too long is ended."""
        if self._stop_file is None:
            return
        self._is_stopping = True
        self.stop_button.setEnabled(False)
        self.status.setText("Stopping: what is finished is summed up…")
        self._ask_to_stop(self._stop_file)
        self._grace.start(_STOP_MS)

    def _ask_to_stop(self, file: Path) -> None:
        with suppress(OSError):  # the process cannot write there either: it will find out, or is ended
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()

    def _on_grace_over(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _start(self, job: JobSettings, *options: str) -> bool:
        file = Path(self._place.path()) / JOB
        if not try_or_tell(lambda: write_job(file, job)):
            return False
        process = QProcess(self)
        process.setProcessChannelMode(QProcess.ProcessChannelMode.SeparateChannels)
        process.readyReadStandardOutput.connect(self._on_output)
        process.finished.connect(self._on_finished)
        self._process, self._rest, self._is_stopping = process, "", False
        process.start(sys.executable, ["-m", "napari_uniultra.cli", "batch", str(file), *options])
        self._refresh()
        return True

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

    def _on_finished(self, code: int, how: QProcess.ExitStatus) -> None:
        process, self._process = self._process, None
        self._stop_file = None
        self._grace.stop()
        if process is None:
            return
        said = bytes(process.readAllStandardError()).decode("utf-8", "replace").strip().splitlines()
        process.deleteLater()
        has_crashed = how == QProcess.ExitStatus.CrashExit  # its code is then the signal's number, such as 9
        if has_crashed:
            words = _CUT_OFF if self._is_stopping else _CRASHED
            self.status.setText(words)
            show_warning(words)
        elif code == INTERRUPTED:
            self.status.setText(_SUMMED_UP)
        elif code not in (OK, SOME_FAILED) and said:
            show_warning(said[-1])
        self._refresh()

    # Results --------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        self.run_button.setEnabled(not self.running)
        self.stop_button.setEnabled(self._stop_file is not None)
        self._show_taken()
        folder = self.form.controls["outputs.folder"].text()
        self.results.clear()
        for record in ranked_records(Path(folder)) if folder else ():
            signs = "; ".join(record["review"]["signs"])
            entry = QListWidgetItem(f"{record['name']}  ({record['review']['rank']:.2f})", self.results)
            entry.setToolTip(signs or "Nothing stands out")
            entry.setData(Qt.ItemDataRole.UserRole, record["name"])
        self.open_button.setEnabled(self.results.count() > 0)

    def open_result(self) -> None:
        """Open the chosen loop in the segment panel, with its session."""
        entry, job = self.results.currentItem(), self._job()
        if entry is None or job is None:
            return
        name = entry.data(Qt.ItemDataRole.UserRole)
        try:
            self._show_loop(job, name)
        except UniUltraError as error:
            tell(error)
        self._refresh()

    def _show_loop(self, job: JobSettings, name: str) -> None:
        """Turn to the layer of a loop that is open, or open it. Raises what `open_loop` raises."""
        self._opened = {layer: own for layer, own in self._opened.items() if layer in self._viewer.layers}
        wanted = name, job.outputs.folder
        known = (layer for layer, (task, own) in self._opened.items() if (task.name, own.outputs.folder) == wanted)
        layer = next(known, None)
        if layer is None:
            task, layer = open_loop(self._viewer, job, name)
            self._opened[layer] = task, job
        segment = open_panel(self._viewer, "Segment loop")
        segment.choose_image(layer)
        if segment != self._followed:
            self._followed = segment
            segment.controller.changed.connect(self._show_taken)

    @property
    def _in_use(self) -> tuple[LoopTask, JobSettings] | None:
        """What was opened of a job, where it is the loop in use."""
        segment = find_panel(self._viewer, "Segment loop")
        return None if segment is None else self._opened.get(segment.controller.image)

    def _show_taken(self) -> None:
        """Say of which loop the corrections would be taken back."""
        opened = self._in_use
        self.take_button.setEnabled(opened is not None and not self.running)
        self.take_button.setToolTip(_TAKE_BACK if opened is None else f"{_TAKE_BACK}: {opened[0].name}")

    def take_back(self) -> None:
        """Put the work on the loop in use into the results."""
        opened = self._in_use
        if opened is None or self.running:
            return
        task, job = opened
        if self._start(job, "--take-in", task.name, str(work_file(task, autosave_folder()))):
            show_info(f"Your corrections of {task.name} go into the results")

    # The end --------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End the job, and wait until it has summed up what is finished; one that takes too long is ended."""
        process = self._process
        if process is not None:
            if self._stop_file is not None:
                self._ask_to_stop(self._stop_file)
            if not process.waitForFinished(_CLOSE_MS):
                process.kill()
                process.waitForFinished(_CLOSE_MS)
