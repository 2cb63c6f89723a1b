"""The panel "Segment loop": choose a loop, mark a structure, track it, correct it."""

from __future__ import annotations

import logging
from typing import Any

from napari.layers import Image
from napari.utils.notifications import show_warning
from qtpy.QtCore import QEvent, QObject, QSignalBlocker, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.plugin.controller import SegmentController
from napari_uniultra.plugin.tracker import Progress
from napari_uniultra.widgets.first_steps import FirstSteps
from napari_uniultra.widgets.key_list import KeyList
from napari_uniultra.widgets.keys import Shortcuts
from napari_uniultra.widgets.model_box import ModelBox
from napari_uniultra.widgets.object_list import ObjectList
from napari_uniultra.widgets.parts import push_button, row_of, tell
from napari_uniultra.widgets.review_box import ReviewBox
from napari_uniultra.widgets.session_buttons import SessionButtons
from napari_uniultra.widgets.spacing_control import SpacingControl
from napari_uniultra.widgets.tidy_box import TidyBox
from napari_uniultra.widgets.worker import InferenceThread

_log = logging.getLogger(__name__)

_RESEARCH_USE = "For research use. Not a medical device."


class SegmentPanel(QWidget):
    """The main panel.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._window: QObject | None = None
        self._chosen: Any = None
        self.thread_ = InferenceThread()
        self.controller = SegmentController(napari_viewer, self.thread_)
        self.shortcuts = Shortcuts(napari_viewer, self._actions())
        self._build()
        self._connect()
        self.controller.set_model(self.model_box.name, self.model_box.device)
        self._list_images()

    # Building -------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setSpacing(6)
        self.first_steps, self.review_box, self.tidy_box = FirstSteps(), ReviewBox(), TidyBox()
        for part in (
            self.first_steps,
            self._build_source(),
            self._build_objects(),
            self._build_marks(),
            self._build_tracking(),
            self.review_box,
            self.tidy_box,
        ):
            column.addWidget(part)
        column.addStretch(1)
        scroll = QScrollArea()  # the panel may share the window's side with others
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setWidget(content)
        self.status = QLabel("Open an ultrasound loop to begin")
        self.status.setWordWrap(True)
        research = QLabel(_RESEARCH_USE)
        research.setEnabled(False)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.addWidget(scroll, 1)
        outer.addWidget(self.status)
        self.keys_button = push_button("Keys", "What each key does (/)")
        foot = QHBoxLayout()
        foot.addWidget(research, 1)
        foot.addWidget(self.keys_button)
        outer.addLayout(foot)
        self.key_list = KeyList(self)
        self.setMinimumWidth(290)

    def _build_source(self) -> QWidget:
        self.image_box = QComboBox()
        self.image_box.setToolTip("The image layer to work on")
        self.spacing_control = SpacingControl(self._viewer, lambda: self.controller.image)
        self.model_box = ModelBox(self)
        self.session_buttons = SessionButtons()
        self.restore_button = QPushButton("Restore saved work")
        self.restore_button.setToolTip("Bring back marks and masks of this loop from the last time")
        group = QGroupBox("Loop and model")
        form = QFormLayout(group)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Loop", self.image_box)
        form.addRow("Scale", self.spacing_control)
        self.model_box.add_rows(form)
        form.addRow(self.restore_button)
        form.addRow(self.session_buttons)
        return group

    def _build_objects(self) -> QWidget:
        self.object_list = ObjectList()
        group = QGroupBox("Objects")
        QVBoxLayout(group).addWidget(self.object_list)
        return group

    def _build_marks(self) -> QWidget:
        self.box_button = push_button("Box", "Drag a box around the structure (Q)", checkable=True)
        self.add_button = push_button("Add", "Click what belongs to the structure (W)", checkable=True)
        self.remove_button = push_button("Remove", "Click what does not belong to it (Shift+W)", checkable=True)
        self._tools = {"box": self.box_button, "add": self.add_button, "remove": self.remove_button}
        self._tool_group = QButtonGroup(self)
        self._tool_group.setExclusive(False)  # exclusive would not let the tool in hand be put away
        for button in self._tools.values():
            self._tool_group.addButton(button)
        self.outline_box = QCheckBox("Drawn outlines are exact")
        self.outline_box.setToolTip(
            "On: an ellipse or polygon is the mask as drawn. Off: the model starts from its box."
        )
        group = QGroupBox("Mark on this frame")
        layout = QVBoxLayout(group)
        layout.addLayout(row_of(*self._tools.values()))
        layout.addWidget(self.outline_box)
        return group

    def _build_tracking(self) -> QWidget:
        self.backward_button = push_button("◀ Back", "Track backward to the start of the loop (,)")
        self.both_button = push_button("◀ Both ▶", "Track through the whole loop (J)")
        self.forward_button = push_button("Forward ▶", "Track forward to the end of the loop (.)")
        self.progress = QProgressBar()
        self.progress.setFormat("")
        self.progress.setTextVisible(True)
        self.cancel_button = push_button("Cancel", "Stop after the present frame; what is done stays (K)")
        group = QGroupBox("Track")
        layout = QVBoxLayout(group)
        layout.addLayout(row_of(self.backward_button, self.both_button, self.forward_button))
        row = QHBoxLayout()
        row.addWidget(self.progress, 1)
        row.addWidget(self.cancel_button)
        layout.addLayout(row)
        self.pace = QLabel()
        layout.addWidget(self.pace)
        return group

    # Connections ----------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        control, layers = self.controller, self._viewer.layers.events
        for emitter in (layers.inserted, layers.removed, layers.reordered):
            emitter.connect(self._list_images)
        self._viewer.dims.events.current_step.connect(self._on_frame)
        self.image_box.currentIndexChanged.connect(self._on_image_chosen)
        self.model_box.chosen.connect(control.set_model)
        self.session_buttons.open_asked.connect(control.files.open)
        self.session_buttons.save_asked.connect(control.files.save)
        control.files.image_found.connect(self._choose_image)
        control.files.model_found.connect(self.model_box.choose)
        self.restore_button.clicked.connect(control.review.restore)
        self.object_list.chosen.connect(control.objects.choose)
        self.object_list.renamed.connect(control.objects.rename)
        self.object_list.added.connect(control.objects.add)
        self.object_list.removed.connect(control.objects.remove)
        for tool, button in self._tools.items():
            button.clicked.connect(lambda checked, tool=tool: self._on_tool(tool, checked))
        self.outline_box.toggled.connect(control.marks.set_outlines_as_masks)
        self.backward_button.clicked.connect(lambda: control.tracker.track("backward"))
        self.both_button.clicked.connect(lambda: control.tracker.track("both"))
        self.forward_button.clicked.connect(lambda: control.tracker.track("forward"))
        self.cancel_button.clicked.connect(control.tracker.cancel)
        review = self.review_box
        review.accepted.connect(control.review.accept_frame)
        review.accepted_all.connect(control.review.accept_all)
        review.filled.connect(control.review.fill_between)
        review.undone.connect(control.review.undo)
        review.redone.connect(control.review.redo)
        review.measured.connect(self.open_measurements)
        review.exported.connect(control.review.export)
        self.tidy_box.previewed.connect(control.review.preview_tidy)
        self.tidy_box.applied.connect(control.review.tidy)
        self.first_steps.sample_asked.connect(lambda: self._viewer.open_sample("napari-uniultra", "heart"))
        self.keys_button.clicked.connect(self.key_list.show)
        control.changed.connect(self._refresh)
        control.status_changed.connect(self.status.setText)
        control.tracker.progressed.connect(self._on_progress)
        control.noticed.connect(_warn)
        control.failed.connect(tell)
        control.model_loaded.connect(self.model_box.show_loaded)
        self._still_open = QTimer(self)
        self._still_open.setSingleShot(True)
        self._still_open.timeout.connect(self._go_on)
        # A dock that is closed destroys the panel, and tells so in no other way.
        self.destroyed.connect(lambda: self._let_go())

    def _actions(self) -> dict[str, Any]:
        control = self.controller
        return {
            "box": lambda: control.marks.use("box"),
            "add": lambda: control.marks.use("add"),
            "remove": lambda: control.marks.use("remove"),
            "new_object": control.objects.add,
            "next_object": control.objects.choose_next,
            "backward": lambda: control.tracker.track("backward"),
            "forward": lambda: control.tracker.track("forward"),
            "both": lambda: control.tracker.track("both"),
            "cancel": control.tracker.cancel,
            "save_session": lambda: self.session_buttons.ask_save(),
            "open_session": lambda: self.session_buttons.ask_open(),
            "accept": control.review.accept_frame,
            "accept_all": control.review.accept_all,
            "fill_between": control.review.fill_between,
            "undo": control.review.undo,
            "redo": control.review.redo,
            "measure": self.open_measurements,
            "export": lambda: self.review_box.ask_and_export(),
            "key_list": lambda: self.key_list.show(),
        }

    def open_measurements(self) -> None:
        """Show the panel "Measure" beside this one."""
        self._viewer.window.add_plugin_dock_widget("napari-uniultra", "Measure")

    # Loops ----------------------------------------------------------------------------------------------------------

    def _list_images(self, event: Any = None) -> None:
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        blocker = QSignalBlocker(self.image_box)
        self.image_box.clear()
        for layer in images:
            self.image_box.addItem(layer.name, layer)
            layer.events.name.connect(self._on_renamed)  # connecting twice counts once
        index = next((i for i, layer in enumerate(images) if layer == self._chosen), 0 if images else -1)
        self.image_box.setCurrentIndex(index)
        del blocker
        if not images or images[index] != self._chosen:
            self._on_image_chosen(index)

    def _on_renamed(self, event: Any) -> None:
        for row in range(self.image_box.count()):
            self.image_box.setItemText(row, self.image_box.itemData(row).name)

    def _on_image_chosen(self, index: int) -> None:
        self._chosen = self.image_box.itemData(index) if index >= 0 else None
        self.controller.set_image(self._chosen)
        self._refresh()

    def _choose_image(self, layer: Any) -> None:
        rows = (row for row in range(self.image_box.count()) if self.image_box.itemData(row) == layer)
        self.image_box.setCurrentIndex(next(rows, -1))

    def _on_frame(self, event: Any = None) -> None:
        self.review_box.show_accepted(self.controller.review.frame_is_accepted)
        self.tidy_box.preview()

    # Models ---------------------------------------------------------------------------------------------------------

    def add_model_file(self, path: str) -> None:
        """Choose a checkpoint where it lies, without keeping a copy."""
        self.model_box.choose(path)

    # Following the controller ---------------------------------------------------------------------------------------

    def _on_tool(self, tool: str, checked: bool) -> None:
        if checked:
            self.controller.marks.use(tool)
        else:
            self.controller.marks.put_away()
        self._refresh()

    def _refresh(self) -> None:
        control = self.controller
        has_image, tracking = control.image is not None, control.tracker.running
        self.spacing_control.refresh()
        self.object_list.show_objects(control.objects.names, control.objects.current)
        for tool, button in self._tools.items():
            self._check(button, control.marks.tool == tool)
        for button in (self.backward_button, self.both_button, self.forward_button):
            button.setEnabled(has_image and not tracking)
        for widget in (self.object_list, *self._tools.values()):
            widget.setEnabled(has_image)
        self.cancel_button.setEnabled(tracking)
        known = control.snapshot
        self.review_box.refresh(
            has_image=has_image, has_results=bool(known.names), can_undo=known.can_undo, can_redo=known.can_redo
        )
        self.first_steps.show_progress(
            has_loop=has_image,
            marked=bool(known.prompts),
            tracked=control.tracker.has_tracked,
            corrected=control.tracker.has_tracked and control.review.has_corrections,
        )
        self.restore_button.setVisible(control.restorable)
        self._on_frame()
        self.shortcuts.bind_layers(control.layers)

    @staticmethod
    def _check(button: QPushButton, on: bool) -> None:
        blocker = QSignalBlocker(button)
        button.setChecked(on)
        del blocker

    def _on_progress(self, progress: Progress | None) -> None:
        if progress is None:
            self.progress.reset()
            self.progress.setFormat("")
            self.pace.clear()
            return
        self.progress.setRange(0, max(progress.total, 1))
        self.progress.setValue(progress.done)
        self.progress.setFormat(f"{progress.done} of {progress.total}")
        self.pace.setText(_pace(progress))

    # The end --------------------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent | None) -> None:
        """Watch the window that the panel is in: a dock's own close event is not reliable."""
        super().showEvent(event)
        window = self
        while window.parentWidget() is not None:
            window = window.parentWidget()
        if window is not self._window and window is not self:
            self._window = window
            window.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Stop computing when the window closes. Should the user then keep it open, the next job starts it again."""
        if watched is self._window and event.type() == QEvent.Type.Close:
            self.shut_down()
        return False

    def shut_down(self) -> None:
        """Cancel, wait for the present frame, let go of the model. The session is saved, as it is at every change."""
        self.model_box.shelf.close()
        if not self.controller.close():
            _log.warning("The inference thread did not end in time; it ends after its present step")
        self._still_open.start()

    def _go_on(self) -> None:
        """The user was asked whether to close the window, and kept it."""
        if self.isVisible():
            self.controller.set_image(self._chosen)

    def _let_go(self) -> None:
        """Undo every connection to the viewer, which outlives the panel. The Qt side of the panel is gone by now."""
        self.thread_.stop()
        self.model_box.shelf.close()
        self.shortcuts.release()
        self.controller.disconnect_viewer()
        layers = self._viewer.layers.events
        for emitter in (layers.inserted, layers.removed, layers.reordered):
            emitter.disconnect(self._list_images)
        self._viewer.dims.events.current_step.disconnect(self._on_frame)
        for layer in self._viewer.layers:
            layer.events.name.disconnect(self._on_renamed)


def _pace(progress: Progress) -> str:
    if not progress.frames_per_s:
        return ""
    rate, left = progress.frames_per_s, progress.seconds_left
    speed = f"{rate:.1f} frames/s" if rate >= 1 else f"{1 / rate:.1f} s per frame"
    return f"{speed}, " + (f"{left:.0f} s left" if left < 90 else f"{left / 60:.0f} min left")


def _warn(words: str) -> None:
    show_warning(words)
