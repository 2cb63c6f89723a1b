"""The list of objects: choose, add, name, colour, hide, lock and delete them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qtpy.QtCore import QEvent, QPoint, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QMenu,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
    QWidgetAction,
)

from napari_uniultra.plugin.presets import Preset
from napari_uniultra.plugin.workspace import Structure
from napari_uniultra.widgets.icons import eye, padlock, swatch
from napari_uniultra.widgets.parts import push_button, row_of

_ID = Qt.ItemDataRole.UserRole
_NAME, _EYE, _LOCK = range(3)  # columns
_ICON_COLUMN_PX, _ARROW_PX = 26, 24
_MOST_ROWS = 4  # that are shown without scrolling


class ObjectList(QWidget):
    """Objects with their colours, and what can be done with them."""

    chosen = Signal(int)
    renamed = Signal(int, str)
    coloured = Signal(int, object)  # Colour
    hidden = Signal(int, bool)
    locked = Signal(int, bool)
    removed = Signal(int)
    added = Signal(str, object)  # a name, which may be empty, and a Colour or None
    presets_wanted = Signal()  # before the menu opens: `show_presets` fills it
    presets_edited = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._objects: list[Structure] = []
        self.list = self._build_list()
        self._fit(1)
        self.menu = QMenu(self)
        self.menu.aboutToShow.connect(self.presets_wanted)
        self.add_button = push_button("New object", "Add another structure to segment (N)")
        self.add_button.clicked.connect(lambda: self.added.emit("", None))
        self.presets_button = push_button("▾", "Choose the new structure from a list, or type its name")
        self.presets_button.setFixedWidth(_ARROW_PX)
        self.presets_button.clicked.connect(lambda: self.menu.popup(_below(self.presets_button)))
        self.colour_button = push_button("Colour…", "Give the chosen object another colour")
        self.colour_button.clicked.connect(self._ask_colour)
        self.remove_button = push_button("Delete", "Delete the chosen object with its marks and masks (Shift+Delete)")
        self.remove_button.clicked.connect(lambda: self._emit_for_current(self.removed))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.list)
        row = QHBoxLayout()
        row.setSpacing(2)
        row.addWidget(self.add_button, 1)
        row.addWidget(self.presets_button)
        row.addSpacing(4)
        row.addLayout(row_of(self.colour_button, self.remove_button), 1)
        layout.addLayout(row)

    def _build_list(self) -> QTreeWidget:
        made = QTreeWidget()
        made.setColumnCount(3)
        made.setHeaderHidden(True)
        made.setRootIsDecorated(False)
        made.setIndentation(0)
        made.setEditTriggers(QTreeWidget.EditTrigger.EditKeyPressed)
        made.header().setStretchLastSection(False)
        made.header().setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        for column in (_EYE, _LOCK):
            made.header().setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            made.setColumnWidth(column, _ICON_COLUMN_PX)
        made.currentItemChanged.connect(self._on_current)
        made.itemChanged.connect(self._on_renamed)
        made.itemClicked.connect(self._on_clicked)
        made.itemDoubleClicked.connect(self._on_double_clicked)
        return made

    def _fit(self, rows: int) -> None:
        """Take no more height than there are rows: on a small screen the tools below shall be seen."""
        row = self.fontMetrics().height() + 8
        self.list.setFixedHeight(row * min(max(rows, 1), _MOST_ROWS) + 2 * self.list.frameWidth() + 4)

    # Values in ------------------------------------------------------------------------------------------------------

    def show_objects(self, objects: Sequence[Structure], current: int) -> None:
        """Show objects with one of them chosen. Emits nothing."""
        blocker = QSignalBlocker(self.list)
        if [own.object_id for own in objects] != [own.object_id for own in self._objects]:
            self.list.clear()
            self._fit(len(objects))
            self.list.addTopLevelItems([self._item(own) for own in objects])
            self._objects = []
        for row, own in enumerate(objects):
            item = self.list.topLevelItem(row)
            if not self._objects or self._objects[row] != own or item.text(_NAME) != own.name:
                self._fill(item, own)
            if own.object_id == current and self.list.currentItem() is not item:
                self.list.setCurrentItem(item)
        self._objects = list(objects)
        del blocker

    def show_presets(self, presets: Iterable[Preset]) -> None:
        """Fill the menu of "New object"."""
        self.menu.clear()
        field = QLineEdit()
        field.setPlaceholderText("Name, then Enter")
        field.setToolTip("Add an object of this name")
        field.returnPressed.connect(lambda: self._add_named(field.text()))
        typed = QWidgetAction(self.menu)
        typed.setDefaultWidget(field)
        self.menu.addAction(typed)
        organs: dict[str, QMenu] = {}
        for preset in presets:
            if preset.organ not in organs:
                organs[preset.organ] = self.menu.addMenu(preset.organ)
            action = organs[preset.organ].addAction(preset.name)
            if preset.colour is not None:
                action.setIcon(swatch(preset.colour))
            action.triggered.connect(lambda _=False, own=preset: self.added.emit(own.name, own.colour))
        self.menu.addSeparator()
        self.menu.addAction("Edit presets…").triggered.connect(lambda: self.presets_edited.emit())

    def _item(self, own: Structure) -> QTreeWidgetItem:
        item = QTreeWidgetItem()
        item.setData(_NAME, _ID, own.object_id)
        item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
        return item

    def _fill(self, item: QTreeWidgetItem, own: Structure) -> None:
        ink = self._ink()
        item.setText(_NAME, own.name)
        item.setToolTip(_NAME, f"{own.name}. Double-click to name it; Shift+N chooses the next object.")
        item.setIcon(_NAME, swatch(own.colour))
        item.setIcon(_EYE, eye(ink, not own.hidden))
        item.setIcon(_LOCK, padlock(ink, own.locked))
        item.setToolTip(_EYE, "Hidden: click to show it (Shift+H)" if own.hidden else "Shown: click to hide (Shift+H)")
        item.setToolTip(
            _LOCK, "Locked: click to change it again (Shift+F)" if own.locked else "Click to lock it (Shift+F)"
        )

    def _ink(self) -> QColor:
        return self.list.palette().color(self.list.foregroundRole())

    def changeEvent(self, event: QEvent | None) -> None:
        """Draw the icons anew in another theme's colours."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            blocker = QSignalBlocker(self.list)
            for row, own in enumerate(self._objects):
                self._fill(self.list.topLevelItem(row), own)
            del blocker

    # Signals out ----------------------------------------------------------------------------------------------------

    def _current(self) -> Structure | None:
        row = self.list.indexOfTopLevelItem(self.list.currentItem()) if self.list.currentItem() is not None else -1
        return self._objects[row] if 0 <= row < len(self._objects) else None

    def _emit_for_current(self, signal: Signal) -> None:
        own = self._current()
        if own is not None:
            signal.emit(own.object_id)

    def _on_current(self, item: QTreeWidgetItem | None) -> None:
        if item is not None:
            self.chosen.emit(item.data(_NAME, _ID))

    def _on_renamed(self, item: QTreeWidgetItem, column: int) -> None:
        if column == _NAME:
            self.renamed.emit(item.data(_NAME, _ID), item.text(_NAME))

    def _on_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        own = self._objects[self.list.indexOfTopLevelItem(item)]
        if column == _EYE:
            self.hidden.emit(own.object_id, not own.hidden)
        elif column == _LOCK:
            self.locked.emit(own.object_id, not own.locked)

    def _on_double_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        if column == _NAME:
            self.list.editItem(item, _NAME)

    def _ask_colour(self) -> None:
        own = self._current()
        if own is not None:
            found = QColorDialog.getColor(QColor(*own.colour), self, f"Colour of {own.name}")
            if found.isValid():
                self.coloured.emit(own.object_id, (found.red(), found.green(), found.blue()))

    def _add_named(self, name: str) -> None:
        self.menu.close()
        if name.strip():
            self.added.emit(name.strip(), None)


def _below(button: QPushButton) -> QPoint:
    return button.mapToGlobal(button.rect().bottomLeft())
