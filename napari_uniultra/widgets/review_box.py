"""The part of the panel for looking over what was found: accept, mend, undo, measure, save."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QFileDialog, QGridLayout, QGroupBox

from napari_uniultra.io.writers.formats import FORMATS
from napari_uniultra.widgets.parts import push_button

_MEASUREMENTS = "Measurements (*.csv)"


class ReviewBox(QGroupBox):
    """Buttons; what they do is not known here."""

    accepted = Signal()  # the frame shown, or no longer
    accepted_all = Signal()
    filled = Signal()
    undone = Signal()
    redone = Signal()
    measured = Signal()
    exported = Signal(str)  # the file

    def __init__(self) -> None:
        super().__init__("Review")
        self.accept_button = push_button(
            "Accept frame", "This frame is right: never change it, and let it guide tracking (G)", checkable=True
        )
        self.accept_all_button = push_button("Accept all", "All frames are right as they are (Shift+G)")
        self.fill_button = push_button(
            "Fill between",
            "Fill the frames between the two nearest that you marked or accepted, where tracking fails (H)",
        )
        self.undo_button = push_button("Undo", "Take back the last change (U)")
        self.redo_button = push_button("Redo", "Make it again (Shift+U)")
        self.measure_button = push_button("Measure", "Areas, diameters and beats, as a table and over time (Shift+M)")
        self.export_button = push_button("Export…", "Save masks or measurements to a file (Shift+E)")
        grid = QGridLayout(self)
        grid.setHorizontalSpacing(6)
        rows = (
            (self.accept_button, self.accept_all_button, self.fill_button),
            (self.undo_button, self.redo_button, None),
            (self.measure_button, self.export_button, None),
        )
        for row, buttons in enumerate(rows):
            for column, button in enumerate(button for button in buttons if button is not None):
                width = 6 // sum(button is not None for button in buttons)
                grid.addWidget(button, row, column * width, 1, width)
        self.accept_button.clicked.connect(lambda: self.accepted.emit())
        self.accept_all_button.clicked.connect(lambda: self.accepted_all.emit())
        self.fill_button.clicked.connect(lambda: self.filled.emit())
        self.undo_button.clicked.connect(lambda: self.undone.emit())
        self.redo_button.clicked.connect(lambda: self.redone.emit())
        self.measure_button.clicked.connect(lambda: self.measured.emit())
        self.export_button.clicked.connect(self.ask_and_export)

    def refresh(self, *, has_image: bool, has_results: bool, can_undo: bool, can_redo: bool) -> None:
        """Enable what can be done."""
        for button in (self.accept_all_button, self.fill_button, self.export_button):
            button.setEnabled(has_image and has_results)
        self.undo_button.setEnabled(can_undo)
        self.redo_button.setEnabled(can_redo)

    def show_frame(self, on_loop: bool, accepted: bool) -> None:
        """Show whether the frame shown is one of the loop, and is accepted."""
        self.accept_button.setEnabled(on_loop)
        blocker = QSignalBlocker(self.accept_button)
        self.accept_button.setChecked(accepted)
        del blocker

    def ask_and_export(self) -> None:
        """Ask for a file; its suffix, or the kind chosen with it, says what is written."""
        kinds = {f"Masks, {entry.title} (*{entry.suffixes[0]})": entry.suffixes for entry in FORMATS}
        kinds[_MEASUREMENTS] = (".csv",)
        path, kind = QFileDialog.getSaveFileName(self, "Export", "masks.tif", ";;".join(kinds))
        if path:
            known = tuple(suffix for suffixes in kinds.values() for suffix in suffixes)
            self.exported.emit(path if path.lower().endswith(known) else path + kinds.get(kind, known)[0])
