"""The panel "Compare": two models, sessions or masks of one loop, side by side, with Dice for every frame."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.core.csv_table import clipboard_text, write_table
from napari_uniultra.core.palette import colour_of
from napari_uniultra.core.words import counted
from napari_uniultra.errors import UniUltraError
from napari_uniultra.plugin.compare import Comparison, ObjectAgreement
from napari_uniultra.plugin.compare_host import CompareController, image_layers
from napari_uniultra.plugin.compare_sources import Progress
from napari_uniultra.plugin.measure_host import labels_layers
from napari_uniultra.widgets.dice_plot import DicePlot
from napari_uniultra.widgets.docks import DockPanel
from napari_uniultra.widgets.parts import push_button, row_of, scrolling, tell
from napari_uniultra.widgets.source_box import SourceBox
from napari_uniultra.widgets.worker import InferenceThread

_RESEARCH_USE = "For research use. Not a medical device."
_CHOOSE = "Choose a loop and what to compare on it"
_WORST = 15  # frames in the list
_ROW_HEIGHT = 22


class ComparePanel(DockPanel):
    """Compares two sets of masks of a loop.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        if self.is_second:
            return
        self.thread_ = InferenceThread()
        self.controller = CompareController(napari_viewer, self.thread_)
        self._build()
        self._connect()
        self._list()
        self._refresh()

    # Building -------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 4, 4, 4)
        column.addWidget(self._build_sources())
        column.addWidget(self._build_view())
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.summary.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.plot = DicePlot()
        column.addWidget(self.summary)
        column.addWidget(self.plot)
        column.addWidget(self._build_table(), 1)
        self.copy_button = push_button("Copy", "Copy Dice and HD95 of all frames, for a spreadsheet")
        self.save_button = push_button("Save CSV…", "Save Dice and HD95 of all frames")
        column.addLayout(row_of(self.copy_button, self.save_button))
        self.status = QLabel(_CHOOSE)
        self.status.setWordWrap(True)
        research = QLabel(_RESEARCH_USE)
        research.setEnabled(False)
        column.addWidget(self.status)
        column.addWidget(research)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolling(content))
        self.setMinimumWidth(320)

    def _build_sources(self) -> QWidget:
        self.image_box = QComboBox()
        self.image_box.setToolTip("The loop that both are of")
        self.image_box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.sources = SourceBox("A"), SourceBox("B")
        self.run_button = push_button("Compare", "Get both and compare them; the open session is not touched")
        self.cancel_button = push_button("Cancel", "Stop; what was shown before stays")
        self.progress = QProgressBar()
        group = QGroupBox("What to compare")
        form = QFormLayout(group)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Loop", self.image_box)
        form.addRow("A (blue)", self.sources[0])
        form.addRow("B (orange)", self.sources[1])
        form.addRow(row_of(self.run_button, self.cancel_button))
        form.addRow(self.progress)
        return group

    def _build_view(self) -> QWidget:
        self.outline_box = QCheckBox("Outlines")
        self.outline_box.setChecked(self.controller.outlines)
        self.outline_box.setToolTip("On: outlines. Off: filled areas")
        self.grid_box = QCheckBox("Side by side")
        self.grid_box.setToolTip("On: A and B each on a picture of its own, all else hidden. Off: over each other")
        view = QWidget()
        row = QHBoxLayout(view)
        row.setContentsMargins(8, 0, 8, 0)
        row.addWidget(self.outline_box)
        row.addWidget(self.grid_box)
        row.addStretch(1)
        return view

    def _build_table(self) -> QWidget:
        self.table = QTableWidget(0, 4)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.table.setMinimumHeight(120)
        self.table.setToolTip("The frames where A and B differ most; click to see one")
        return self.table

    # Connections ----------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        control, layers = self.controller, self._viewer.layers.events
        for emitter in (layers.inserted, layers.removed, layers.reordered):
            emitter.connect(self._list)
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(control.cancel)
        self.outline_box.toggled.connect(control.set_outlines)
        self.grid_box.toggled.connect(control.set_side_by_side)
        self.plot.frame_chosen.connect(control.go_to)
        self.table.itemSelectionChanged.connect(self._on_row)
        self.copy_button.clicked.connect(self.copy)
        self.save_button.clicked.connect(self._ask_and_save)
        control.progressed.connect(self._on_progress)
        control.changed.connect(self._refresh)
        control.frame_changed.connect(self.plot.show_frame)
        control.failed.connect(self._on_failed)
        self.destroyed.connect(lambda: self._let_go())

    def _list(self, event: Any = None) -> None:
        images = image_layers(self._viewer)
        chosen = self.image_box.currentData()
        self.image_box.clear()
        for layer in images:
            self.image_box.addItem(layer.name, layer)
            layer.events.name.connect(self._list)  # connecting twice counts once
        self.image_box.setCurrentIndex(next((i for i, layer in enumerate(images) if layer == chosen), 0))
        masks = labels_layers(self._viewer)
        for layer in masks:
            layer.events.name.connect(self._list)
        a, b = self.sources
        for box in self.sources:
            box.refresh(masks)
        if a.currentIndex() == b.currentIndex() == 0 < b.count() - 1:
            b.setCurrentIndex(1)  # nothing is learnt from one thing and itself
        self.run_button.setEnabled(bool(images) and not self.controller.running)

    def _on_row(self) -> None:
        row = self.table.currentRow()
        if row >= 0:
            self.controller.go_to(self.table.item(row, 0).data(Qt.ItemDataRole.UserRole))

    # What the user does ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Compare what is chosen."""
        image = self.image_box.currentData()
        try:
            a, b = (box.source for box in self.sources)
        except UniUltraError as error:
            tell(error)
            return
        if image is not None and a is not None and b is not None:
            self.controller.run(image, a, b)

    def copy(self) -> None:
        """Put the table of all frames on the clipboard, with tabs between the cells."""
        QGuiApplication.clipboard().setText(clipboard_text(self.controller.comparison.table()))

    def save(self, path: str) -> None:
        """Write the table of all frames as CSV.

        Raises
        ------
        WriteError
        """
        write_table(path, *self.controller.comparison.table())

    def _ask_and_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the comparison", "comparison.csv", "Tables (*.csv)")
        if path:
            try:
                self.save(path)
            except UniUltraError as error:
                tell(error)
            else:
                show_info("The comparison is saved")

    # Following the controller ---------------------------------------------------------------------------------------

    def _on_progress(self, progress: Progress | None) -> None:
        running = progress is not None
        self.progress.setVisible(running)
        self.cancel_button.setEnabled(running)
        self.run_button.setEnabled(not running and self.image_box.count() > 0)
        if running:
            self.progress.setRange(0, progress.total)  # with a total of 0 the bar only says that something happens
            self.progress.setValue(progress.done)
            self.progress.setFormat(f"{progress.done} of {progress.total}" if progress.total else "")
            self.status.setText(progress.words)
        else:
            self.status.setText("" if self.controller.comparison else _CHOOSE)

    def _on_failed(self, error: Exception) -> None:
        self.status.setText(str(error))
        tell(error)

    def _refresh(self) -> None:
        found = self.controller.comparison
        self._on_progress(None)
        for widget in (self.copy_button, self.save_button, self.outline_box, self.grid_box):
            widget.setEnabled(found is not None)
        self.summary.setText("" if found is None else _summary(found))
        objects = () if found is None else found.objects
        frames = 0 if found is None else len(found.masks[0])
        self.plot.show_dice({_line(index): item.dice for index, item in enumerate(objects)}, frames)
        self.plot.show_frame(self.controller.frame)
        self._fill_table(found)

    def _fill_table(self, found: Comparison | None) -> None:
        blocker = QSignalBlocker(self.table)
        rows = [] if found is None else found.worst(_WORST)
        unit = "mm" if found is None else found.unit
        self.table.setHorizontalHeaderLabels(["Frame", "Dice", f"HD95 ({unit})", "Object"])
        self.table.setRowCount(len(rows))
        for row, (frame, item) in enumerate(rows):
            cells = (str(frame), f"{item.dice[frame]:.3f}", _distance(item.hd95[frame]), item.name)
            for column, words in enumerate(cells):
                cell = QTableWidgetItem(words)
                cell.setData(Qt.ItemDataRole.UserRole, frame)
                self.table.setItem(row, column, cell)
        del blocker

    # The end --------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Stop computing."""
        self.controller.close()

    def dock_closed(self) -> None:
        """Show what was hidden to have two pictures side by side; the masks of A and B stay."""
        self.controller.set_side_by_side(False)

    def _let_go(self) -> None:
        """Undo every connection to the viewer, which outlives the panel. The Qt side of the panel is gone by now."""
        self.thread_.stop()
        self.controller.disconnect_viewer()
        layers = self._viewer.layers.events
        for emitter in (layers.inserted, layers.removed, layers.reordered):
            emitter.disconnect(self._list)
        for layer in self._viewer.layers:
            layer.events.name.disconnect(self._list)


def _line(index: int) -> int:
    """The number, for the palette, of an object's line: its first two colours are those of A and B."""
    return 3 + index + 2 * (index // 5)


def _summary(found: Comparison) -> str:
    """As rich text, each object with the colour of its line."""
    lines = []
    for index, item in enumerate(found.objects):
        red, green, blue = colour_of(_line(index))
        square = f'<span style="color: rgb({red}, {green}, {blue})">■</span>'
        lines.append(f"{square} {escape(_object_words(item, found.unit))}")
    for letter, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            lines.append(escape(f"Only in {letter}: {', '.join(names)}."))
    return "<br>".join(lines) or "There is nothing in either."


def _object_words(item: ObjectAgreement, unit: str) -> str:
    words = f"{item.name}: mean Dice {_share(item.mean_dice)}"
    if math.isfinite(item.mean_hd95):
        words += f", mean HD95 {item.mean_hd95:.1f} {unit}"
    words += f", {counted(item.frames, 'frame')}"
    return words + (f"; {item.one_sided} of them in one of the two only." if item.one_sided else ".")


def _share(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3f}"


def _distance(value: float) -> str:
    return "only one" if math.isinf(value) else f"{value:.1f}"
