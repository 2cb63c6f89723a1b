"""The list of objects: choose, add, name and remove them."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget

from napari_uniultra.core.palette import colour_of

_ID = Qt.ItemDataRole.UserRole
_ICON_PX = 12
_ROWS_SHOWN = 3


class ObjectList(QWidget):
    """Objects with their colours; double-click, or F2, to name one."""

    chosen = Signal(int)
    renamed = Signal(int, str)
    added = Signal()
    removed = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.list = QListWidget()
        self.list.setToolTip("The object that you draw for. Double-click to name it. (Shift+N: next object)")
        self.list.currentItemChanged.connect(self._on_current)
        self.list.itemChanged.connect(self._on_renamed)
        self.add_button = QPushButton("New object")
        self.add_button.setToolTip("Add another structure to segment (N)")
        self.add_button.clicked.connect(lambda: self.added.emit())
        self.remove_button = QPushButton("Delete object")
        self.remove_button.setToolTip("Delete the chosen object with its drawings and masks")
        self.remove_button.clicked.connect(self._on_remove)
        buttons = QHBoxLayout()
        buttons.addWidget(self.add_button)
        buttons.addWidget(self.remove_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.list)
        layout.addLayout(buttons)
        self._fit_height()

    def show_objects(self, objects: Mapping[int, str], current: int) -> None:
        """Show objects, id to name, with one of them chosen. Emits nothing."""
        blocker = QSignalBlocker(self.list)
        if self._shown() != dict(objects):
            self.list.clear()
            for object_id, name in sorted(objects.items()):
                self.list.addItem(_item(object_id, name))
            self._fit_height()
        for row in range(self.list.count()):
            if self.list.item(row).data(_ID) == current:
                self.list.setCurrentRow(row)
        del blocker

    def _shown(self) -> dict[int, str]:
        items = [self.list.item(row) for row in range(self.list.count())]
        return {item.data(_ID): item.text() for item in items}

    def _fit_height(self) -> None:
        row = max(self.list.sizeHintForRow(0), self.fontMetrics().height() + 6)
        self.list.setFixedHeight(row * _ROWS_SHOWN + 2 * self.list.frameWidth() + 4)

    def _on_current(self, item: QListWidgetItem | None) -> None:
        if item is not None:
            self.chosen.emit(item.data(_ID))

    def _on_renamed(self, item: QListWidgetItem) -> None:
        self.renamed.emit(item.data(_ID), item.text())

    def _on_remove(self) -> None:
        item = self.list.currentItem()
        if item is not None:
            self.removed.emit(item.data(_ID))


def _item(object_id: int, name: str) -> QListWidgetItem:
    colour = QPixmap(_ICON_PX, _ICON_PX)
    colour.fill(QColor(*colour_of(object_id)))
    item = QListWidgetItem(QIcon(colour), name)
    item.setData(_ID, object_id)
    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
    return item
