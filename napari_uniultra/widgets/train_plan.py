"""What a run will be like, in words: data, size, memory, time and warnings, before it is started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_uniultra.core.duration import duration
from napari_uniultra.core.words import counted

_PARTS = {"train": "learns from", "val": "validated on", "test": "kept for a test", "": "not used"}


class PlanView(QWidget):
    """Shows a plan as `uniultra train --dry-run --json` prints it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.warnings = QLabel(), QLabel()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for label in (self.words, self.warnings):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            column.addWidget(label)
        self.say("")

    def say(self, words: str, warnings: Iterable[str] = ()) -> None:
        """Show a sentence, and warnings below it."""
        self.words.setText(words)
        self.warnings.setText("\n".join(f"⚠ {warning}" for warning in warnings))
        self.warnings.setVisible(bool(self.warnings.text()))

    def show_plan(self, plan: Mapping[str, Any], more_warnings: Iterable[str] = ()) -> None:
        """Show a plan."""
        self.say("\n".join(plan_lines(plan)), [*more_warnings, *plan["warnings"]])


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """A plan, a line for each thing to know."""
    lines = []
    for part in plan["parts"]:
        frames, subjects = counted(part["frames"], "frame"), counted(part["subjects"], "subject")
        lines.append(f"{_PARTS.get(part['part'], part['part']).capitalize()}: {frames} of {subjects}")
    share = 100 * plan["trained"] / max(plan["parameters"], 1)
    lines.append(f"Trained: {plan['trained']:,} of {plan['parameters']:,} parameters ({share:.1f} %)")
    lines.append(f"Memory: about {plan['memory_mb'] / 1024:.1f} GB of {plan['free_mb'] / 1024:.1f} GB that are free")
    lines.append(f"Time: about {duration(plan['seconds'])} for {counted(plan['steps'], 'step')} on {plan['device']}")
    return lines
