"""The part of the panel for marking a frame: tools, brush, and when the model answers."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QSpinBox,
    QVBoxLayout,
)

from napari_uniultra.widgets.parts import push_button

_LARGEST_BRUSH_PX = 200
_TOOLS = {
    "box": ("Box", "Drag a box around the structure (Q)"),
    "add": ("Add", "Click what belongs to the structure (W)"),
    "remove": ("Remove", "Click what does not belong to it (Shift+W)"),
    "paint": ("Paint", "Paint the structure's mask (Shift+B)"),
    "erase": ("Erase", "Wipe away parts of its mask (Shift+R). All of it: the structure is not in this frame."),
}


class MarksBox(QGroupBox):
    """Buttons and what they show; what they do is not known here."""

    tool_toggled = Signal(str, bool)  # taken in hand, or put away
    absent_toggled = Signal()
    brush_changed = Signal(int)  # pixels
    auto_toggled = Signal(bool)
    segment_asked = Signal()
    exact_toggled = Signal(bool)

    def __init__(self) -> None:
        super().__init__("Mark on this frame")
        self.tools = {tool: push_button(words, tip, checkable=True) for tool, (words, tip) in _TOOLS.items()}
        self.absent_button = push_button(
            "Not here", "The structure is not in this frame: no mask, and tracking knows it (0)", checkable=True
        )
        self.brush_size = QSpinBox()
        self.brush_size.setRange(1, _LARGEST_BRUSH_PX)
        self.brush_size.setSuffix(" px")
        self.brush_size.setKeyboardTracking(False)
        self.brush_size.setToolTip("Diameter of the brush. On the masks' layer also [ and ]")
        self.auto_box = QCheckBox("Segment as I mark")
        self.auto_box.setChecked(True)
        self.auto_box.setToolTip("On: each mark is answered at once. Off: marks are collected until Segment.")
        self.segment_button = push_button("Segment", "Answer the marks that were collected (Shift+S)")
        self.exact_box = QCheckBox("Drawn outlines are exact")
        self.exact_box.setToolTip("On: an ellipse or polygon is the mask as drawn. Off: the model starts from its box.")
        self._lay_out()
        for tool, button in self.tools.items():
            button.clicked.connect(lambda checked, tool=tool: self.tool_toggled.emit(tool, checked))
        self.absent_button.clicked.connect(lambda: self.absent_toggled.emit())
        self.brush_size.valueChanged.connect(self.brush_changed)
        self.auto_box.toggled.connect(self.auto_toggled)
        self.segment_button.clicked.connect(lambda: self.segment_asked.emit())
        self.exact_box.toggled.connect(self.exact_toggled)

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setHorizontalSpacing(6)
        for index, button in enumerate((*self.tools.values(), self.absent_button)):
            grid.addWidget(button, *divmod(index, 3))
        brush, answer = QHBoxLayout(), QHBoxLayout()
        brush.addWidget(QLabel("Brush"))
        brush.addWidget(self.brush_size)
        brush.addStretch(1)
        answer.addWidget(self.auto_box, 1)
        answer.addWidget(self.segment_button)
        column = QVBoxLayout(self)
        for part in (grid, brush, answer):
            column.addLayout(part)
        column.addWidget(self.exact_box)

    def refresh(
        self, *, enabled: bool, on_frame: bool, tool: str | None, absent: bool, collected: bool, brush_size: int
    ) -> None:
        """Show the tool in hand, the brush, and what there is to do. Emits nothing."""
        self.setEnabled(enabled)
        self.absent_button.setEnabled(on_frame)
        for name, button in self.tools.items():
            _check(button, name == tool)
        _check(self.absent_button, absent)
        blocker = QSignalBlocker(self.brush_size)
        self.brush_size.setValue(brush_size)
        del blocker
        self.segment_button.setEnabled(collected)


def _check(button: QAbstractButton, on: bool) -> None:
    blocker = QSignalBlocker(button)
    button.setChecked(on)
    del blocker
