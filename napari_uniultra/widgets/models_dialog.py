"""The dialog "Models": what there is, what can be downloaded, and from whom it is."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMessageBox,
    QProgressBar,
    QTextBrowser,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.model.catalogue import ModelInfo, list_models
from napari_uniultra.model.room import is_too_large, memory_to_load
from napari_uniultra.model.zoo import bytes_received
from napari_uniultra.plugin.model_shelf import ModelShelf, Transfer
from napari_uniultra.widgets.parts import push_button, tell

_COLUMNS = ("Model", "On this computer", "Size", "Parameters", "Input", "Licence", "Made for")
_WHERE = {"bundled": "yes, with the plugin", "added": "yes", "downloadable": "can be downloaded"}
_FILES = "Models (*.safetensors *.pt *.pth)"
_CARD_WORDS = {
    "version": "Version",
    "intended_use": "Intended use",
    "training_data": "Trained on",
    "base": "Made from",
    "authors": "Authors",
}


class ModelsDialog(QDialog):
    """Lists models and tends them through a `ModelShelf`; it blocks nothing."""

    used = Signal(object)  # ModelInfo: the user wants to segment with it

    def __init__(self, shelf: ModelShelf, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Models")
        self.setModal(False)
        self.resize(860, 520)
        self.shelf = shelf
        self._build()
        self._connect()
        self.refresh()

    def _build(self) -> None:
        self.list = QTreeWidget()
        self.list.setHeaderLabels(_COLUMNS)
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        header = self.list.header()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.about = QTextBrowser()
        self.about.setOpenExternalLinks(True)
        self.use_button = push_button("Use", "Segment with this model")
        self.download_button = push_button("Download", "Get this model from its authors' server, and check it")
        self.details_button = push_button("Details", "What the model's file says of it: its card")
        self.forget_button = push_button("Forget…", "Remove this model from this computer")
        self.add_button = push_button("Add file…", "Check a model's file and keep a copy of it among the models")
        buttons = QHBoxLayout()
        for button in (self.use_button, self.download_button, self.details_button, self.forget_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        buttons.addWidget(self.add_button)
        self.progress = QProgressBar()
        self.cancel_button = push_button("Cancel", "Stop; what has come is kept for the next try")
        transfer = QHBoxLayout()
        transfer.addWidget(self.progress, 1)
        transfer.addWidget(self.cancel_button)
        self.status = QLabel()
        self.status.setWordWrap(True)
        column = QVBoxLayout(self)
        column.addWidget(self.list, 3)
        column.addWidget(self.about, 2)
        column.addLayout(buttons)
        column.addLayout(transfer)
        column.addWidget(self.status)
        self._on_progress(None)

    def _connect(self) -> None:
        self.list.currentItemChanged.connect(self._on_chosen)
        self.list.itemDoubleClicked.connect(lambda *_: self._use())
        self.use_button.clicked.connect(self._use)
        self.download_button.clicked.connect(self._download)
        self.details_button.clicked.connect(self._read_card)
        self.forget_button.clicked.connect(self._forget)
        self.add_button.clicked.connect(self._add)
        self.cancel_button.clicked.connect(self.shelf.cancel)
        self.shelf.changed.connect(self.refresh)
        self.shelf.progressed.connect(self._on_progress)
        self.shelf.said.connect(self.status.setText)
        self.shelf.failed.connect(self._on_failed)
        self.shelf.card_read.connect(self._show_card)

    # The list -------------------------------------------------------------------------------------------------------

    @property
    def chosen(self) -> ModelInfo | None:
        """The model that is selected."""
        item = self.list.currentItem()
        return None if item is None else item.data(0, Qt.ItemDataRole.UserRole)

    def choose(self, name: str) -> None:
        """Select a model by its name."""
        for row in range(self.list.topLevelItemCount()):
            item = self.list.topLevelItem(row)
            if item.text(0) == name:
                self.list.setCurrentItem(item)

    def refresh(self, name: str = "") -> None:
        """List the models as they are now, with the one of that name selected, else the one that was."""
        before = name or (self.chosen.name if self.chosen else "")
        self.list.clear()
        for info in list_models():
            item = QTreeWidgetItem(self.list, _cells(info))
            item.setData(0, Qt.ItemDataRole.UserRole, info)
            item.setToolTip(0, info.description)
        self.list.setCurrentItem(self.list.topLevelItem(0))
        self.choose(before)

    def _on_chosen(self, *_: Any) -> None:
        info = self.chosen
        self.about.setHtml("" if info is None else _about(info))
        is_here = info is not None and info.path is not None
        self.use_button.setEnabled(is_here)
        self.details_button.setEnabled(is_here)
        self.forget_button.setEnabled(info is not None and info.origin == "added")
        self._refresh_download()

    def _refresh_download(self) -> None:
        info = self.chosen
        can_download = info is not None and info.path is None
        words = "Download"
        if can_download:
            verb = "Go on downloading" if bytes_received(info.name) else "Download"
            words = f"{verb} ({_megabytes(info.size_bytes)}, {info.licence})"
        self.download_button.setText(words)
        self.download_button.setEnabled(can_download and not self.shelf.downloading)

    # What the user does ---------------------------------------------------------------------------------------------

    def _use(self) -> None:
        if self.chosen is not None and self.chosen.path is not None:
            self.used.emit(self.chosen)
            self.status.setText(f"{self.chosen.name} is chosen in the panel")

    def _download(self) -> None:
        self.shelf.download(self.chosen.name)
        self._refresh_download()

    def _read_card(self) -> None:
        self.shelf.read_card(self.chosen)

    def _show_card(self, info: ModelInfo, card: Mapping[str, Any]) -> None:
        if self.chosen is not None and self.chosen.name == info.name:
            self.about.setHtml(_about(info, card))

    def _forget(self) -> None:
        info = self.chosen
        question = f"Remove {info.name} ({_megabytes(info.size_bytes)}) from this computer?"
        if QMessageBox.question(self, "Forget a model", question) == QMessageBox.StandardButton.Yes:
            self.shelf.forget(info.name)

    def _add(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Add a model", "", _FILES)
        if path:
            self.shelf.add(path)

    # Following the shelf --------------------------------------------------------------------------------------------

    def _on_progress(self, transfer: Transfer | None) -> None:
        for widget in (self.progress, self.cancel_button):
            widget.setVisible(transfer is not None)
        if transfer is None:
            self._refresh_download()
            return
        self.progress.setRange(0, 1000)  # sizes in bytes are too large for Qt's numbers
        self.progress.setValue(int(1000 * transfer.have / max(transfer.total, 1)))
        self.progress.setFormat(_progress_words(transfer))

    def _on_failed(self, error: Exception) -> None:
        self.status.setText(str(error))
        tell(error)


def _cells(info: ModelInfo) -> list[str]:
    size = f"{info.image_size} px" if info.image_size else ""
    return [
        info.name,
        _WHERE[info.origin],
        _megabytes(info.size_bytes),
        f"{info.parameters / 1e6:.1f} million" if info.parameters else "not known",
        size,
        info.licence,
        info.description,
    ]


def _about(info: ModelInfo, card: Mapping[str, Any] | None = None) -> str:
    """What is known of a model, as rich text."""
    lines = [f"<b>{escape(info.name)}</b>", escape(info.description)]
    if info.origin == "downloadable":
        had = bytes_received(info.name)
        came = f" {_megabytes(had)} of it are here from an earlier try." if had else ""
        lines.append(f"Comes from Meta's server, and is checked by its SHA-256.{came}")
    if is_too_large(info.size_bytes, info.parameters):
        needed = memory_to_load(info.size_bytes, info.parameters) / 1e9
        lines.append(f"<b>Too large for this computer:</b> it needs {needed:.1f} GB of memory to load.")
    for key, words in _CARD_WORDS.items():
        if card and card.get(key):
            value = card[key]
            text = "<br>".join(escape(str(v)) for v in value) if isinstance(value, list) else escape(str(value))
            lines.append(f"<i>{words}:</i> {text}")
    if card is not None:
        lines.append("" if card else "The file says nothing more of itself.")
        lines.append(f"<i>SHA-256:</i> {escape(info.sha256)}<br><i>Place:</i> {escape(str(info.path))}")
    return "<p>" + "</p><p>".join(line for line in lines if line) + "</p>"


def _progress_words(transfer: Transfer) -> str:
    words = f"{transfer.have / 1e6:.0f} of {transfer.total / 1e6:.0f} MB"
    left = transfer.seconds_left
    if left is None:
        return words
    return f"{words}, " + (f"{left:.0f} s left" if left < 90 else f"{left / 60:.0f} min left")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"
