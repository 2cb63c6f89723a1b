"""The panel "Open study": the loops of a folder or a DICOM disc as thumbnails, opened by choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from napari import current_viewer
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QFileDialog, QLabel, QListWidget, QListWidgetItem, QVBoxLayout

from napari_uniultra.errors import UniUltraError
from napari_uniultra.io.study import Preview, find_loops, looks
from napari_uniultra.plugin.reader import is_study
from napari_uniultra.widgets.docks import DockPanel, open_panel
from napari_uniultra.widgets.parts import push_button, row_of, tell
from napari_uniultra.widgets.worker import InferenceThread

_SIDE = 128
_PLUGIN = "napari-uniultra"
_NULL_LAYER = [(None,)]  # npe2's word for "read, and there is no layer to add"


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[Any]] | None:
    """napari's reader of a study with several loops: the list of them opens instead of layers."""
    if not isinstance(path, (str, PathLike)):
        if len(path) != 1:
            return None
        path = path[0]
    path = Path(path)
    try:
        several = is_study(path) and len(find_loops(path, limit=2)) > 1
    except UniUltraError:
        return None  # the other reader says why
    return _offer if several and current_viewer() is not None else None


def _offer(path: str | Sequence[str]) -> list[Any]:
    path = path if isinstance(path, (str, PathLike)) else path[0]
    open_panel(current_viewer(), "Open study").show_study(Path(path))
    return _NULL_LAYER


class StudyPicker(DockPanel):
    """Thumbnails of a study's loops; a double click opens one.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._root = Path()
        self._items: dict[Path, QListWidgetItem] = {}
        self._stream: Any = None
        self.thread_ = InferenceThread()
        self.choose_button = push_button("Choose folder…", "Look for loops in a folder and the folders in it")
        self.open_button = push_button("Open", "Open the selected loops")
        self.list = QListWidget()
        self.list.setViewMode(QListWidget.ViewMode.IconMode)
        self.list.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.list.setMovement(QListWidget.Movement.Static)
        self.list.setIconSize(QSize(_SIDE, _SIDE))
        self.list.setGridSize(QSize(_SIDE + 24, _SIDE + 56))
        self.list.setWordWrap(True)
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.status = QLabel("Choose a folder, or drop one on napari")
        self.status.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addWidget(self.list, 1)
        layout.addWidget(self.status)
        layout.addLayout(row_of(self.choose_button, self.open_button))
        self.choose_button.clicked.connect(self._choose)
        self.open_button.clicked.connect(self.open_selected)
        self.list.itemActivated.connect(self._open)
        thread = self.thread_
        self.destroyed.connect(lambda: thread.stop())

    def show_study(self, path: Path) -> None:
        """List the loops of a folder or a DICOMDIR; thumbnails follow one by one."""
        try:
            found = find_loops(path)
        except UniUltraError as error:
            tell(error)
            return
        if self._stream is not None:
            self._stream.cancel()
        self.list.clear()
        self._root = path if path.is_dir() else path.parent
        self._items = {loop: self._new_item(loop) for loop in found}
        self.status.setText(f"{len(found)} loops and stills" if found else "There is nothing that can be read in it")
        if found:
            items = self._items
            self._stream = self.thread_.stream(
                lambda: looks(found, _SIDE), lambda looked: self._show(items, *looked), lambda _: None, tell
            )

    def open_selected(self) -> None:
        """Open what is selected."""
        for item in self.list.selectedItems():
            self._open(item)

    def _choose(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose a folder")
        if folder:
            self.show_study(Path(folder))

    def _open(self, item: QListWidgetItem) -> None:
        try:
            self._viewer.open(item.data(Qt.ItemDataRole.UserRole), plugin=_PLUGIN)
        except UniUltraError as error:
            tell(error)

    def _new_item(self, path: Path) -> QListWidgetItem:
        try:
            name = str(path.relative_to(self._root))
        except ValueError:
            name = path.name
        item = QListWidgetItem(path.name if name == "." else name, self.list)
        item.setData(Qt.ItemDataRole.UserRole, str(path))
        item.setToolTip(str(path))
        return item

    def _show(self, items: dict[Path, QListWidgetItem], path: Path, looked: Preview | UniUltraError) -> None:
        if items is not self._items:
            return  # another study is listed by now
        item = items[path]
        if isinstance(looked, UniUltraError):
            item.setText(f"{item.text()}\ncannot be read")
            item.setToolTip(str(looked))
            item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEnabled)
            return
        height, width = looked.thumbnail.shape[:2]
        picture = QImage(looked.thumbnail.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
        item.setIcon(QIcon(QPixmap.fromImage(picture)))
        item.setText(f"{item.text()}\n{looked.words}")
