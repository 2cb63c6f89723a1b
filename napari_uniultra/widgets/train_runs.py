"""The list of runs: how each stands, their curves and settings side by side, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QHeaderView,
    QLabel,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.core.palette import colour_of
from napari_uniultra.core.settings import flat
from napari_uniultra.runner.history import Follower, History
from napari_uniultra.runner.registry import list_runs
from napari_uniultra.runner.run import JOB, RESULT, Run, State, Status
from napari_uniultra.training.layout import EVENTS, JOINT, MODEL, STUDENT
from napari_uniultra.widgets.parts import push_button, tell
from napari_uniultra.widgets.train_plot import CurvesPlot
from napari_uniultra.widgets.train_progress import reason
from napari_uniultra.widgets.worker import InferenceThread, Stream

_NAME, _STATE, _STEP, _DICE = range(4)
_TABLE_HEIGHT = 190
_MOST_COMPARED, _MOST_DIFFERENCES = 6, 12
_HARMLESS = ("output",)
_SIGNS = (EVENTS, f"{JOINT}/{EVENTS}", JOB, RESULT, MODEL, STUDENT)  # files that change when a run's state does
# Word, what it does, whether it wants exactly one run.
_ACTIONS = {
    "watch": ("Watch", "Show how it goes", True),
    "resume": ("Resume", "Go on from the last checkpoint", True),
    "duplicate": ("Duplicate", "Fill in its settings under New, to change some and start another", True),
    "use": ("Use this model", "Segment with it", True),
    "evaluate": ("Evaluate", "Score it on what it did not learn from, and open the report", True),
    "export": ("Export…", "Write the model with a card that says what it is", True),
    "delete": ("Delete…", "Delete it with all that it made", False),
    "add": ("Add folder…", "Show a run that was started from a shell or on another computer", None),
}


class _Seen(NamedTuple):
    """What was seen of a run when its files were as the signs say."""

    signs: tuple[int, ...]
    status: Status
    words: str
    history: History


_UNSEEN = _Seen((), Status(State.NEW), "", History())


class RunList(QWidget):
    """Shows all runs. `asked` has the name of an action and the runs that are chosen.

    Parameters
    ----------
    reader : InferenceThread
        Where events are read; they may be many.
    """

    asked = Signal(str, object)

    def __init__(self, reader: InferenceThread) -> None:
        super().__init__()
        self._reader = reader
        self._runs: list[Run] = []
        self._seen: dict[Path, _Seen] = {}
        self._followers: dict[Path, Follower] = {}  # of the reader alone
        self._look_out: Stream | None = None
        self._build()
        self.update_view()
        self._on_selected()

    def _build(self) -> None:
        self.table = QTreeWidget()
        self.table.setHeaderLabels(["Run", "State", "Step", "Dice"])
        self.table.setRootIsDecorated(False)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.table.setFixedHeight(_TABLE_HEIGHT)
        self.table.setToolTip("Choose one to act on it, or several (Ctrl) to compare their curves and settings")
        header = self.table.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        self.buttons = {name: push_button(words, tip) for name, (words, tip, _) in _ACTIONS.items()}
        grid = QGridLayout()
        for number, (name, button) in enumerate(self.buttons.items()):
            grid.addWidget(button, number // 2, number % 2)
            button.clicked.connect(lambda _=False, name=name: self.asked.emit(name, self.selected()))
        self.plot = CurvesPlot()
        self.details = QLabel()
        self.details.setWordWrap(True)
        self.details.setTextFormat(Qt.TextFormat.PlainText)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.table)
        column.addLayout(grid)
        column.addWidget(self.plot)
        column.addWidget(self.details)
        column.addStretch(1)
        self.table.itemSelectionChanged.connect(self._on_selected)
        self.table.itemDoubleClicked.connect(lambda *_: self.asked.emit("watch", self.selected()))

    # What is chosen -------------------------------------------------------------------------------------------------

    def selected(self) -> list[Run]:
        """The runs that are chosen, in the order of the list."""
        return [run for row, run in enumerate(self._runs) if self.table.topLevelItem(row).isSelected()]

    def select(self, *runs: Run) -> None:
        """Choose runs."""
        for row, run in enumerate(self._runs):
            self.table.topLevelItem(row).setSelected(run in runs)

    # Following ------------------------------------------------------------------------------------------------------

    def update_view(self) -> None:
        """Look at the disk, and show what has changed as it is found."""
        runs = list_runs()
        if runs != self._runs:
            self._list(runs)
        if self._look_out is None:
            self._look_out = self._reader.stream(
                lambda: map(self._look, runs), self._show, lambda _: self._looked(), self._on_failed
            )

    def _look(self, run: Run) -> tuple[Run, _Seen]:
        """How a run stands, in the reader; one that has ended is not read again until a file of it changes."""
        signs = tuple(_changed_at(run.folder / name) for name in _SIGNS)
        known = self._seen.get(run.folder)
        if known is not None and known.signs == signs and not known.status.state.may_change:
            return run, known
        if run.folder not in self._followers:
            self._followers[run.folder] = run.follower()
        follower = self._followers[run.folder]
        is_new, status = follower.update(), run.status()
        history = known.history if known and not is_new else follower.history.copy()
        return run, _Seen(signs, status, reason(run, status), history)

    def _show(self, looked: tuple[Run, _Seen]) -> None:
        run, seen = looked
        known, self._seen[run.folder] = self._seen.get(run.folder), seen
        if run not in self._runs or seen is known:
            return
        self._fill(self.table.topLevelItem(self._runs.index(run)), seen)
        if run in self.selected()[:_MOST_COMPARED] and (known is None or seen[1:] != known[1:]):
            self._draw()

    def _looked(self) -> None:
        self._look_out = None
        self._enable()

    def _on_failed(self, error: Exception) -> None:
        self._looked()
        tell(error)

    @staticmethod
    def _fill(item: QTreeWidgetItem, seen: _Seen) -> None:
        dice = seen.history.best()
        texts = (seen.status.state.value, str(seen.status.step), "" if dice is None else f"{dice:.3f}")
        for column, text in enumerate(texts, 1):
            if item.text(column) != text:
                item.setText(column, text)
        item.setToolTip(_STATE, seen.words)

    def _list(self, runs: list[Run]) -> None:
        chosen = self.selected()
        blocker = QSignalBlocker(self.table)
        self._runs = runs
        self.table.clear()
        for run in runs:
            item = QTreeWidgetItem([run.info.title, "", "", ""])
            item.setToolTip(_NAME, f"{run.info.title}, {run.info.created[:16].replace('T', ' ')}\n{run.folder}")
            for column in (_STEP, _DICE):
                item.setTextAlignment(column, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter))
            if run.folder in self._seen:
                self._fill(item, self._seen[run.folder])
            self.table.addTopLevelItem(item)
            item.setSelected(run in chosen)
        del blocker
        self._on_selected()

    def _on_selected(self) -> None:
        self._draw()
        self._enable()

    def _draw(self) -> None:
        runs = self.selected()[:_MOST_COMPARED]
        titles = _distinct([run.info.title for run in runs])
        seen = [self._seen.get(run.folder, _UNSEEN) for run in runs]
        self.plot.show_runs({title: one.history for title, one in zip(titles, seen, strict=True)})
        self.plot.setVisible(bool(runs))
        words = [one.words for one in seen] if len(runs) == 1 else []
        self.details.setText("\n".join([*words, *_details(runs, titles)]))
        for row, run in enumerate(self._runs):  # the colours of the curves, as a legend
            item = self.table.topLevelItem(row)
            icon = _dot(colour_of(runs.index(run) + 1)) if run in runs else _dot(None)
            item.setIcon(_NAME, icon)

    def _enable(self) -> None:
        runs = self.selected()
        only = runs[0] if len(runs) == 1 else None
        for name, (_, _, wants_one) in _ACTIONS.items():
            self.buttons[name].setEnabled(wants_one is None or only is not None or (not wants_one and bool(runs)))
        if only is not None:
            has_model = only.model is not None
            for name in ("use", "evaluate", "export"):
                self.buttons[name].setEnabled(has_model)
            self.buttons["resume"].setEnabled(only.can_resume)


def _details(runs: Sequence[Run], titles: Sequence[str]) -> Iterator[str]:
    """Of one run its warnings; of several the settings in which they differ."""
    if len(runs) == 1:
        yield from runs[0].info.warnings
        return
    settings = [flat(run.settings_values()) for run in runs]
    names = sorted({name for values in settings for name in values} - set(_HARMLESS))
    differing = [name for name in names if len({repr(values.get(name)) for values in settings}) > 1]
    for name in differing[:_MOST_DIFFERENCES]:
        values = ", ".join(f"{title}: {_short(own.get(name))}" for title, own in zip(titles, settings, strict=True))
        yield f"{name}: {values}"
    if len(runs) > 1 and not differing:
        yield "They have the same settings."


def _short(value: Any) -> str:
    """A setting for a narrow place; of paths only their end."""
    if isinstance(value, list):
        return "; ".join(map(_short, value))
    return "/".join(Path(value).parts[-2:]) if isinstance(value, str) and len(Path(value).parts) > 2 else str(value)


def _distinct(titles: Sequence[str]) -> list[str]:
    """Titles, with numbers behind those that come again."""
    counts: dict[str, int] = {}
    found = []
    for title in titles:
        counts[title] = counts.get(title, 0) + 1
        found.append(title if counts[title] == 1 else f"{title} ({counts[title]})")
    return found


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _dot(colour: tuple[int, int, int] | None) -> Any:
    from qtpy.QtGui import QColor, QIcon, QPixmap

    pixmap = QPixmap(10, 10)
    pixmap.fill(QColor(*colour) if colour else QColor(0, 0, 0, 0))
    return QIcon(pixmap)
