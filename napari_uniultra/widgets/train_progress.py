"""One run as it goes: how far it is, its curves, pictures of the last validation, and its log."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QPixmap, QResizeEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPlainTextEdit, QProgressBar, QSizePolicy, QVBoxLayout, QWidget

from napari_uniultra.core.duration import duration
from napari_uniultra.runner.history import Follower, History
from napari_uniultra.runner.run import LOG, Run, State, Status
from napari_uniultra.runner.turn import waits_for
from napari_uniultra.training.layout import OVERLAYS
from napari_uniultra.widgets.parts import push_button, row_of, tell
from napari_uniultra.widgets.train_plot import CurvesPlot
from napari_uniultra.widgets.worker import InferenceThread

_LOG_BYTES, _LOG_HEIGHT = 20_000, 110
_PICTURE_HEIGHT = 170  # pixels, at most


class RunView(QWidget):
    """Shows a run and asks for what is to be done with it.

    Parameters
    ----------
    reader : InferenceThread
        Where its events are read; they may be many.

    Attributes
    ----------
    history : History
        What is known of the run that is shown.
    """

    stop_asked = Signal()
    resume_asked = Signal()
    use_asked = Signal()

    def __init__(self, reader: InferenceThread) -> None:
        super().__init__()
        self._reader = reader
        self.run: Run | None = None
        self.history = History()
        self._follower: Follower | None = None  # of the reader alone
        self._log_size = -1
        self._build()
        self.show_run(None)

    def _build(self) -> None:
        self.title = QLabel()
        self.title.setTextFormat(Qt.TextFormat.PlainText)
        self.title.setWordWrap(True)
        self.progress = QProgressBar()
        self.facts, self.words = QLabel(), QLabel()
        for label in (self.facts, self.words):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.stop_button = push_button("Stop", "End after the step in progress, with a checkpoint to go on from")
        self.resume_button = push_button("Resume", "Go on from the last checkpoint")
        self.use_button = push_button("Use this model", "Segment with what it has learnt so far")
        self.plot = CurvesPlot()
        self.pictures = Pictures()
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setFixedHeight(_LOG_HEIGHT)
        self.log.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.log.setToolTip("What the training says")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for widget in (self.title, self.progress, self.facts, self.words):
            column.addWidget(widget)
        column.addLayout(row_of(self.stop_button, self.resume_button))
        column.addWidget(self.use_button)
        column.addWidget(self.plot)
        column.addWidget(self.pictures)
        column.addWidget(self.log)
        column.addStretch(1)
        self.stop_button.clicked.connect(self.stop_asked)
        self.resume_button.clicked.connect(self.resume_asked)
        self.use_button.clicked.connect(self.use_asked)

    def show_run(self, run: Run | None) -> None:
        """Show another run, or none."""
        self.run, self.history = run, History()
        self._follower = None if run is None else run.follower()
        self._log_size = -1
        self.log.clear()
        self.plot.show_runs({})
        self.pictures.show_folder(None)
        for widget in (self.plot, self.log, self.progress):
            widget.setVisible(run is not None)
        for label in (self.facts, self.words):
            label.clear()
        for button in (self.stop_button, self.resume_button, self.use_button):
            button.setEnabled(False)
        nothing = "No training is chosen. Start one under New, or choose one under Runs."
        self.title.setText(nothing if run is None else run.info.title)
        self.update_view()

    def update_view(self) -> None:
        """Read what is new of the run, and show it."""
        run, follower = self.run, self._follower
        if run is None or follower is None:
            return

        def look() -> tuple[Status, str, History | None]:
            is_new, status = follower.update(), run.status()
            return status, reason(run, status), follower.history.copy() if is_new else None

        def show(seen: tuple[Status, str, History | None]) -> None:
            if follower is self._follower:
                self._show(run, *seen)

        self._reader.submit(look, show, tell, key="progress")

    def _show(self, run: Run, status: Status, words: str, history: History | None) -> None:
        if history is not None:
            self.history = history
            self.plot.show_runs({run.info.title: history})
            self.pictures.show_folder(run.stages[-1] / OVERLAYS)
        self._show_status(run, status, words)
        self._show_log(run.folder / LOG)

    def _show_status(self, run: Run, status: Status, words: str) -> None:
        state, history = status.state, self.history
        self.stop_button.setEnabled(state.is_active)
        self.stop_button.setText("End now" if can_end(status) else "Stop")
        self.resume_button.setEnabled(not state.is_active and run.can_resume)
        self.use_button.setEnabled(run.model is not None)
        self.title.setText(f"{run.info.title}: {state.value}")
        self.progress.setRange(0, max(history.steps, 1))
        self.progress.setValue(min(history.step, max(history.steps, 1)))
        self.progress.setFormat(f"step {history.step} of {history.steps}" if history.steps else state.value)
        self.facts.setText(_facts(history, state))
        self.words.setText("\n".join(filter(None, (words, *run.info.warnings, *history.notes[-2:]))))
        self.words.setVisible(bool(self.words.text()))

    def _show_log(self, path: Path) -> None:
        """The end of the log, where it has grown."""
        try:
            size = path.stat().st_size
            if size == self._log_size:
                return
            with path.open("rb") as file:
                file.seek(max(size - _LOG_BYTES, 0))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            self.log.setVisible(False)
            return
        self._log_size = size
        self.log.setVisible(True)
        self.log.setPlainText(text.strip())
        bar = self.log.verticalScrollBar()
        bar.setValue(bar.maximum())


def can_end(status: Status) -> bool:
    """Whether a second press on Stop ends a run at once: it was asked to stop, and its process is within reach."""
    return status.state is State.STOPPING and status.is_active_here


def reason(run: Run, status: Status) -> str:
    """Why a run stands as it does, where there is something to say."""
    return status.words or (waits_for(run) if status.state is State.QUEUED else "")


def _facts(history: History, state: State) -> str:
    """Speed, time left and scores, each with its unit."""
    dice, best, tracked = history.last("dice"), history.best(), history.last("tracked_dice")
    speed, rate, loss = (history.last(name) for name in ("samples_per_second", "learning_rate", "loss"))
    left = duration(history.seconds_left) if state is State.RUNNING and history.seconds_left is not None else ""
    parts = (
        f"{left} left" if left else "",
        f"loss {loss:.3f}" if loss is not None else "",
        f"Dice {dice:.3f} ({'untrained' if best is None else f'best {best:.3f}'})" if dice is not None else "",
        f"tracked Dice {tracked:.3f}" if tracked is not None else "",
        f"{speed:.1f} samples/s" if speed is not None else "",
        f"learning rate {rate:.1e}" if rate is not None else "",
        history.device,
    )
    return ", ".join(filter(None, parts))


class Pictures(QWidget):
    """Pictures that validations drew, the newest first; a person leafs through them."""

    def __init__(self) -> None:
        super().__init__()
        self._paths: list[Path] = []
        self._index = 0
        self._picture = QPixmap()
        self.label, self.caption = QLabel(), QLabel()
        self.label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.label.setToolTip("A validation picture: the true masks on the left, the model's on the right")
        self.older = push_button("◀", "An earlier picture")
        self.newer = push_button("▶", "A later picture")
        row = QHBoxLayout()
        row.addWidget(self.older)
        row.addWidget(self.caption, 1)
        row.addWidget(self.newer)
        self.caption.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.label)
        column.addLayout(row)
        self.older.clicked.connect(lambda: self._leaf(-1))
        self.newer.clicked.connect(lambda: self._leaf(1))
        self.setVisible(False)

    def show_folder(self, folder: Path | None) -> None:
        """Offer the pictures of a folder; who looks at the newest sees the newest."""
        paths = sorted(folder.glob("step_*.png")) if folder is not None and folder.is_dir() else []
        if paths == self._paths:
            return
        follows = self._index >= len(self._paths) - _newest(self._paths)
        self._paths = paths
        if follows or self._index >= len(paths):
            self._index = max(len(paths) - _newest(paths), 0)
        self._show()

    def _leaf(self, by: int) -> None:
        self._index = min(max(self._index + by, 0), len(self._paths) - 1)
        self._show()

    def _show(self) -> None:
        self.setVisible(bool(self._paths))
        if not self._paths:
            return
        path = self._paths[self._index]
        self._picture = QPixmap(str(path))
        step = path.stem.split("_")[1].lstrip("0") or "0"
        self.caption.setText(f"Step {step}: truth left, model right")
        self.older.setEnabled(self._index > 0)
        self.newer.setEnabled(self._index < len(self._paths) - 1)
        self._fit()

    def _fit(self) -> None:
        if self._picture.isNull():
            return
        aspect, mode = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
        fitted = self._picture.scaled(max(self.width(), 1), _PICTURE_HEIGHT, aspect, mode)
        self.label.setPixmap(fitted)
        self.label.setFixedHeight(fitted.height())

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the picture as wide as there is room."""
        super().resizeEvent(event)
        self._fit()


def _newest(paths: list[Path]) -> int:
    """How many of the last pictures are of the same validation."""
    step = paths[-1].stem.rpartition("_")[0] if paths else ""
    return sum(path.stem.rpartition("_")[0] == step for path in paths)
