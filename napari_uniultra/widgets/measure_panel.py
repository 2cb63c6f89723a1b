"""The panel "Measure": what masks measure, as a table and over time; beats, and the long axis of a ventricle."""

from __future__ import annotations

from typing import Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QGuiApplication, QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHeaderView,
    QLabel,
    QSpinBox,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.core.csv_table import clipboard_text
from napari_uniultra.core.measure import CycleMeasurement
from napari_uniultra.errors import UniUltraError
from napari_uniultra.io.writers import write_cycles_csv, write_measurements_csv
from napari_uniultra.io.writers.measurements import measurement_table
from napari_uniultra.plugin.measure_host import MeasureController, labels_layers, masks_to_measure, title_of_masks
from napari_uniultra.widgets.area_plot import AreaPlot
from napari_uniultra.widgets.docks import DockPanel, find_panel
from napari_uniultra.widgets.measure_table import MeasurementModel
from napari_uniultra.widgets.parts import push_button, row_of, scrolling, short_list, tell
from napari_uniultra.widgets.worker import InferenceThread

_RESEARCH_USE = "For research use. Not a medical device."
_OF_SEVERAL = (
    "Several loops of this size, with other scales or times, are open, so the masks are measured in pixels and frames. "
    "Choose theirs under Loop in the panel Segment loop."
)
_NO_MASKS = "Segment a structure, or open its masks, to measure it"


