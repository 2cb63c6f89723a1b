"""Settings as a form: every field of a settings dataclass becomes a control with its help, and comes back as values."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

import yaml
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGroupBox,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_uniultra.core.settings import read_settings, to_dict

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
    """

    def __init__(self, kind: type, titles: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._kind, self._titles = kind, titles or {}
        self.controls: dict[str, QWidget] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self._add_group(kind, "", column, None)
        self.show_settings(kind())

    def settings(self) -> Any:
        """What the form says, as settings.

        Raises
        ------
        ConfigError
            Naming the setting that does not fit.
        """
        values: dict[str, Any] = {}
        for path, control in self.controls.items():
            *groups, name = path.split(".")
            place = values
            for group in groups:
                place = place.setdefault(group, {})
            place[name] = _value_of(control)
        return read_settings(self._kind, values)

    def show_settings(self, settings: Any) -> None:
        """Fill the form in."""
        for path, value in _flat(to_dict(settings), self.controls):
            _show(self.controls[path], value)

    def _add_group(self, kind: type, prefix: str, column: QVBoxLayout, form: QFormLayout | None) -> None:
        hints = typing.get_type_hints(kind)
        for item in fields(kind):
            path = f"{prefix}{item.name}"
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
            control.setToolTip(item.metadata.get("help", ""))
            self.controls[path] = control
            form.addRow(self._title(path, item.name), control)

    def _title(self, path: str, name: str) -> str:
        return self._titles.get(path) or name.replace("_", " ").capitalize()


def _flat(values: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        found += [(path, value)] if path in known else _flat(value, known, f"{path}.")
    return found


def _control(kind: Any, item: Field) -> QWidget:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    kind = next(option for option in options if option is not type(None))
    choices = item.metadata.get("choices")
    if kind is bool:
        return QCheckBox()
    if typing.get_origin(kind) is tuple:
        return _ChoiceList(choices) if choices else _Lines()
    if choices:
        control = QComboBox()
        control.addItems([str(choice) for choice in choices])
        return control
    if typing.get_origin(kind) in (dict, Mapping):
        return _Pairs()
    control = QLineEdit() if kind is str else _Number()
    return control


class _Number(QLineEdit):
    """A number, or nothing."""


class _Pairs(QLineEdit):
    """``1=lumen; 2=wall``."""

    def __init__(self) -> None:
        super().__init__()
        self.setPlaceholderText("1=lumen; 2=wall")


class _Lines(QPlainTextEdit):
    """A list of texts, one a line."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(_LIST_HEIGHT)
        self.setTabChangesFocus(True)


class _ChoiceList(QListWidget):
    """Some of several."""

    def __init__(self, choices: tuple[Any, ...]) -> None:
        super().__init__()
        self.setFixedHeight(_LIST_HEIGHT)
        for choice in choices:
            entry = QListWidgetItem(str(choice), self)
            entry.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            entry.setCheckState(Qt.CheckState.Unchecked)

    def entries(self) -> list[QListWidgetItem]:
        return [self.item(row) for row in range(self.count())]


def _value_of(control: QWidget) -> Any:
    if isinstance(control, QCheckBox):
        return control.isChecked()
    if isinstance(control, QComboBox):
        return control.currentText()
    if isinstance(control, _ChoiceList):
        return [entry.text() for entry in control.entries() if entry.checkState() == Qt.CheckState.Checked]
    if isinstance(control, _Lines):
        return [line.strip() for line in control.toPlainText().splitlines() if line.strip()]
    text = control.text().strip()
    if isinstance(control, _Pairs):
        pairs = (part.partition("=") for part in text.split(";") if part.strip())
        return {key.strip(): value.strip() for key, _, value in pairs}
    if isinstance(control, _Number):
        try:
            return yaml.safe_load(text) if text else None
        except yaml.YAMLError:
            return text  # which is refused as no number
    return text


def _show(control: QWidget, value: Any) -> None:
    if isinstance(control, QCheckBox):
        control.setChecked(bool(value))
    elif isinstance(control, QComboBox):
        control.setCurrentText(str(value))
    elif isinstance(control, _ChoiceList):
        for entry in control.entries():
            entry.setCheckState(Qt.CheckState.Checked if entry.text() in value else Qt.CheckState.Unchecked)
    elif isinstance(control, _Lines):
        control.setPlainText("\n".join(value))
    elif isinstance(control, _Pairs):
        control.setText("; ".join(f"{key}={name}" for key, name in value.items()))
    else:
        control.setText("" if value is None else str(value))
