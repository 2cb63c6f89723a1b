"""How to train: fine-tune or distil, by which preset, from which model, and every setting of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.core.settings import read_file
from napari_uniultra.model.catalogue import list_models
from napari_uniultra.runner.registry import list_runs
from napari_uniultra.runner.run import DISTIL, FINE_TUNE, KINDS
from napari_uniultra.training.config import find_config
from napari_uniultra.widgets.settings_form import SettingsForm

_KINDS = {
    FINE_TUNE: ("Fine-tune a model", "Adapt a model to your images"),
    DISTIL: ("Distil a model", "Make a small, fast model see as a large one does"),
}
_PRESETS = {
    FINE_TUNE: {
        "quick": ("Quick", "The bundled model on your own images, in minutes, also without a graphics card"),
        "video": ("Video", "The same for loops: also what carries a mask from frame to frame"),
        "paper": ("Paper", "UniUltra-L as published: needs a graphics card and hours"),
    },
    DISTIL: {
        "distill_quick": ("Quick", "A narrower model out of the bundled one, also without a graphics card"),
        "distill": ("Paper", "UniUltra-mini out of UniUltra-L: needs a graphics card and days"),
    },
}
_BASE = {FINE_TUNE: "model.base", DISTIL: "teacher.checkpoint"}
_DECIDED = ("output", "data.manifests", *_BASE.values())  # by the panel
_FEW = {
    "run.steps": "Steps",
    "optimiser.learning_rate": "Learning rate",
    "model.image_size": "Input size (px)",
    "student.image_size": "Input size (px)",
    "run.max_minutes": "Time limit (min)",
    "run.device": "Compute on",
}
_TITLES = {
    "model": "Model",
    "method": "What is trained",
    "data": "Samples",
    "prompts": "How a person's prompts are imitated",
    "loss": "What is minimised",
    "optimiser": "Optimiser",
    "run": "The run",
    "teacher": "Teacher",
    "student": "Student",
    "match": "What is to be alike",
    "joint": "The stage with the mask loss",
}
_RANDOM, _FILE = "random weights", "Open a file…"


class _Models(QComboBox):
    """A list that is made anew when it opens: runs end, and models are added, while the panel is there."""

    opening = Signal()

    def showPopup(self) -> None:
        """Tell of it first."""
        self.opening.emit()
        super().showPopup()


class SettingsChooser(QWidget):
    """Chooses the settings of a run. `kind` says which of the two trainings."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._forms: dict[str, SettingsForm] = {}
        self._few: dict[str, QWidget] = {}
        self._build()
        self._on_kind()

    def _build(self) -> None:
        self.title = QLineEdit()
        self.title.setPlaceholderText("Fine-tuning")
        self.title.setToolTip("What you call this training. Do not name patients.")
        self.kind_box, self.preset_box, self.base_box = QComboBox(), QComboBox(), _Models()
        for kind, (words, tip) in _KINDS.items():
            self.kind_box.addItem(words, kind)
            self.kind_box.setItemData(self.kind_box.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.kind_box.setToolTip("Adapt a model, or make a small one out of a large one")
        self.preset_box.setToolTip("Settings that suit a purpose; all can be changed below")
        self.base_box.setToolTip("The model to start from, or to learn from")
        self.cards = QSpinBox()
        self.cards.setRange(1, 1)
        self.cards.setToolTip("Graphics cards to train on, each with its own share of every step")
        self.all_button = QToolButton()
        self.all_button.setText("All settings")
        self.all_button.setToolTip("Show every setting of the training")
        self.all_button.setCheckable(True)
        self.all_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.all_button.setArrowType(Qt.ArrowType.RightArrow)
        self._top, self._bottom = QFormLayout(), QVBoxLayout()
        self._top.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for words, control in (
            ("Name", self.title),
            ("Task", self.kind_box),
            ("Preset", self.preset_box),
            ("Start from", self.base_box),
            ("Cards", self.cards),
        ):
            self._top.addRow(words, control)
        self._top.setRowVisible(self.cards, False)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(self._top)
        column.addWidget(self.all_button)
        column.addLayout(self._bottom)
        self.kind_box.currentIndexChanged.connect(self._on_kind)
        self.preset_box.activated.connect(lambda _: self._on_preset())
        self.base_box.activated.connect(self._on_base)
        self.base_box.opening.connect(lambda: self._choose_base(self._base))
        self.all_button.toggled.connect(self._on_all)
        for signal in (self.title.textChanged, self.cards.valueChanged, self.base_box.currentIndexChanged):
            signal.connect(lambda *_: self.changed.emit())

    # What is chosen -------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """`runner.run.FINE_TUNE` or `DISTIL`."""
        return self.kind_box.currentData()

    @property
    def form(self) -> SettingsForm:
        """The form with all settings of the kind that is chosen."""
        return self._forms[self.kind]

    @property
    def name(self) -> str:
        """What the user calls the run."""
        return self.title.text().strip() or self.title.placeholderText()

    def settings(self, output: str, *manifests: str) -> Any:
        """What is chosen, as settings of a run.

        Raises
        ------
        ConfigError
            Naming the setting that does not fit.
        """
        base = self.base_box.currentData()
        return self.form.settings({"output": output, "data.manifests": list(manifests), _BASE[self.kind]: base})

    def show_settings(self, kind: str, config: Any, title: str = "") -> None:
        """Fill everything in from a run's settings."""
        self.kind_box.setCurrentIndex(self.kind_box.findData(kind))
        self.form.show_settings(config)
        self._choose_base(config.model.base if kind == FINE_TUNE else config.teacher.checkpoint)
        self.title.setText(title)

    def offer_cards(self, count: int) -> None:
        """Let the user choose among this many graphics cards."""
        blocker = QSignalBlocker(self.cards)
        self.cards.setMaximum(max(count, 1))
        del blocker
        self._top.setRowVisible(self.cards, count > 1)

    # Following ------------------------------------------------------------------------------------------------------

    def _on_kind(self, *_: Any) -> None:
        blocker = QSignalBlocker(self.preset_box)
        self.preset_box.clear()
        for preset, (words, tip) in _PRESETS[self.kind].items():
            self.preset_box.addItem(words, preset)
            self.preset_box.setItemData(self.preset_box.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        del blocker
        self.title.setPlaceholderText("Fine-tuning" if self.kind == FINE_TUNE else "Distillation")
        self._top.labelForField(self.base_box).setText("Start from" if self.kind == FINE_TUNE else "Teacher")
        if self.kind not in self._forms:
            self._add_form()
        for kind, form in self._forms.items():
            form.setVisible(kind == self.kind and self.all_button.isChecked())
        for path, control in self._few.items():
            self._top.setRowVisible(control, path.startswith(f"{self.kind}:"))
        self._on_preset()

    def _add_form(self) -> None:
        """Make the form of a kind; the settings that matter most move to the top."""
        form = SettingsForm(KINDS[self.kind], _TITLES, _DECIDED, self._preset())
        self._forms[self.kind] = form
        self._bottom.addWidget(form)
        for path, words in _FEW.items():
            if path in form.controls:
                control = form.take(path)
                self._few[f"{self.kind}:{path}"] = control
                self._top.addRow(words, control)
        form.changed.connect(self.changed)

    def _preset(self) -> Any:
        return read_file(KINDS[self.kind], find_config(self.preset_box.currentData(), KINDS[self.kind]))

    def _on_preset(self) -> None:
        config = self._preset()
        self.form.show_settings(config)
        self._choose_base(config.model.base if self.kind == FINE_TUNE else config.teacher.checkpoint)
        self.changed.emit()

    def _choose_base(self, base: str | None) -> None:
        """Offer the models there are, and choose one."""
        blocker = QSignalBlocker(self.base_box)
        self.base_box.clear()
        for info in list_models():
            if info.origin != "downloadable" or info.name == base:
                needs = "" if info.origin != "downloadable" else " (to be downloaded)"
                self.base_box.addItem(f"{info.name}{needs}", info.name)
        for run in list_runs():
            if run.model is not None:
                self.base_box.addItem(run.info.title, str(run.model))
        if self.kind == FINE_TUNE:
            self.base_box.addItem(_RANDOM, None)
        if base is not None and self.base_box.findData(base) < 0:
            self.base_box.addItem(Path(base).name, base)
        self.base_box.addItem(_FILE, _FILE)
        self.base_box.setCurrentIndex(self.base_box.findData(base) if base else self.base_box.findText(_RANDOM))
        self._base = base
        del blocker

    def _on_base(self, index: int) -> None:
        if self.base_box.itemData(index) == _FILE:
            path, _ = QFileDialog.getOpenFileName(self, "Open a model", "", "Models (*.safetensors *.pt)")
            self._choose_base(path or self._base)
        self._base = self.base_box.currentData()
        self.changed.emit()

    def _on_all(self, is_on: bool) -> None:
        self.all_button.setArrowType(Qt.ArrowType.DownArrow if is_on else Qt.ArrowType.RightArrow)
        self.form.setVisible(is_on)