class MeasurePanel(DockPanel):
    """The measurements of one Labels layer.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        if self.is_second:
            return
        self.thread_ = InferenceThread()
        self.controller = MeasureController(napari_viewer, self.thread_)
        self._build()
        self._connect()
        self._wanted: Any = None  # the image layer whose masks are to be shown as soon as there are any
        segment = find_panel(napari_viewer, "Segment loop")
        self.show_masks_of(None if segment is None else segment.controller.image)
        self.controller.start()

    # Building -------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 4, 4, 4)
        column.addWidget(self._build_source())
        self.plot = AreaPlot()
        column.addWidget(self.plot)
        column.addWidget(self._build_beats())
        column.addWidget(self._build_table(), 1)
        self.copy_button = push_button("Copy", "Copy the measurements of all objects, for a spreadsheet")
        self.save_button = push_button("Save CSV…", "Save the measurements of all objects")
        self.save_beats_button = push_button("Save beats…", "Save end-diastole, end-systole and what they measure")
        column.addLayout(row_of(self.copy_button, self.save_button, self.save_beats_button))
        self.status = QLabel(_NO_MASKS)
        self.status.setWordWrap(True)
        research = QLabel(_RESEARCH_USE)
        research.setEnabled(False)
        research.setWordWrap(True)
        column.addWidget(self.status)
        column.addWidget(research)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolling(content))

    def _build_source(self) -> QWidget:
        self.layer_box = short_list("The masks to measure")
        self.object_box = short_list("The object in the table, and whose beats are found")
        group = QGroupBox("Masks")
        form = QFormLayout(group)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Layer", self.layer_box)
        form.addRow("Object", self.object_box)
        return group

    def _build_beats(self) -> QWidget:
        self.beat_box = QSpinBox()
        self.beat_box.setPrefix("Beat ")
        self.beat_box.setToolTip("Which heart beat")
        self.axis_button = push_button(
            "Long axis", "Show the long axis as a line whose ends can be moved", checkable=True
        )
        self.again_button = push_button("Find again", "Forget the beats and axes that were moved by hand")
        self.beat_words = QLabel()
        self.beat_words.setWordWrap(True)
        self.beat_words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        group = QGroupBox("Beats")
        layout = QVBoxLayout(group)
        layout.addWidget(self.beat_box)
        layout.addLayout(row_of(self.axis_button, self.again_button))
        layout.addWidget(self.beat_words)
        return group

    def _build_table(self) -> QWidget:
        self.model = MeasurementModel()
        self.table = QTableView()
        self.table.setModel(self.model)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.setMinimumHeight(120)
        return self.table

    # Connections ----------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        control, layers = self.controller, self._viewer.layers.events
        for emitter in (layers.inserted, layers.removed, layers.reordered):
            emitter.connect(self._list_layers)
        self.layer_box.currentIndexChanged.connect(self._on_layer)
        self.object_box.currentIndexChanged.connect(self._on_object)
        self.beat_box.valueChanged.connect(lambda beat: control.choose_beat(beat - 1))
        self.axis_button.clicked.connect(control.show_axis)
        self.again_button.clicked.connect(control.find_cycles_again)
        self.plot.frame_chosen.connect(control.go_to)
        self.plot.ed_moved.connect(lambda frame: control.set_frames_of_cycle(ed=frame))
        self.plot.es_moved.connect(lambda frame: control.set_frames_of_cycle(es=frame))
        self.table.selectionModel().currentRowChanged.connect(self._on_row)
        self.copy_button.clicked.connect(self.copy)
        self.save_button.clicked.connect(lambda: self._ask_and_save("measurements.csv", self.save))
        self.save_beats_button.clicked.connect(lambda: self._ask_and_save("beats.csv", self.save_beats))
        control.changed.connect(self._refresh)
        control.frame_changed.connect(self._on_frame)
        control.failed.connect(tell)
        self.destroyed.connect(lambda: self._let_go())

    def show_masks_of(self, image: Any) -> None:
        """Measure the masks of an image layer, as soon as there are any; None leaves the choice as it is."""
        self._wanted = image
        self.controller.use_image(image)
        self._list_layers()

    def _list_layers(self, event: Any = None) -> None:
        found = labels_layers(self._viewer)
        chosen = masks_to_measure(found, self._wanted, self.controller.layer)
        blocker = QSignalBlocker(self.layer_box)
        self.layer_box.clear()
        for layer in found:
            self.layer_box.addItem(title_of_masks(self._viewer, layer), layer)
        for layer in self._viewer.layers:
            layer.events.name.connect(self._on_renamed)  # connecting twice counts once
        self.layer_box.setCurrentIndex(next((row for row, layer in enumerate(found) if layer == chosen), -1))
        del blocker
        self._measure(chosen)

    def _on_renamed(self, event: Any = None) -> None:
        for row in range(self.layer_box.count()):
            self.layer_box.setItemText(row, title_of_masks(self._viewer, self.layer_box.itemData(row)))

    def _on_layer(self, index: int) -> None:
        self._wanted = None  # the user's choice counts
        self._measure(self.layer_box.itemData(index) if index >= 0 else None)

    def _measure(self, layer: Any) -> None:
        self.controller.set_layer(layer)
        self._refresh()

    def _on_object(self, index: int) -> None:
        if index >= 0:
            self.controller.choose_object(self.object_box.itemData(index))

    def _on_row(self, current: Any, _previous: Any) -> None:
        if current.isValid():
            self.controller.go_to(self.model.frames[current.row()])

    def _on_frame(self, frame: int) -> None:
        self.plot.show_frame(frame)
        if frame in self.model.frames:
            blocker = QSignalBlocker(self.table.selectionModel())
            row = self.model.frames.index(frame)
            self.table.selectRow(row)
            self.table.scrollTo(self.model.index(row, 0))
            del blocker
            self.table.viewport().update()
        else:
            self.table.clearSelection()

    # Showing --------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        control, cine = self.controller, self.controller.cine
        in_mm = cine is not None and cine.spacing_mm is not None
        in_ms = cine is not None and cine.frame_times_s is not None
        self._list_objects()
        self.model.show([row for row in control.rows if row.object_id == control.object_id], in_mm, in_ms)
        curves = {number: control.curve(number) for number in control.objects}
        units = "ms" if in_ms else "frame", "mm²" if in_mm else "px"
        self.plot.show_curves(control.positions(), curves, control.object_id, *units, control.colours)
        self._show_beats(in_mm)
        self._on_frame(control.frame)
        for button in (self.copy_button, self.save_button):
            button.setEnabled(bool(control.rows))
        self.status.setText(_OF_SEVERAL if control.is_of_several else _status(bool(control.rows), in_mm, in_ms))

    def _list_objects(self) -> None:
        blocker = QSignalBlocker(self.object_box)
        self.object_box.clear()
        for number, name in self.controller.objects.items():
            self.object_box.addItem(name, number)
        self.object_box.setCurrentIndex(self.object_box.findData(self.controller.object_id))
        del blocker

    def _show_beats(self, in_mm: bool) -> None:
        control = self.controller
        cycle, count = control.cycle, len(control.cycles)
        self.plot.show_cycle(*(None, None) if cycle is None else (cycle.ed, cycle.es))
        blocker = QSignalBlocker(self.beat_box)
        self.beat_box.setRange(min(1, count), count)
        self.beat_box.setValue(control.beat + 1)
        self.beat_box.setSuffix(f" of {count}")
        del blocker
        for widget in (self.beat_box, self.again_button, self.save_beats_button):
            widget.setEnabled(cycle is not None)
        self.axis_button.setEnabled(cycle is not None or control.axis_shown)  # what is on can be turned off
        blocker = QSignalBlocker(self.axis_button)
        self.axis_button.setChecked(control.axis_shown)
        del blocker
        measured = control.measured_cycle()
        self.beat_words.setText("The area does not change like a beat" if measured is None else _words(measured, in_mm))

    # Taking away ----------------------------------------------------------------------------------------------------

    def copy(self) -> None:
        """Put the measurements of all objects on the clipboard, with tabs between the cells."""
        QGuiApplication.clipboard().setText(clipboard_text(measurement_table(self.controller.rows)))

    def save(self, path: str) -> None:
        """Write the measurements of all objects as CSV."""
        write_measurements_csv(path, self.controller.rows)

    def save_beats(self, path: str) -> None:
        """Write the beats of the chosen object as CSV."""
        control = self.controller
        found = [control.measured_cycle(cycle) for cycle in control.cycles]
        write_cycles_csv(path, [cycle for cycle in found if cycle is not None], control.cine.spacing_mm is not None)

    def _ask_and_save(self, name: str, save: Any) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save measurements", name, "Tables (*.csv)")
        if path:
            try:
                save(path)
            except UniUltraError as error:
                tell(error)
            else:
                show_info("The measurements are saved")

    # The end --------------------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent | None) -> None:
        """Begin to look for changes."""
        super().showEvent(event)
        if not self.is_second:
            self.controller.start()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Nobody looks: neither does the controller."""
        super().hideEvent(event)
        if not self.is_second:
            self.controller.pause()

    def end(self) -> None:
        """Stop measuring."""
        self.controller.pause()
        self.thread_.stop()

    def dock_closed(self) -> None:
        """Take the lines of the long axes away, which nobody follows any more."""
        self.controller.show_axis(False)

    def _let_go(self) -> None:
        """Undo every connection to the viewer, which outlives the panel. The Qt side of the panel is gone by now."""
        self.thread_.stop()
        self.controller.disconnect_viewer()
        layers = self._viewer.layers.events
        for emitter in (layers.inserted, layers.removed, layers.reordered):
            emitter.disconnect(self._list_layers)
        for layer in self._viewer.layers:
            layer.events.name.disconnect(self._on_renamed)


def _words(cycle: CycleMeasurement, in_mm: bool) -> str:
    area, volume = ("mm²", "ml") if in_mm else ("px", "px³")
    ed, es = (
        f"frame {frame}" + ("" if ms is None else f" ({ms:.0f} ms)")
        for frame, ms in ((cycle.ed_frame, cycle.ed_time_ms), (cycle.es_frame, cycle.es_time_ms))
    )
    lines = [
        f"End-diastole {ed}, {cycle.ed_area:.1f} {area}. End-systole {es}, {cycle.es_area:.1f} {area}.",
        f"Fractional area change {_percent(cycle.fractional_area_change)}.",
    ]
    if cycle.ejection_fraction is not None:
        lines.append(
            f"By discs, one plane: {cycle.ed_volume:.1f} and {cycle.es_volume:.1f} {volume}, "
            f"ejection fraction {_percent(cycle.ejection_fraction)}."
        )
    return " ".join(lines)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def _status(any_rows: bool, in_mm: bool, in_ms: bool) -> str:
    if not any_rows:
        return _NO_MASKS
    unknown = [word for word, known in (("the size of a pixel", in_mm), ("the frame times", in_ms)) if not known]
    return f"Not known: {' and '.join(unknown)}" if unknown else ""
