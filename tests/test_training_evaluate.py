"""The evaluation's scores against cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_uniultra.core.prompts import ellipse_in_box
from napari_uniultra.training.evaluate import (
    Score,
    click_inside,
    dice,
    iou,
    jittered_box,
    table,
    thickness,
)


def rectangle(rows: slice, columns: slice, shape: tuple[int, int] = (100, 200)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def test_overlap_of_two_rectangles() -> None:
    one, two = rectangle(slice(0, 10), slice(0, 10)), rectangle(slice(0, 10), slice(5, 15))
    assert dice(one, two) == pytest.approx(0.5)
    assert iou(one, two) == pytest.approx(1 / 3)
    empty = np.zeros_like(one)
    assert dice(empty, empty) == iou(empty, empty) == 1


def test_an_inscribed_ellipse_covers_pi_quarters_of_its_box() -> None:
    ellipse = ellipse_in_box((20, 10, 180, 90), (100, 200))
    assert ellipse.sum() == pytest.approx(math.pi / 4 * 160 * 80, rel=0.005)
    assert dice(ellipse, rectangle(slice(10, 90), slice(20, 180))) == pytest.approx(
        2 * math.pi / (4 + math.pi), rel=0.005
    )


def test_box_sides_move_outwards_by_at_most_the_jitter() -> None:
    mask = rectangle(slice(40, 60), slice(80, 120))
    boxes = np.array([jittered_box(mask, np.random.default_rng(seed)) for seed in range(100)])
    outwards = np.array([80, 40, -120, -60]) - boxes * [1, 1, -1, -1]
    assert outwards.min() >= 0
    assert (outwards.max(axis=0) <= np.array([200, 100, 200, 100]) * 20 / 1024).all()


def test_clicks_keep_off_the_edge() -> None:
    mask = rectangle(slice(40, 60), slice(80, 120))
    for seed in range(20):
        x, y = click_inside(mask, np.random.default_rng(seed))
        assert 84 <= x <= 116
        assert 44 <= y <= 56


def test_thickness_of_a_layer_is_taken_in_the_middle() -> None:
    mask = rectangle(slice(20, 50), slice(0, 200))
    mask[:, :40] = False
    assert thickness(mask) == 30
    assert thickness(np.zeros((10, 10), bool)) == 0


def test_the_table_holds_means_by_group_and_prompt() -> None:
    scores = [Score("a", "1", "box", 0.8, 0.7, 0.9, 0.6), Score("a", "2", "box", 0.6, 0.5, 0.4, 0.8)]
    (row,) = table(scores)
    assert row["dice"] == pytest.approx(0.7)
    assert row["ellipse"] == pytest.approx(0.7)
    assert row["iou_error"] == pytest.approx(0.15)
