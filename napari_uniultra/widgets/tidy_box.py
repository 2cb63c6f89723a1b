"""The part of the panel that tidies masks, with a preview."""

from __future__ import annotations

from dataclasses import fields

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QFormLayout, QSpinBox, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_uniultra.core.postprocess import TidySettings
from napari_uniultra.widgets.parts import push_button, row_of

_HELP = {item.name: item.metadata["help"] for item in fields(TidySettings)}
_LARGEST_SPECK_PX = 100_000


class TidyBox(QCollapsible):
    """Settings, a preview of the frame shown, and a button that applies them to all frames."""

    previewed = Signal(object)  # TidySettings, or None when the preview is off
    applied = Signal(object)  # TidySettings

    def __init__(self) -> None:
        super().__init__("Tidy masks")
        self.largest_box = QCheckBox("Largest piece only")
        self.holes_box = QCheckBox("Fill holes")
        self.smooth_box = _number(" px", _HELP["smooth_px"], 50)
        self.steady_box = _number(" frames", _HELP["smooth_frames"], 20)
        self.speck_box = QSpinBox()
        self.speck_box.setRange(0, _LARGEST_SPECK_PX)
        self.speck_box.setSuffix(" px")
        self.speck_box.setSpecialValueText("none")
        for control, name in (
            (self.largest_box, "largest_piece"),
            (self.holes_box, "fill_holes"),
            (self.speck_box, "smallest_px"),
        ):
            control.setToolTip(_HELP[name])
        self.preview_button = push_button("Preview", "Outline what the frame shown would become", checkable=True)
        self.apply_button = push_button("Apply", "Tidy all frames but those that you painted or accepted")
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row_of(self.largest_box, self.holes_box))
        form = QFormLayout()
        form.addRow("Smooth outlines", self.smooth_box)
        form.addRow("Steady over time", self.steady_box)
        form.addRow("Remove specks below", self.speck_box)
        column.addLayout(form)
        column.addLayout(row_of(self.preview_button, self.apply_button))
        self.addWidget(content)
        for box in (self.largest_box, self.holes_box):
            box.toggled.connect(self.preview)
        for box in (self.smooth_box, self.steady_box, self.speck_box):
            box.valueChanged.connect(self.preview)
        self.preview_button.toggled.connect(self.preview)
        self.apply_button.clicked.connect(self._apply)
        self.toggled.connect(self._on_toggled)

    def settings(self) -> TidySettings:
        """What is set."""
        return TidySettings(
            largest_piece=self.largest_box.isChecked(),
            fill_holes=self.holes_box.isChecked(),
            smooth_px=self.smooth_box.value(),
            smallest_px=self.speck_box.value(),
            smooth_frames=self.steady_box.value(),
        )

    def preview(self) -> None:
        """Ask for the preview of the frame shown, or for none."""
        self.previewed.emit(self.settings() if self.preview_button.isChecked() else None)

    def _apply(self) -> None:
        self.preview_button.setChecked(False)
        self.applied.emit(self.settings())

    def _on_toggled(self, is_open: bool) -> None:
        if not is_open:
            self.preview_button.setChecked(False)


def _number(unit: str, tip: str, high: float) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(0, high)
    box.setSingleStep(0.5)
    box.setDecimals(1)
    box.setSuffix(unit)
    box.setSpecialValueText("no")
    box.setToolTip(tip)
    return box
