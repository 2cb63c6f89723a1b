"""The cheat sheet: every key of the panel and what it does."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_uniultra.widgets.keys import KEYS, WORDS

_COLUMNS = 2


class KeyList(QDialog):
    """A window that stays beside the work until it is closed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keys of the panel")
        grid = QGridLayout()
        grid.setHorizontalSpacing(14)
        rows = -(-len(KEYS) // _COLUMNS)
        for index, (action, key) in enumerate(KEYS.items()):
            column, row = divmod(index, rows)
            name = QLabel(f"<b>{key.replace('-', ' + ')}</b>")
            name.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            grid.addWidget(name, row, 2 * column)
            grid.addWidget(QLabel(WORDS[action]), row, 2 * column + 1)
        note = QLabel(
            "They work whichever layer is chosen. On the panel's own layers Ctrl+Z and Ctrl+Shift+Z undo and redo."
        )
        note.setWordWrap(True)
        column = QVBoxLayout(self)
        column.addLayout(grid)
        column.addWidget(note)
