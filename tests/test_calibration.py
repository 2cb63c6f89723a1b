"""The predicted IoU: calibrated to scores, kept with the model, shown by the session."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import CheckpointError, ReadError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import read_checkpoint, save_checkpoint
from napari_uniultra.model.config import architecture
from napari_uniultra.model.loaded import Model
from napari_uniultra.segment.results import expected_iou
from napari_uniultra.segment.session import CineSession
from napari_uniultra.training.calibrate import calibrate

CONFIG = architecture("uniultra-mini", image_size=64)


def write_scores(path: Path, prompted: np.ndarray, tracked: np.ndarray) -> Path:
    """A scores.csv whose rows are pairs of predicted and true IoU."""
    lines = ["predicted_iou,iou,since_prompt,failure"]
    lines += [f"{p},{t},," for p, t in prompted] + [f"{p},{t},3," for p, t in tracked]
    lines += [",0.9,,", "0.9,0,,no mask"]  # the ellipse predicts nothing, and a failure teaches nothing
    path.write_text("\n".join(lines))
    return path


def test_the_curves_undo_a_known_bias(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0.2, 1, 400)
    prompted = np.stack([0.5 + 0.5 * true, true], 1)
    tracked = np.stack([0.6 * true + rng.normal(0, 0.02, 400), true], 1).clip(0, 1)
    curves = calibrate(write_scores(tmp_path / "scores.csv", prompted, tracked))
    for pairs, curve, before, after in ((prompted, curves.prompted, 0.15, 0.02), (tracked, curves.tracked, 0.2, 0.04)):
        assert np.abs(pairs[:, 0] - pairs[:, 1]).mean() > before
        assert np.abs([expected_iou(own, curve) - t for own, t in pairs]).mean() < after
        assert list(curve) == sorted(curve)
        assert all(low[1] <= high[1] for low, high in pairwise(curve))


def test_estimates_that_mean_the_opposite_give_a_flat_curve(tmp_path: Path) -> None:
    estimates = np.linspace(0, 1, 100)
    curve = calibrate(
        write_scores(tmp_path / "s.csv", np.stack([estimates, 1 - estimates], 1), np.zeros((0, 2)))
    ).prompted
    assert {y for _, y in curve} == {0.5}


def test_equal_estimates_are_one_point(tmp_path: Path) -> None:
    true = np.concatenate([np.full(20, 0.5), np.full(10, 0.9), np.linspace(0.2, 0.4, 10)])
    estimates = np.concatenate([np.ones(30), np.full(10, 0.3)])
    curve = calibrate(write_scores(tmp_path / "s.csv", np.stack([estimates, true], 1), np.zeros((0, 2)))).prompted
    assert [x for x, _ in curve] == [0.3, 1.0]
    assert curve[1][1] == pytest.approx((20 * 0.5 + 10 * 0.9) / 30, abs=1e-4)
    same = np.stack([np.ones(40), true], 1)
    assert calibrate(write_scores(tmp_path / "s.csv", same, np.zeros((0, 2)))).prompted == ()


def test_too_few_scores_leave_the_estimate_as_it_is(tmp_path: Path) -> None:
    curves = calibrate(write_scores(tmp_path / "s.csv", np.full((3, 2), 0.5), np.zeros((0, 2))))
    assert curves.prompted == curves.tracked == ()
    assert expected_iou(0.37, curves.prompted) == 0.37


def test_scores_without_an_estimate_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no predicted IoU"):
        calibrate(write_scores(tmp_path / "s.csv", np.zeros((0, 2)), np.zeros((0, 2))))
    with pytest.raises(ReadError, match="cannot be read"):
        calibrate(tmp_path / "missing.csv")


def test_the_curves_are_kept_with_the_weights(tmp_path: Path) -> None:
    config = CONFIG.with_(prompted_iou=((0.1, 0.2), (0.9, 0.8)), tracked_iou=((0.5, 0.7), (0.6, 0.7)))
    save_checkpoint(tmp_path / "m.safetensors", build_network(config).state_dict(), config, {})
    assert read_checkpoint(tmp_path / "m.safetensors").config == config


@pytest.mark.parametrize("curve", [((0.5, 1.5),), ((0.5,),), ((0.6, 0.1), (0.5, 0.2)), ((0.5, float("nan")),)])
def test_a_damaged_curve_is_refused(curve: tuple) -> None:
    with pytest.raises(CheckpointError, match="curve"):
        CONFIG.with_(tracked_iou=curve)


def test_a_session_shows_what_the_curves_say() -> None:
    torch.manual_seed(0)
    config = CONFIG.with_(prompted_iou=((0.0, 0.3), (1.0, 0.3)), tracked_iou=((0.0, 0.7), (1.0, 0.7)))
    model = Model(build_network(config), config, torch.device("cpu"), "random", "0" * 64, {})
    session = CineSession(Cine(np.random.default_rng(0).integers(0, 255, (3, 50, 60)).astype(np.uint8)), model)
    assert session.add_box(1, 0, (10, 10, 40, 40)).predicted_iou[1] == pytest.approx(0.3)
    assert [step.predicted_iou[1] for step in session.propagate("forward")] == pytest.approx([0.3, 0.7, 0.7])
