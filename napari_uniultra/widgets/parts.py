"""What panels are made of, and how they tell of an error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QCoreApplication, QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QScrollArea, QWidget

from napari_uniultra.errors import UniUltraError

FRAME_PX = 4  # napari's style gives an area that scrolls a border
_SHORT = 8  # letters of a list
_log = logging.getLogger(__name__)


def push_button(words: str, tip: str, checkable: bool = False) -> QPushButton:
    """A button that leaves the keys to the picture after a click."""
    made = QPushButton(words)
    made.setToolTip(tip)
    made.setCheckable(checkable)
    made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return made


def row_of(*widgets: QWidget) -> QHBoxLayout:
    """Widgets of equal width side by side."""
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget, 1)
    return row


def tell(error: Exception) -> None:
    """An error in words; one that is not ours is a fault of the program and goes into the log with its trace."""
    if isinstance(error, UniUltraError):
        show_warning(str(error))
        return
    _log.error("Unexpected error", exc_info=error)
    show_error(f"Something unexpected went wrong: {error or type(error).__name__}. Nothing that was done is lost.")


def try_or_tell(work: Callable[[], Any]) -> bool:
    """Do something that may be refused; whether it was done. What refused it is told."""
    try:
        work()
    except (UniUltraError, OSError) as error:
        tell(error)
        return False
    return True


def with_path(
    ask: Callable[..., tuple[str, str]], parent: QWidget, title: str, files: str, use: Callable[[str], Any]
) -> None:
    """Ask for a file by one of Qt's dialogs, and use its path unless the user cancels."""
    path, _ = ask(parent, title, "", files)
    if path:
        use(path)


def settle(widget: QWidget | None) -> None:
    """Lay a widget and those around it out at once, where Qt takes a turn of its event loop for each."""
    while widget is not None:
        if widget.layout() is not None:
            widget.layout().activate()
        QCoreApplication.sendPostedEvents(widget, QEvent.Type.LayoutRequest)
        widget = widget.parentWidget()


class _Scroll(QScrollArea):
    """As wide as its content needs, in any font, so that it scrolls up and down alone."""

    def minimumSizeHint(self) -> QSize:
        """The content's least width, and little height."""
        width = self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width()
        return QSize(width + FRAME_PX, super().minimumSizeHint().height())

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Content in another font, or with more in it, has another width."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)


def scrolling(content: QWidget) -> QScrollArea:
    """A widget that scrolls up and down where there is too little room."""
    scroll = _Scroll()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QScrollArea.Shape.NoFrame)
    scroll.setWidget(content)
    return scroll


def short_list(tip: str) -> QComboBox:
    """A list to choose from whose long names do not make the panel wider."""
    box = QComboBox()
    box.setToolTip(tip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(_SHORT)
    return box
