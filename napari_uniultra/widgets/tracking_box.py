"""The group "Track": over which frames and objects, start, watch, cancel, go on."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QGroupBox, QHBoxLayout, QLabel, QProgressBar, QSizePolicy, QVBoxLayout
from superqt import QLabeledRangeSlider

from napari_uniultra.plugin.tracker import Progress
from napari_uniultra.widgets.parts import push_button, row_of


class TrackingBox(QGroupBox):
    """Emits what the user asks for."""

    tracked = Signal(str)  # "forward", "backward" or "both"
    went_on = Signal()
    cancelled = Signal()
    range_changed = Signal(int, int)  # first and last frame
    only_current_changed = Signal(bool)
    follow_changed = Signal(bool)
    zoom_changed = Signal(bool)

    def __init__(self) -> None:
        super().__init__("Track")
        self.backward_button = push_button("◀ Back", "Track backward to the start of the range (,)")
        self.both_button = push_button("◀ Both ▶", "Track through the whole range (J)")
        self.forward_button = push_button("Forward ▶", "Track forward to the end of the range (.)")
        self.range_slider = QLabeledRangeSlider(Qt.Orientation.Horizontal)
        self.range_slider.setHandleLabelPosition(QLabeledRangeSlider.LabelPosition.NoLabel)
        self.range_slider.setEdgeLabelMode(QLabeledRangeSlider.EdgeLabelMode.LabelIsValue)
        self.range_slider.setToolTip(
            "First and last frame to track. Begin at the frame shown: Shift+J. End there: Shift+K"
        )
        self.objects_box = QComboBox()
        self.objects_box.addItems(["All objects", "Chosen object"])
        self.objects_box.setToolTip("Track all objects, or the chosen one alone. Locked objects never change.")
        self.follow_box = QCheckBox("Follow")
        self.follow_box.setToolTip("Show each frame as soon as it is tracked")
        self.zoom_box = QCheckBox("Close-up")
        self.zoom_box.setToolTip(
            "Track small structures in a close-up that follows them: finer, often faster, and steadier where the probe "
            "jumps. On by itself with models that were trained on close-ups."
        )
        self.progress = QProgressBar()
        self.progress.setFormat("")
        self.progress.setTextVisible(True)
        self.continue_button = push_button(
            "Continue", "Go on where tracking stopped, or track what is left of the range (Shift+C)"
        )
        self.cancel_button = push_button("Cancel", "Stop after the present frame; what is done stays (K)")
        self.pace = QLabel()
        self.pace.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)  # other words move nothing
        self._lay_out()
        self._connect()

    def _lay_out(self) -> None:
        frames = QHBoxLayout()
        frames.addWidget(QLabel("Frames"))
        frames.addWidget(self.range_slider, 1)
        layout = QVBoxLayout(self)
        layout.addLayout(row_of(self.backward_button, self.both_button, self.forward_button))
        layout.addLayout(frames)
        layout.addWidget(self.objects_box)
        layout.addLayout(row_of(self.zoom_box, self.follow_box))
        layout.addLayout(row_of(self.continue_button, self.cancel_button))
        layout.addWidget(self.progress)
        layout.addWidget(self.pace)

    def _connect(self) -> None:
        self.backward_button.clicked.connect(lambda: self.tracked.emit("backward"))
        self.both_button.clicked.connect(lambda: self.tracked.emit("both"))
        self.forward_button.clicked.connect(lambda: self.tracked.emit("forward"))
        self.continue_button.clicked.connect(lambda: self.went_on.emit())
        self.cancel_button.clicked.connect(lambda: self.cancelled.emit())
        self.range_slider.valueChanged.connect(lambda ends: self.range_changed.emit(*ends))
        self.objects_box.currentIndexChanged.connect(lambda index: self.only_current_changed.emit(index == 1))
        self.follow_box.toggled.connect(self.follow_changed)
        self.zoom_box.toggled.connect(self.zoom_changed)

    def refresh(
        self, *, has_image: bool, tracking: bool, can_go_on: bool, num_frames: int, ends: tuple[int, int]
    ) -> None:
        """Show what can be done, and the range out of ``num_frames``. Emits nothing."""
        for button in (self.backward_button, self.both_button, self.forward_button):
            button.setEnabled(has_image and not tracking)
        self.continue_button.setEnabled(can_go_on)
        self.cancel_button.setEnabled(tracking)
        self.range_slider.setEnabled(has_image and not tracking and num_frames > 1)
        self.objects_box.setEnabled(not tracking)
        self.zoom_box.setEnabled(not tracking)
        blocker = QSignalBlocker(self.range_slider)
        if (self.range_slider.minimum(), self.range_slider.maximum()) != (0, max(num_frames - 1, 1)):
            self.range_slider.setRange(0, max(num_frames - 1, 1))
        if tuple(self.range_slider.value()) != ends:
            self.range_slider.setValue(ends)
        del blocker

    def show_zoom(self, on: bool) -> None:
        """Show whether small structures are looked at closely. Emits nothing."""
        blocker = QSignalBlocker(self.zoom_box)
        self.zoom_box.setChecked(on)
        del blocker

    def show_progress(self, progress: Progress | None) -> None:
        """Show how far tracking is; None once it has ended."""
        # Qt would draw the whole window anew, picture and all, before it returns from each change of the bar.
        self.progress.setUpdatesEnabled(False)
        if progress is None:
            self.progress.reset()
            self.progress.setFormat("")
        else:
            self.progress.setRange(0, max(progress.total, 1))
            self.progress.setValue(progress.done)
            self.progress.setFormat(f"{progress.done} of {progress.total}")
        self.progress.setUpdatesEnabled(True)
        self.pace.setText("" if progress is None else _pace(progress))


def _pace(progress: Progress) -> str:
    if not progress.frames_per_s:
        return ""
    rate, left = progress.frames_per_s, progress.seconds_left
    speed = f"{rate:.1f} frames/s" if rate >= 1 else f"{1 / rate:.1f} s per frame"
    return f"{speed}, " + (f"{left:.0f} s left" if left < 90 else f"{left / 60:.0f} min left")
