"""The list of runs: how each stands, their curves and settings side by side, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
from napari_uniultra.runner.history import Follower
from napari_uniultra.runner.registry import list_runs
from napari_uniultra.runner.run import JOB, RESULT, Run, Status
from napari_uniultra.training.layout import EVENTS, JOINT, MODEL, STUDENT
from napari_uniultra.widgets.parts import push_button
from napari_uniultra.widgets.train_plot import CurvesPlot
from napari_uniultra.widgets.train_progress import reason

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


class RunList(QWidget):
    """Shows all runs. `asked` has the name of an action and the runs that are chosen."""

    asked = Signal(str, object)
    chosen = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._runs: list[Run] = []
        self._known: dict[Path, tuple[object, Status, float | None]] = {}
        self._followers: dict[Path, Follower] = {}
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
        """Look at the disk, and show what has changed."""
        runs = list_runs()
        if runs != self._runs:
            self._list(runs)
        for row, run in enumerate(runs):
            _, status, dice = self._look(run)
            item = self.table.topLevelItem(row)
            texts = (status.state.value, str(status.step), "" if dice is None else f"{dice:.3f}")
            for column, text in enumerate(texts, 1):
                if item.text(column) != text:
                    item.setText(column, text)
            item.setToolTip(_STATE, reason(run, status))
        self._enable()
        if any(self._follower(run).update() for run in self.selected()[:_MOST_COMPARED]):
            self._draw()

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
            self.table.addTopLevelItem(item)
            item.setSelected(run in chosen)
        del blocker
        self._on_selected()

    def _look(self, run: Run) -> tuple[object, Status, float | None]:
        """How a run stands; one that has ended is not read again until a file of it changes."""
        signs = tuple(_changed_at(run.folder / name) for name in _SIGNS)
        known = self._known.get(run.folder)
        if known is None or known[0] != signs or known[1].state.is_active:
            follower = self._follower(run)
            if known is None or known[0] != signs:
                follower.update()
            known = signs, run.status(), follower.history.best()
            self._known[run.folder] = known
        return known

    def _follower(self, run: Run) -> Follower:
        return self._followers.setdefault(run.folder, Follower(run.folder))

    def _on_selected(self) -> None:
        self._draw()
        self._enable()
        self.chosen.emit()

    def _draw(self) -> None:
        runs = self.selected()[:_MOST_COMPARED]
        titles = _distinct([run.info.title for run in runs])
        for run in runs:
            self._follower(run).update()
        self.plot.show_runs(dict(zip(titles, (self._follower(run).history for run in runs), strict=True)))
        self.plot.setVisible(bool(runs))
        self.details.setText("\n".join(_details(runs, titles)))
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
        yield from (runs[0].status().words, *runs[0].info.warnings)
        return
    flat = [dict(_flat(run.settings_values())) for run in runs]
    names = sorted({name for values in flat for name in values} - set(_HARMLESS))
    differing = [name for name in names if len({repr(values.get(name)) for values in flat}) > 1]
    for name in differing[:_MOST_DIFFERENCES]:
        values = ", ".join(f"{title}: {_short(own.get(name))}" for title, own in zip(titles, flat, strict=True))
        yield f"{name}: {values}"
    if len(runs) > 1 and not differing:
        yield "They have the same settings."


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


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
