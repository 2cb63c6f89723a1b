"""Settings as a form: every field of a settings dataclass becomes a control with its help, and comes back as values."""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

import yaml
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGroupBox,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.core.settings import read_settings, to_dict
from napari_uniultra.widgets.parts import row_of

_LIST_HEIGHT = 74  # pixels


class SettingsForm(QWidget):
    """A form for one settings dataclass; groups of settings become boxes.

    Limits and types are checked by `read_settings` when the form is read: the one place that knows them.

    Parameters
    ----------
    kind : type
        A dataclass whose fields are made with `core.settings.setting`.
    titles : mapping of str to str
        Dotted names to the words beside a control; by default the name itself.
    hidden : collection of str
        Dotted names that somebody else decides; `settings` is given their values.
    start : optional
        What it shows at first; by default the defaults, which a kind with settings that must be given does not have.
    """

    changed = Signal()

    def __init__(
        self, kind: type, titles: Mapping[str, str] | None = None, hidden: Collection[str] = (), start: Any = None
    ) -> None:
        super().__init__()
        self._kind, self._titles, self._hidden = kind, titles or {}, frozenset(hidden)
        self.controls: dict[str, QWidget] = {}
        self._forms: dict[str, QFormLayout] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self._add_group(kind, "", column, None)
        self.show_settings(kind() if start is None else start)

    def settings(self, others: Mapping[str, Any] | None = None) -> Any:
        """What the form says, as settings.

        Parameters
        ----------
        others : mapping of str to object, optional
            Dotted names to values of what it does not show.

        Raises
        ------
        ConfigError
            Naming the setting that does not fit.
        """
        values: dict[str, Any] = {}
        shown = {path: _value_of(control) for path, control in self.controls.items()}
        for path, value in {**shown, **(others or {})}.items():
            *groups, name = path.split(".")
            place = values
            for group in groups:
                place = place.setdefault(group, {})
            place[name] = value
        return read_settings(self._kind, values)

    def show_settings(self, settings: Any) -> None:
        """Fill the form in."""
        for path, value in _flat(to_dict(settings), self.controls):
            _show(self.controls[path], value)

    def take(self, path: str) -> QWidget:
        """A control out of its row, to be shown elsewhere; the form still reads it."""
        form, control = self._forms[path], self.controls[path]
        label = form.labelForField(control)
        form.takeRow(control)
        label.hide()
        label.deleteLater()
        return control

    def add_below(self, path: str, *widgets: QWidget) -> None:
        """Put widgets into a row of their own below a control."""
        form = self._forms[path]
        row, _ = form.getWidgetPosition(self.controls[path])
        form.insertRow(row + 1, "", row_of(*widgets))

    def _add_group(self, kind: type, prefix: str, column: QVBoxLayout, form: QFormLayout | None) -> None:
        hints = typing.get_type_hints(kind)
        for item in fields(kind):
            path = f"{prefix}{item.name}"
            if path in self._hidden:
                continue
            if is_dataclass(hints[item.name]):
                box = QGroupBox(self._title(path, item.name))
                box.setToolTip(item.metadata.get("help", ""))
                column.addWidget(box)
                inner = QVBoxLayout(box)
                rows = QFormLayout()
                rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
                rows.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
                inner.addLayout(rows)
                self._add_group(hints[item.name], f"{path}.", inner, rows)
                continue
            if form is None:
                form = QFormLayout()
                column.addLayout(form)
            control = _control(hints[item.name], item)
            label = QLabel(self._title(path, item.name))
            for widget in (control, label):
                widget.setToolTip(item.metadata.get("help", ""))
            self.controls[path], self._forms[path] = control, form
            form.addRow(label, control)
            _change_signal(control).connect(lambda *_: self.changed.emit())

    def _title(self, path: str, name: str) -> str:
        return self._titles.get(path) or name.replace("_", " ").capitalize()


