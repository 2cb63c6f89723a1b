"""Save and open a session file."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QWidget

from napari_uniultra.widgets.keys import KEYS, key_in_words
from napari_uniultra.widgets.parts import push_button

_FILES = "Sessions (*.uniultra)"
_NAME = "session.uniultra"  # the loop's own name may be a patient's


class SessionButtons(QWidget):
    """Asks for the file, and says which."""

    save_asked = Signal(str)  # path
    open_asked = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        to_open, to_save = (key_in_words(KEYS[action]) for action in ("open_session", "save_session"))
        self.open_button = push_button("Open session…", f"Bring back marks, masks and markers ({to_open})")
        self.save_button = push_button(
            "Save session…", f"Save marks, masks, markers and measurements to a file, without the loop ({to_save})"
        )
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.open_button, 1)
        row.addWidget(self.save_button, 1)
        self.open_button.clicked.connect(self.ask_open)
        self.save_button.clicked.connect(self.ask_save)

    def ask_open(self) -> None:
        """Ask which file to open."""
        path, _ = QFileDialog.getOpenFileName(self, "Open a session", "", _FILES + ";;Older sessions (*.npz)")
        if path:
            self.open_asked.emit(path)

    def ask_save(self) -> None:
        """Ask where to save."""
        path, _ = QFileDialog.getSaveFileName(self, "Save the session", _NAME, _FILES)
        if path:
            self.save_asked.emit(path)
