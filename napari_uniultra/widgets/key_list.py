"""The cheat sheet: every key of the panel and what it does."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_uniultra.widgets.keys import KEYS, OWN_LAYERS_KEYS, WORDS, key_in_words

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
            name = QLabel(f"<b>{key_in_words(key, ' + ')}</b>")
            name.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            grid.addWidget(name, row, 2 * column)
            grid.addWidget(QLabel(WORDS[action]), row, 2 * column + 1)
        undo, redo = (key_in_words(OWN_LAYERS_KEYS[action]) for action in ("undo", "redo"))
        note = QLabel(
            f"They work whichever layer is chosen. On the panel's own layers {undo} and {redo} undo and redo."
        )
        note.setWordWrap(True)
        column = QVBoxLayout(self)
        column.addLayout(grid)
        column.addWidget(note)