def _flat(values: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Values by the dotted names of what shows them; what nothing shows is left out."""
    found = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path in known:
            found.append((path, value))
        elif isinstance(value, Mapping):
            found += _flat(value, known, f"{path}.")
    return found


def _control(kind: Any, item: Field) -> QWidget:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    may_be_empty = type(None) in options
    kind = next(option for option in options if option is not type(None))
    choices = item.metadata.get("choices")
    if kind is bool:
        return _YesNo() if may_be_empty else QCheckBox()
    if typing.get_origin(kind) is tuple:
        return _ChoiceList(choices) if choices else _Lines(typing.get_args(kind)[0])
    if choices:
        control = QComboBox()
        control.addItems([str(choice) for choice in choices])
        return control
    if typing.get_origin(kind) in (dict, Mapping):
        return _Pairs(typing.get_args(kind)[1])
    return _Text(may_be_empty) if kind is str else _Number()


class _YesNo(QComboBox):
    """Yes, no, or left to whoever reads it."""

    def __init__(self) -> None:
        super().__init__()
        for words, value in (("Automatic", None), ("Yes", True), ("No", False)):
            self.addItem(words, value)


class _Text(QLineEdit):
    """Some text; where it may be empty, an empty one stands for nothing."""

    def __init__(self, may_be_empty: bool) -> None:
        super().__init__()
        self.may_be_empty = may_be_empty


class _Number(QLineEdit):
    """A number, or nothing."""


class _Pairs(QLineEdit):
    """``1=lumen; 2=wall``."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind
        self.setPlaceholderText("1=lumen; 2=wall" if kind is str else "name=value; name=value")


class _Lines(QTextEdit):
    """A list, an item a line. (napari's themes have no colours for QPlainTextEdit.)"""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind
        self.setAcceptRichText(False)
        self.setFrameShape(QTextEdit.Shape.NoFrame)
        self.setFixedHeight(_LIST_HEIGHT)
        self.setTabChangesFocus(True)


class _ChoiceList(QListWidget):
    """Some of several."""

    def __init__(self, choices: tuple[Any, ...]) -> None:
        super().__init__()
        self.setFixedHeight(_LIST_HEIGHT)
        for choice in choices:
            entry = QListWidgetItem(str(choice), self)
            entry.setData(Qt.ItemDataRole.UserRole, choice)
            entry.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            entry.setCheckState(Qt.CheckState.Unchecked)

    def entries(self) -> list[QListWidgetItem]:
        return [self.item(row) for row in range(self.count())]


def _value_of(control: QWidget) -> Any:
    if isinstance(control, QCheckBox):
        return control.isChecked()
    if isinstance(control, _YesNo):
        return control.currentData()
    if isinstance(control, QComboBox):
        return control.currentText()
    if isinstance(control, _ChoiceList):
        chosen = [entry for entry in control.entries() if entry.checkState() == Qt.CheckState.Checked]
        return [entry.data(Qt.ItemDataRole.UserRole) for entry in chosen]
    if isinstance(control, _Lines):
        lines = [line.strip() for line in control.toPlainText().splitlines() if line.strip()]
        return [_parsed(line, control.kind) for line in lines]
    text = control.text().strip()
    if isinstance(control, _Pairs):
        pairs = (part.partition("=") for part in text.split(";") if part.strip())
        return {key.strip(): _parsed(value.strip(), control.kind) for key, _, value in pairs}
    if isinstance(control, _Number):
        return _parsed(text, float) if text else None
    return None if control.may_be_empty and not text else text


def _parsed(text: str, kind: Any) -> Any:
    """A value as YAML has it, where it is to be something else than text; what is none is left to be refused."""
    if kind is str:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _show(control: QWidget, value: Any) -> None:
    if isinstance(control, QCheckBox):
        control.setChecked(bool(value))
    elif isinstance(control, _YesNo):
        control.setCurrentIndex(control.findData(value))
    elif isinstance(control, QComboBox):
        control.setCurrentText(str(value))
    elif isinstance(control, _ChoiceList):
        for entry in control.entries():
            is_chosen = entry.data(Qt.ItemDataRole.UserRole) in value
            entry.setCheckState(Qt.CheckState.Checked if is_chosen else Qt.CheckState.Unchecked)
    elif isinstance(control, _Lines):
        control.setPlainText("\n".join(map(str, value)))
    elif isinstance(control, _Pairs):
        control.setText("; ".join(f"{key}={name}" for key, name in value.items()))
    else:
        control.setText("" if value is None else str(value))


def _change_signal(control: QWidget) -> Any:
    if isinstance(control, QCheckBox):
        return control.toggled
    if isinstance(control, QComboBox):
        return control.currentIndexChanged
    return control.itemChanged if isinstance(control, QListWidget) else control.textChanged
