"""What a newcomer does first, in three steps of which the next one is shown."""

from __future__ import annotations

from contextlib import suppress

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGroupBox, QLabel, QVBoxLayout

from napari_uniultra.core.places import config_folder
from napari_uniultra.widgets.parts import push_button, row_of

_STEPS = (
    "Press Box and drag a box around a structure.",
    "Press Both: it is tracked through the loop.",
    "Scroll. Where the mask is wrong, Add or Remove with a click and track again.",
)
_DONE = "That is all. Accept what is right, then Measure or Export."
_SEEN = "first-steps-seen"  # an empty file: the user closed the hint


class FirstSteps(QGroupBox):
    """The hint of the first run. It stays away once it was closed."""

    sample_asked = Signal()

    def __init__(self) -> None:
        super().__init__("First steps")
        self.labels = [QLabel() for _ in _STEPS]
        self.done = QLabel(_DONE)
        column = QVBoxLayout(self)
        column.setSpacing(3)
        for label in (*self.labels, self.done):
            label.setWordWrap(True)
            column.addWidget(label)
        self.sample_button = push_button("Open a sample loop", "A beating heart to try the panel on")
        self.close_button = push_button("Got it", "Hide these steps for good")
        column.addLayout(row_of(self.sample_button, self.close_button))
        self.sample_button.clicked.connect(lambda: self.sample_asked.emit())
        self.close_button.clicked.connect(self._close)
        self.setVisible(not (config_folder() / _SEEN).exists())
        self.show_progress(has_loop=False, marked=False, tracked=False, corrected=False)

    def show_progress(self, *, has_loop: bool, marked: bool, tracked: bool, corrected: bool) -> None:
        """Tick off what is done and show what comes next: one step alone leaves room for the panel."""
        done = (marked, tracked, corrected)
        following = next((number for number, is_done in enumerate(done) if not is_done), None)
        for number, (label, words) in enumerate(zip(self.labels, _STEPS, strict=True)):
            label.setText(f"{number + 1} of {len(_STEPS)}  {words}")
            label.setVisible(number == following)
        self.done.setVisible(following is None)
        self.setTitle(f"First steps {'✓' * sum(done)}")
        self.sample_button.setVisible(not has_loop)

    def _close(self) -> None:
        self.hide()
        with suppress(OSError):  # a hint that comes back is no harm
            config_folder().mkdir(parents=True, exist_ok=True)
            (config_folder() / _SEEN).touch()
