"""What to learn from: corrected loops in a table, a manifest, or the folder of a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.errors import UniUltraError
from napari_uniultra.plugin.layers import cine_from_layer
from napari_uniultra.runner.data import DataChoice
from napari_uniultra.runner.loops import CorrectedLoop, Found, find_in_batch, find_in_files, find_open
from napari_uniultra.segment.autosave import autosave_folder
from napari_uniultra.training.data.importers import IMPORTERS
from napari_uniultra.widgets.parts import push_button, row_of, tell
from napari_uniultra.widgets.worker import InferenceThread

OPEN, FILES, BATCH, MANIFEST, PUBLIC = "open", "files", "batch", "manifest", "public"
_SOURCES = {
    OPEN: ("Loops open here", "Frames that you accepted in the loops that are open in this window"),
    FILES: ("Session files", "Session files and their loops; which belong together is told by content"),
    BATCH: ("Batch results", "Loops of a folder of batch results that you corrected"),
    MANIFEST: ("Manifest", "A table of images and masks (CSV or JSON)"),
    PUBLIC: ("Data set folder", "A public data set, or folders of images and masks, as unpacked"),
}
_TABLES = (OPEN, FILES, BATCH)
_LOOP, _FRAMES, _SUBJECT = range(3)
_TABLE_HEIGHT = 118  # pixels


class DataChooser(QWidget):
    """Chooses the data of a run.

    Parameters
    ----------
    viewer : napari.Viewer
    thread : InferenceThread
        Where files are read.
    """

    changed = Signal()

    def __init__(self, viewer: Any, thread: InferenceThread) -> None:
        super().__init__()
        self._viewer, self._thread = viewer, thread
        self._loops: list[CorrectedLoop] = []
        self._files: list[str] = []
        self._unticked: set[Path] = set()  # sessions that the user does not want
        self._build()
        self._on_source()

    def _build(self) -> None:
        self.source_box = QComboBox()
        for key, (words, tip) in _SOURCES.items():
            self.source_box.addItem(words, key)
            self.source_box.setItemData(self.source_box.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.source_box.setToolTip("Where the images and masks to learn from are")
        self.table = QTreeWidget()
        self.table.setHeaderLabels(["Loop", "Frames", "Subject"])
        self.table.setRootIsDecorated(False)
        self.table.setFixedHeight(_TABLE_HEIGHT)
        self.table.setToolTip(
            "Tick the loops to learn from. Give loops of one subject the same word under Subject (double click): they "
            "then never come into training and validation both. The word is not written anywhere."
        )
        header = self.table.header()
        header.setSectionResizeMode(_LOOP, QHeaderView.ResizeMode.Stretch)
        header.setStretchLastSection(False)
        self.accepted_box = QCheckBox("Accepted frames only")
        self.accepted_box.setChecked(True)
        self.accepted_box.setToolTip("Off: frames that were tracked and not looked at count too, mistakes included")
        self.look_button = push_button("Look again", "Look for accepted frames once more")
        self.add_button = push_button("Add…", "Choose files or a folder")
        self.path = QLineEdit()
        self.importer_box = QComboBox()
        self.importer_box.setToolTip("How the folder is laid out; `uniultra data list` says where to get each set")
        for name, importer in IMPORTERS.items():
            self.importer_box.addItem(name, name)
            self.importer_box.setItemData(self.importer_box.count() - 1, importer.TITLE, Qt.ItemDataRole.ToolTipRole)
        self.note = QLabel()
        self.note.setWordWrap(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("From", self.source_box)
        self._importer_label, self._path_label = QLabel("Layout"), QLabel("Place")
        form.addRow(self._importer_label, self.importer_box)
        form.addRow(self._path_label, self.path)
        column.addLayout(form)
        column.addWidget(self.table)
        column.addWidget(self.accepted_box)
        column.addLayout(row_of(self.look_button, self.add_button))
        column.addWidget(self.note)
        self.source_box.currentIndexChanged.connect(self._on_source)
        self.accepted_box.toggled.connect(self._show_loops)
        self.look_button.clicked.connect(self.look)
        self.add_button.clicked.connect(self._on_add)
        self.table.itemChanged.connect(self._on_item)
        self.path.textChanged.connect(lambda _: self.changed.emit())
        self.importer_box.currentIndexChanged.connect(lambda _: self.changed.emit())

    # What is chosen -------------------------------------------------------------------------------------------------

    @property
    def source(self) -> str:
        """Where the data come from: one of `OPEN`, `FILES`, `BATCH`, `MANIFEST`, `PUBLIC`."""
        return self.source_box.currentData()

    def choose_source(self, source: str) -> None:
        """Choose where the data come from."""
        self.source_box.setCurrentIndex(self.source_box.findData(source))

    def choice(self) -> DataChoice:
        """What is chosen."""
        path = self.path.text().strip()
        if self.source == MANIFEST:
            return DataChoice(manifests=tuple(part.strip() for part in path.split(";") if part.strip()) or ("",))
        if self.source == PUBLIC:
            return DataChoice(importer=self.importer_box.currentData(), folder=path)
        chosen = [loop for row, loop in enumerate(self._loops) if self._is_ticked(row)]
        return DataChoice(loops=tuple(chosen), accepted_only=self.accepted_box.isChecked())

    def _is_ticked(self, row: int) -> bool:
        return self.table.topLevelItem(row).checkState(_LOOP) == Qt.CheckState.Checked

    # Looking for loops ----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Look for corrected loops again, where the source is one of these."""
        if self.source == OPEN:
            self._find(self._open_loops())
        elif self.source == FILES:
            files = tuple(self._files)
            self._find(lambda: find_in_files(files, autosave_folder()))
        elif self.source == BATCH and self.path.text():
            folder = self.path.text()
            self._find(lambda: find_in_batch(folder))
        elif self.source == BATCH:
            self._found(Found(), BATCH)

    def _open_loops(self) -> Callable[[], Found]:
        cines = []
        for layer in self._viewer.layers:
            if isinstance(layer, Image):
                data = layer.data[0] if layer.multiscale else layer.data
                try:
                    cines.append((layer.name, cine_from_layer(data, layer.rgb, layer.metadata)))
                except UniUltraError:
                    continue  # no loop
        return lambda: find_open(cines, autosave_folder())

    def _find(self, work: Callable[[], Found]) -> None:
        source = self.source
        self.note.setText("Looking for loops…")
        self._thread.submit(
            work, lambda found: self._found(found, source), lambda error: self._on_failed(error, source), key="look"
        )

    def _on_failed(self, error: Exception, source: str) -> None:
        self._found(Found(), source)
        tell(error)

    def _found(self, found: Found, source: str) -> None:
        """Show what was found, unless another source was chosen meanwhile; ticks and subjects stay."""
        if source != self.source:
            return
        before = {loop.session: loop.subject for loop in self._loops}
        loops = [replace(loop, subject=before.get(loop.session, loop.subject)) for loop in found.loops]
        if [_facts(loop) for loop in loops] != [_facts(loop) for loop in self._loops]:
            self._loops = loops
            self._show_loops()
        self._show_note(found)

    def _show_note(self, found: Found) -> None:
        if found.problems:
            self.note.setText("\n".join(f"{name}: {why}" for name, why in found.problems[:3]))
        elif not found.loops:
            hints = {
                OPEN: "No loop that is open here has work on it. Segment one and accept frames (G), then look again.",
                FILES: "Add session files and their loops.",
                BATCH: "Choose the folder of results.",
            }
            self.note.setText(hints.get(self.source, ""))
        else:
            self.note.clear()

    def _show_loops(self, *_: Any) -> None:
        blocker = QSignalBlocker(self.table)
        self.table.clear()
        for loop in self._loops:
            frames = loop.accepted if self.accepted_box.isChecked() else loop.known
            item = QTreeWidgetItem([loop.shown, str(frames), loop.subject])
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable | Qt.ItemFlag.ItemIsUserCheckable)
            is_ticked = frames and loop.session not in self._unticked
            item.setCheckState(_LOOP, Qt.CheckState.Checked if is_ticked else Qt.CheckState.Unchecked)
            item.setToolTip(_FRAMES, f"{loop.accepted} accepted of {loop.known} with masks")
            self.table.addTopLevelItem(item)
        del blocker
        self.changed.emit()

    def _on_item(self, item: QTreeWidgetItem, column: int) -> None:
        row = self.table.indexOfTopLevelItem(item)
        if column == _SUBJECT:
            self._loops[row] = replace(self._loops[row], subject=item.text(_SUBJECT))
        elif column == _LOOP and item.text(_LOOP) != self._loops[row].shown:
            item.setText(_LOOP, self._loops[row].shown)
        elif column == _LOOP:
            (self._unticked.discard if self._is_ticked(row) else self._unticked.add)(self._loops[row].session)
        elif column == _FRAMES:
            blocker = QSignalBlocker(self.table)
            loop = self._loops[row]
            item.setText(_FRAMES, str(loop.accepted if self.accepted_box.isChecked() else loop.known))
            del blocker
        self.changed.emit()

    # Sources --------------------------------------------------------------------------------------------------------

    def _on_source(self, *_: Any) -> None:
        has_table = self.source in _TABLES
        for widget in (self.table, self.accepted_box):
            widget.setVisible(has_table)
        self.look_button.setVisible(has_table)
        for widget in (self.path, self._path_label):
            widget.setVisible(self.source not in (OPEN, FILES))
        for widget in (self.importer_box, self._importer_label):
            widget.setVisible(self.source == PUBLIC)
        self.add_button.setVisible(self.source != OPEN)
        self.path.clear()
        self.path.setToolTip(_SOURCES[self.source][1])
        self._loops = []
        self.note.clear()
        self._show_loops()
        self.look()

    def _on_add(self) -> None:
        if self.source == FILES:
            paths, _ = QFileDialog.getOpenFileNames(self, "Loops and session files")
            self.add_files(paths)
        elif self.source == MANIFEST:
            path, _ = QFileDialog.getOpenFileName(self, "A manifest", "", "Manifests (*.csv *.json)")
            self.set_path(path)
        else:
            self.set_path(QFileDialog.getExistingDirectory(self, _SOURCES[self.source][0]))

    def add_files(self, paths: list[str]) -> None:
        """Look into further loops and session files."""
        self._files += [path for path in paths if path not in self._files]
        self.look()

    def set_path(self, path: str | Path) -> None:
        """Name the manifest or the folder."""
        if path:
            self.path.setText(str(path))
            self.look()


def _facts(loop: CorrectedLoop) -> tuple[Any, ...]:
    """What of a loop the table depends on."""
    return loop.shown, loop.cine.key, loop.session, loop.accepted, loop.known, loop.subject
