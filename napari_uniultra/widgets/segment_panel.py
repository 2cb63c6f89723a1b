"""The panel "Segment loop": choose a loop, mark a structure, track it, correct it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QSignalBlocker, QTimer, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.errors import UniUltraError
from napari_uniultra.plugin.compare_host import image_layers
from napari_uniultra.plugin.controller import SegmentController
from napari_uniultra.plugin.outcomes import LoadedModel
from napari_uniultra.plugin.presets import editable_presets, load_presets
from napari_uniultra.widgets.confidence_dock import ConfidenceDock
from napari_uniultra.widgets.docks import DockPanel, find_panel, open_panel
from napari_uniultra.widgets.first_steps import FirstSteps
from napari_uniultra.widgets.key_list import KeyList
from napari_uniultra.widgets.keys import Shortcuts
from napari_uniultra.widgets.marks_box import MarksBox
from napari_uniultra.widgets.model_box import ModelBox
from napari_uniultra.widgets.object_list import ObjectList
from napari_uniultra.widgets.parts import push_button, scrolling, short_list, tell
from napari_uniultra.widgets.review_box import ReviewBox
from napari_uniultra.widgets.session_buttons import SessionButtons
from napari_uniultra.widgets.spacing_control import SpacingControl
from napari_uniultra.widgets.tidy_box import TidyBox
from napari_uniultra.widgets.tracking_box import TrackingBox
from napari_uniultra.widgets.worker import InferenceThread

_log = logging.getLogger(__name__)

_RESEARCH_USE = "For research use. Not a medical device."


class SegmentPanel(DockPanel):
    """The main panel.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        if self.is_second:
            return
        self._chosen: Any = None
        self.thread_ = InferenceThread()
        self.controller = SegmentController(napari_viewer, self.thread_)
        self.shortcuts = Shortcuts(napari_viewer, self._actions())
        self._build()
        self._connect()
        self.confidence = ConfidenceDock(napari_viewer, self.controller)
        self.controller.set_model(self.model_box.name, self.model_box.device)
        self._list_images()

    # Building -------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        self.tracking_box = TrackingBox()
        column.setSpacing(6)
        self.first_steps, self.marks_box = FirstSteps(), MarksBox()
        self.review_box, self.tidy_box = ReviewBox(), TidyBox()
        for part in (
            self.first_steps,
            self._build_source(),
            self._build_objects(),
            self.marks_box,
            self.tracking_box,
            self.review_box,
            self.tidy_box,
        ):
            column.addWidget(part)
        column.addStretch(1)
        self.status = QLabel("Open an ultrasound loop to begin")
        self.status.setWordWrap(True)
        research = QLabel(_RESEARCH_USE)
        research.setEnabled(False)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.addWidget(scrolling(content), 1)  # the panel may share the window's side with others
        outer.addWidget(self.status)
        self.keys_button = push_button("Keys", "What each key does (/)")
        foot = QHBoxLayout()
        foot.addWidget(research, 1)
        foot.addWidget(self.keys_button)
        outer.addLayout(foot)
        self.key_list = KeyList(self)

    def _build_source(self) -> QWidget:
        self.image_box = short_list("The image layer to work on")
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
        control.files.image_found.connect(self.choose_image)
        control.image_wanted.connect(self.choose_image)
        control.files.model_found.connect(self.model_box.choose)
        self.restore_button.clicked.connect(control.review.restore)
        objects, marks = self.object_list, self.marks_box
        objects.chosen.connect(control.objects.choose)
        objects.renamed.connect(control.objects.rename)
        objects.coloured.connect(control.objects.recolour)
        objects.hidden.connect(control.objects.hide)
        objects.locked.connect(control.objects.lock)
        objects.added.connect(control.objects.add)
        objects.removed.connect(control.objects.remove)
        objects.presets_wanted.connect(self._show_presets)
        objects.presets_edited.connect(self._edit_presets)
        marks.tool_toggled.connect(self._on_tool)
        marks.absent_toggled.connect(control.marks.toggle_absent)
        marks.brush_changed.connect(control.marks.set_brush_size)
        marks.auto_toggled.connect(control.marks.set_auto)
        marks.segment_asked.connect(control.marks.segment_now)
        marks.exact_toggled.connect(control.marks.set_outlines_as_masks)
        tracking, tracker = self.tracking_box, control.tracker
        tracking.tracked.connect(tracker.track)
        tracking.went_on.connect(tracker.go_on)
        tracking.cancelled.connect(lambda: tracker.cancel())
        tracking.range_changed.connect(tracker.set_range)
        tracking.only_current_changed.connect(tracker.track_only_current)
        tracking.follow_changed.connect(tracker.set_follow)
        tracking.zoom_changed.connect(tracker.set_zoom)
        tracker.progressed.connect(tracking.show_progress)
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
        control.noticed.connect(_warn)
        control.failed.connect(tell)
        control.model_loaded.connect(self._show_model)
        self._still_open = QTimer(self)
        self._still_open.setSingleShot(True)
        self._still_open.timeout.connect(self._go_on)
        self.destroyed.connect(lambda: self._let_go())

    def _actions(self) -> dict[str, Any]:
        control = self.controller
        return {
            "box": lambda: control.marks.use("box"),
            "add": lambda: control.marks.use("add"),
            "remove": lambda: control.marks.use("remove"),
            "paint": lambda: control.marks.use("paint"),
            "erase": lambda: control.marks.use("erase"),
            "absent": control.marks.toggle_absent,
            "segment": control.marks.segment_now,
            "new_object": control.objects.add,
            "next_object": control.objects.choose_next,
            "hide_object": control.objects.toggle_hidden,
            "lock_object": control.objects.toggle_locked,
            "delete_object": control.objects.remove_current,
            "backward": lambda: control.tracker.track("backward"),
            "forward": lambda: control.tracker.track("forward"),
            "both": lambda: control.tracker.track("both"),
            "cancel": control.tracker.cancel,
            "go_on": control.tracker.go_on,
            "range_start": control.tracker.begin_here,
            "range_end": control.tracker.end_here,
            "previous_weak": control.navigator.previous_weak,
            "next_weak": control.navigator.next_weak,
            "save_session": lambda: self._with_loop(self.session_buttons.ask_save),
            "open_session": lambda: self.session_buttons.ask_open(),
            "accept": control.review.accept_frame,
            "accept_all": control.review.accept_all,
            "fill_between": control.review.fill_between,
            "undo": control.review.undo,
            "redo": control.review.redo,
            "measure": self.open_measurements,
            "export": lambda: self._with_loop(self.review_box.ask_and_export),
            "key_list": lambda: self.key_list.show(),
        }

    def _with_loop(self, ask: Callable[[], None]) -> None:
        """Ask for a file where there is a loop; else say why not."""
        if self.controller.work_or_word() is not None:
            ask()

    def open_measurements(self) -> None:
        """Show the panel "Measure" behind a tab, with the masks of the loop in use."""
        open_panel(self._viewer, "Measure").show_masks_of(self._chosen)

    # Loops ----------------------------------------------------------------------------------------------------------

    def _list_images(self, event: Any = None) -> None:
        images = image_layers(self._viewer)
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
        measure = find_panel(self._viewer, "Measure")
        if measure is not None:
            measure.show_masks_of(self._chosen)

    def choose_image(self, layer: Any) -> None:
        """Work on an image layer."""
        rows = (row for row in range(self.image_box.count()) if self.image_box.itemData(row) == layer)
        self.image_box.setCurrentIndex(next(rows, -1))

    def _on_frame(self, event: Any = None) -> None:
        self.controller.ahead.look()
        self.review_box.show_frame(self.controller.shows_loop, self.controller.review.frame_is_accepted)
        self.tidy_box.preview()
        self._refresh_marks()

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

    def _show_presets(self) -> None:
        presets, error = load_presets()
        if error is not None:
            tell(error)
        self.object_list.show_presets(presets)

    def _edit_presets(self) -> None:
        try:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(editable_presets())))
        except UniUltraError as error:
            tell(error)

    def _refresh_marks(self) -> None:
        control, marks = self.controller, self.controller.marks
        self.marks_box.refresh(
            enabled=control.image is not None,
            on_frame=control.shows_loop,
            tool=marks.tool,
            absent=marks.absent,
            collected=marks.collected,
            brush_size=marks.brush_size,
        )

    def _show_model(self, model: LoadedModel) -> None:
        self.model_box.show_loaded(model)
        if self.controller.tracker.zoom is None:  # nobody chose yet
            self.tracking_box.show_zoom(model.close_views)

    def _refresh(self) -> None:
        control = self.controller
        has_image, tracker = control.image is not None, control.tracker
        self.spacing_control.refresh()
        self.object_list.show_objects(control.objects.all, control.objects.current)
        self.object_list.setEnabled(has_image)
        self.session_buttons.save_button.setEnabled(has_image)
        self.tracking_box.refresh(
            has_image=has_image,
            tracking=tracker.running,
            can_go_on=tracker.can_go_on,
            num_frames=1 if control.work is None else control.work.num_frames,
            ends=tracker.range,
        )
        known = control.snapshot
        self.review_box.refresh(
            has_image=has_image, has_results=bool(known.names), can_undo=known.can_undo, can_redo=known.can_redo
        )
        self.first_steps.show_progress(
            has_loop=has_image,
            marked=bool(known.prompts),
            tracked=tracker.has_tracked,
            corrected=tracker.has_tracked and control.review.has_corrections,
        )
        self.restore_button.setVisible(control.restorable)
        self._on_frame()
        self.shortcuts.bind_layers(control.layers)

    # The end --------------------------------------------------------------------------------------------------------

    def window_closing(self) -> None:
        """Stop computing. Should the user then keep the window open, the next job starts it again."""
        self.shut_down()

    def end(self) -> None:
        """Keep what was drawn: the panel's own dock was closed, or the window is gone."""
        self.shut_down()

    def shut_down(self) -> None:
        """Cancel tracking, wait for the present frame and for what was drawn, let go of the model.

        The session is saved, as it is at every change.
        """
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
        self.confidence.take_away()
        self.controller.disconnect_viewer()
        layers = self._viewer.layers.events
        for emitter in (layers.inserted, layers.removed, layers.reordered):
            emitter.disconnect(self._list_images)
        self._viewer.dims.events.current_step.disconnect(self._on_frame)
        for layer in self._viewer.layers:
            layer.events.name.disconnect(self._on_renamed)


def _warn(words: str) -> None:
    show_warning(words)
