"""Panels in the docks of napari's window: how one is opened, and how it learns of its end."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from npe2 import PluginManager
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QDockWidget, QWidget

_PLUGIN = "napari-uniultra"


def open_panel(viewer: Any, name: str) -> Any:
    """Show a panel in front: the one that is open, or a new one.

    Parameters
    ----------
    viewer : napari.Viewer
    name : str
        As the menu has it.
    """
    panel = find_panel(viewer, name)
    if panel is None:
        manifest = PluginManager.instance().get_manifest(_PLUGIN)
        entry = next(widget for widget in manifest.contributions.widgets if widget.display_name == name)
        panel = entry.get_callable()(viewer)
        viewer.window.add_dock_widget(panel, name=f"{name} ({manifest.display_name})")
    _show(panel)
    return panel


def _show(panel: QWidget) -> None:
    """Show the dock of a panel in front of others."""
    dock = panel.parentWidget()
    dock.show()
    dock.raise_()


def find_panel(viewer: Any, name: str) -> Any | None:
    """A panel that is open, by its name in the menu.

    napari's menu names a dock after what the plugin is called there, `Window.add_plugin_dock_widget` after its package.
    A panel is found under both names and opened under the menu's, so that the menu finds it too.
    """
    manifest = PluginManager.instance().get_manifest(_PLUGIN)
    docked = _docked(viewer.window)
    titles = (f"{name} ({plugin})" for plugin in (manifest.display_name, _PLUGIN))
    return next((docked[title] for title in titles if title in docked), None)


def _docked(window: Any) -> dict[str, Any]:
    """The widgets in the docks of a window."""
    known = getattr(window, "dock_widgets", None)
    if known is None:  # before napari 0.6.2
        return {name: dock.widget() for name, dock in window._dock_widgets.items()}
    return dict(known.items())


class DockPanel(QWidget):
    """A panel that learns of its end, and of which a window has one.

    A dock's own close event is not reliable: the cross of a dock takes the panel out of it, and only the window itself
    hears that it is to close.

    Parameters
    ----------
    viewer : napari.Viewer, optional
        Without it there may be several in a window.
    """

    def __init__(self, viewer: Any = None) -> None:
        super().__init__()
        docked = () if viewer is None else _docked(viewer.window).values()
        self._viewer = viewer
        self._first = next((other for other in docked if isinstance(other, type(self))), None)
        self._window: Callable[[], QObject | None] = lambda: None  # weak: the panel keeps no window alive
        self._docked = self._closing = False

    @property
    def is_second(self) -> bool:
        """Whether there is one in the window already: that one is shown in place of this one, which stays empty.

        napari's menu knows a panel by its title, and opens a second one beside what `napari -w` or a script opened.
        """
        return self._first is not None

    def end(self) -> None:
        """Stop what runs with the panel: its dock or the window was closed."""

    def dock_closed(self) -> None:
        """Leave the viewer, which stays, as it was found; after `end`, and before the panel is deleted."""

    def window_closing(self) -> None:
        """Be ready for the window to close; the user may yet keep it."""

    def showEvent(self, event: QShowEvent | None) -> None:
        """Watch the window that the panel is in."""
        super().showEvent(event)
        if self.is_second:
            QTimer.singleShot(0, self._step_aside)
            return
        window = main_window(self)
        if window is not self._window() and window is not self:
            self._window = weakref.ref(window)
            window.installEventFilter(self)
            QTimer.singleShot(0, self._share_the_side)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Hear what the window hears."""
        # At the very end Qt may still call this when Python has emptied the panel.
        known = getattr(self, "_window", None)
        if known is not None and watched is known():
            if event.type() == QEvent.Type.Close:
                self._closing = True
                self.window_closing()
            elif event.type() == QEvent.Type.Hide and self._closing:
                self._closing = False
                self.end()
        return False

    def changeEvent(self, event: QEvent | None) -> None:
        """A dock that is closed lets go of the panel, which then has no place any more."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self._docked = False
                if not self.is_second:
                    self.end()
                    self.dock_closed()
                self.deleteLater()

    def _step_aside(self) -> None:
        """Show the panel that was there first, and go."""
        own = _dock_of(self)
        if own is not None:
            _show(self._first)
            self._viewer.window.remove_dock_widget(own)

    def _share_the_side(self) -> None:
        """Lie behind a tab where there are other docks: stacked, all would be too low to use."""
        window, own = main_window(self), _dock_of(self)
        if own is None or own.isFloating():
            return
        area = window.dockWidgetArea(own)
        docks = [dock for dock in window.findChildren(QDockWidget) if dock is not own and dock.isVisible()]
        other = next((dock for dock in docks if window.dockWidgetArea(dock) == area and not dock.isFloating()), None)
        if other is not None:
            window.tabifyDockWidget(other, own)
            own.raise_()


def _dock_of(widget: QWidget) -> QDockWidget | None:
    """The dock that a widget lies in."""
    while widget is not None and not isinstance(widget, QDockWidget):
        widget = widget.parentWidget()
    return widget


def main_window(widget: QWidget) -> QWidget:
    """The window that a widget belongs to, also while its dock floats."""
    while widget.parentWidget() is not None:
        widget = widget.parentWidget()
    return widget
