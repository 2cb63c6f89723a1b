"""Settings of a training as a form: what it shows comes back, of every kind of value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_uniultra.core.settings import ConfigError, read_file, read_settings, to_dict
from napari_uniultra.training.config import PRESETS, FineTuneConfig
from napari_uniultra.training.distillation.config import DistillConfig
from napari_uniultra.widgets.settings_form import SettingsForm

pytestmark = pytest.mark.gui


@pytest.mark.parametrize(
    ("kind", "preset"),
    [(FineTuneConfig, "quick"), (FineTuneConfig, "paper"), (FineTuneConfig, "video"), (DistillConfig, "distill_quick")],
)
def test_a_preset_comes_back_as_it_was(qtbot: Any, kind: type, preset: str) -> None:
    config = read_file(kind, PRESETS / f"{preset}.yaml")
    form = SettingsForm(kind, start=config)
    qtbot.addWidget(form)
    assert form.settings() == config
    assert all(control.toolTip() for control in form.controls.values())


def test_every_kind_of_value_comes_back(qtbot: Any) -> None:
    values = to_dict(read_file(FineTuneConfig, PRESETS / "quick.yaml"))
    values["model"].update(base=None, architecture="uniultra-mini", box_prior=True, mask_prior=False, image_size=None)
    values["method"].update(name="lora", options={"rank": 4})
    values["data"].update(clip_frames=[2, 5], image_sizes=[256, 320])
    values["optimiser"].update(rates={"memory": 3.0}, learning_rate=1e-5)
    config = read_settings(FineTuneConfig, values)
    form = SettingsForm(FineTuneConfig, start=config)
    qtbot.addWidget(form)
    assert form.settings() == config


def test_hidden_and_taken_controls(qtbot: Any, tmp_path: Path) -> None:
    start = read_file(FineTuneConfig, PRESETS / "quick.yaml")
    form = SettingsForm(FineTuneConfig, hidden=("output",), start=start)
    qtbot.addWidget(form)
    assert "output" not in form.controls
    with pytest.raises(ConfigError, match="output is missing"):
        form.settings()
    steps = form.take("run.steps")
    with qtbot.waitSignal(form.changed):
        steps.setText("7")
    assert form.settings({"output": str(tmp_path)}).run.steps == 7
    steps.setText("many")
    with pytest.raises(ConfigError, match=r"run\.steps is 'many'"):
        form.settings({"output": str(tmp_path)})


def test_changes_go_into_groups_that_a_file_leaves_empty(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("output: out\ndata:\n")
    assert read_file(FineTuneConfig, path, {"data.batch": 2, "run.steps": 3}).data.batch == 2
    path.write_text("output: out\ndata: 5\n")
    with pytest.raises(ConfigError, match=r"data in .*run\.yaml holds no settings"):
        read_file(FineTuneConfig, path, {"data.batch": 2})
