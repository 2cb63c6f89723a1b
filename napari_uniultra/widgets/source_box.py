"""What one side of a comparison is: masks in the viewer, a file, or another model on the same marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QFileDialog, QSizePolicy

from napari_uniultra.core.masks import Masks
from napari_uniultra.model.catalogue import list_models
from napari_uniultra.plugin.compare_sources import FileMasks, LayerMasks, ModelMasks, SessionMasks, Source, labels_of
from napari_uniultra.plugin.layers import names_of_objects

_SESSION, _FILE = "Session file…", "Masks from a file…"
_SESSIONS = "Sessions (*.uniultra *.npz)"


class SourceBox(QComboBox):
    """Each entry holds a kind and its value: a Labels layer, a path, or a model's name."""

    def __init__(self, letter: str) -> None:
        super().__init__()
        self._files: list[tuple[str, Path]] = []
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setToolTip(f"What {letter} is. A model starts from the marks of the panel Segment loop")
        self.activated.connect(self._on_activated)

    def refresh(self, layers: list[Any]) -> None:
        """List what there is; the choice stays as long as it is there."""
        chosen = self.currentData()
        blocker = QSignalBlocker(self)
        self.clear()
        for layer in layers:
            self.addItem(f"Masks: {layer.name}", ("layer", layer))
        for kind, path in self._files:
            self.addItem(f"{kind.capitalize()}: {path.name}", (kind, path))
        for info in list_models():
            if info.path is not None:
                self.addItem(f"Model: {info.name}", ("model", info.name))
        self.insertSeparator(self.count())
        self.addItem(_SESSION, ("ask", "session"))
        self.addItem(_FILE, ("ask", "file"))
        self.choose(chosen)
        del blocker

    def choose(self, entry: tuple[str, Any] | None) -> None:
        """Choose an entry, where it is there."""
        for row in range(self.count()):
            if self.itemData(row) is not None and entry is not None and self.itemData(row) == entry:
                self.setCurrentIndex(row)

    def add_file(self, kind: str, path: Path) -> None:
        """Offer a file of a kind, "session" or "file", and choose it."""
        self._files.append((kind, path))
        self.insertItem(0, f"{kind.capitalize()}: {path.name}", (kind, path))
        self.setCurrentIndex(0)

    @property
    def source(self) -> Source | None:
        """What is chosen, with the masks of a layer as they are now. Raises WriteError where a layer holds none."""
        kind, value = self.currentData() or ("", None)
        if kind == "layer":
            return LayerMasks(value.name, Masks(labels_of(value), names_of_objects(value.features)))
        made = {"session": SessionMasks, "file": FileMasks, "model": ModelMasks}.get(kind)
        return None if made is None else made(value)

    def _on_activated(self, index: int) -> None:
        kind, value = self.itemData(index) or ("", None)
        if kind == "ask":
            title, files = ("Choose a session", _SESSIONS) if value == "session" else ("Choose masks", "")
            path, _ = QFileDialog.getOpenFileName(self, title, "", files)
            self.setCurrentIndex(0)
            if path:
                self.add_file(value, Path(path))
