"""Which model segments, and where it runs: two rows of the panel."""

from __future__ import annotations

import platform

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QLabel, QSizePolicy, QWidget

from napari_uniultra.model.catalogue import ModelInfo, list_models
from napari_uniultra.model.choices import DEFAULT_MODEL
from napari_uniultra.plugin.model_shelf import ModelShelf
from napari_uniultra.plugin.outcomes import LoadedModel
from napari_uniultra.widgets.models_dialog import ModelsDialog
from napari_uniultra.widgets.parts import push_button
from napari_uniultra.widgets.worker import InferenceThread

_NOT_LOADED = "Loads with the first mark"


class _Models(QComboBox):
    """Looks for new models whenever it opens: they may come from another window, or from training."""

    opening = Signal()

    def showPopup(self) -> None:
        """Qt's own, after a look."""
        self.opening.emit()
        super().showPopup()


class ModelBox(QWidget):
    """The choice of model and device. The rows go into the form of the panel, so that they line up with its others."""

    chosen = Signal(str, str)  # name or path, device

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.hide()  # it only holds the dialog; what is seen are the rows
        self._told = ("", "")
        self._files: list[str] = []  # checkpoints that are used where they lie
        self.models = _Models()
        self.models.setToolTip("The model that segments. It loads with the first mark.")
        self.models.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.more_button = push_button("Models…", "Download, add and look at models")
        self.devices = QComboBox()
        self.devices.setToolTip("Where the model runs. Automatic takes the fastest there is.")
        graphics = ("Graphics (MPS)", "mps") if platform.system() == "Darwin" else ("Graphics (CUDA)", "cuda")
        for words, device in (("Automatic", "auto"), graphics, ("Processor", "cpu")):
            self.devices.addItem(words, device)
        self.where = QLabel(_NOT_LOADED)
        self.where.setWordWrap(True)
        self.shelf = ModelShelf(InferenceThread())
        self._dialog: ModelsDialog | None = None
        self.models.opening.connect(self.refresh)
        self.models.activated.connect(self._tell)
        self.devices.currentIndexChanged.connect(self._tell)
        self.more_button.clicked.connect(self.show_dialog)
        self.shelf.changed.connect(self._on_shelf_changed)
        self.refresh()

    def add_rows(self, form: QFormLayout) -> None:
        """Put the rows at the end of a form."""
        row = QHBoxLayout()
        row.addWidget(self.models, 1)
        row.addWidget(self.more_button)
        form.addRow("Model", row)
        form.addRow("Run on", self.devices)
        form.addRow("", self.where)

    # State ----------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name or path of the model that is chosen."""
        return self.models.currentData() or DEFAULT_MODEL

    @property
    def device(self) -> str:
        """The device that is chosen."""
        return self.devices.currentData()

    def choose(self, name: str) -> None:
        """Choose a model by its name, or a checkpoint by its path, which is then used where it lies."""
        self.refresh()
        if self.models.findData(name) < 0:
            self._files.insert(0, name)
            self.refresh()
        self.models.setCurrentIndex(self.models.findData(name))
        self._tell()

    def show_loaded(self, info: LoadedModel) -> None:
        """Say what was loaded, and where it runs."""
        self.where.setText(info.where[:1].upper() + info.where[1:])
        self.models.setToolTip(f"{info.name}, input of {info.image_size} x {info.image_size} pixels, {info.where}")

    def refresh(self) -> None:
        """List the models that are on this computer; the one that is chosen stays, as long as it is there."""
        chosen = self.models.currentData() or DEFAULT_MODEL
        blocker = QSignalBlocker(self.models)
        self.models.clear()
        for path in self._files:
            self._add_item(path.replace("\\", "/").rsplit("/", 1)[-1], path, path)
        for info in list_models():
            if info.path is not None:
                self._add_item(info.name, info.name, info.description)
        for name in (chosen, DEFAULT_MODEL):
            if self.models.findData(name) >= 0:
                self.models.setCurrentIndex(self.models.findData(name))
                break
        del blocker

    def _add_item(self, words: str, name: str, tip: str) -> None:
        self.models.addItem(words, name)
        self.models.setItemData(self.models.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)

    def _tell(self, _index: int = 0) -> None:
        if (self.name, self.device) != self._told:
            self._told = self.name, self.device
            self.where.setText(_NOT_LOADED)
            self.chosen.emit(*self._told)

    # The dialog -----------------------------------------------------------------------------------------------------

    def show_dialog(self) -> ModelsDialog:
        """Open the list of all models, beside which work goes on."""
        if self._dialog is None:
            self._dialog = ModelsDialog(self.shelf, self.parentWidget())
            self._dialog.used.connect(self._on_used)
        self._dialog.refresh()
        self._dialog.show()
        self._dialog.raise_()
        return self._dialog

    def _on_used(self, info: ModelInfo) -> None:
        self.choose(info.name)

    def _on_shelf_changed(self, _name: str) -> None:
        before = self.name
        self.refresh()
        if self.name != before:  # the one in use was removed
            self._tell()
