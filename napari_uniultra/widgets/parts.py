"""What panels are made of, and how they tell of an error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QCoreApplication, QEvent, Qt
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QScrollArea, QWidget

from napari_uniultra.errors import UniUltraError

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


def scrolling(content: QWidget) -> QScrollArea:
    """A widget that scrolls up and down where there is too little room."""
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setFrameShape(QScrollArea.Shape.NoFrame)
    scroll.setWidget(content)
    return scroll
