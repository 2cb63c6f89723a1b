"""A scale set by hand belongs to the work: it is undone, kept, and comes back, in a real window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from panel_window import Window, loop, settle

from napari_uniultra.plugin.layers import METADATA_KEY
from napari_uniultra.widgets.spacing_control import LINE_NAME

pytestmark = pytest.mark.gui


def set_scale(window: Window, length_mm: float) -> None:
    """Draw a line over 40 columns and type its length."""
    control = window.panel.spacing_control
    control.draw_button.click()
    window.viewer.layers[LINE_NAME].add_lines(np.array([[10.0, 10.0], [10.0, 50.0]]))
    control.length_box.setValue(length_mm)
    control.apply_button.click()
    settle(window)


def shown(layer: Any) -> tuple[Any, ...]:
    return tuple(layer.scale), [str(unit) for unit in layer.units], layer.metadata[METADATA_KEY].get("spacing_mm")


PIXELS = (1.0, 1.0, 1.0), ["pixel"] * 3, None


def in_mm(side: float) -> tuple[Any, ...]:
    return pytest.approx((1.0, side, side)), ["pixel", "millimeter", "millimeter"], pytest.approx((side, side))


def is_in_mm(layer: Any, side: float) -> bool:
    return all(own == wanted for own, wanted in zip(shown(layer), in_mm(side), strict=True))


def test_undo_takes_a_scale_back_and_redo_sets_it_again(window: Window) -> None:
    image = window.open(loop(), metadata={METADATA_KEY: {}})
    window.draw_box()
    settle(window)
    masks = window.viewer.layers["UniUltra masks"]
    area = window.masks().copy()
    set_scale(window, 20.0)
    assert is_in_mm(image, 0.5)
    assert is_in_mm(masks, 0.5)
    set_scale(window, 10.0)  # 20 mm of the new scale
    assert is_in_mm(image, 0.25)
    window.panel.review_box.undo_button.click()
    settle(window)
    assert is_in_mm(image, 0.5)
    window.panel.review_box.undo_button.click()
    settle(window)
    assert shown(image)[0] == PIXELS[0]
    assert shown(image) == PIXELS == shown(masks)
    assert "unknown" in window.panel.spacing_control.label.text()
    assert np.array_equal(window.masks(), area), "the masks stay"
    window.panel.review_box.redo_button.click()
    settle(window)
    assert is_in_mm(image, 0.5)
    assert is_in_mm(masks, 0.5)
    assert "0.5 x 0.5 mm" in window.panel.spacing_control.label.text()


def open_beside(window: Window, name: str, known: dict[str, Any]) -> tuple[Any, Any]:
    """A loop of the same size as any other here, chosen in the panel, with a layer of masks to paint on."""
    image = window.open(loop() + len(window.viewer.layers), name=name, metadata={METADATA_KEY: known})
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText(name))
    settle(window)
    window.panel.marks_box.tools["paint"].click()
    settle(window)
    return image, window.panel.controller.work.result.layer


@pytest.mark.parametrize("from_file", [True, False])
def test_other_loops_of_the_same_size_keep_their_scale(window: Window, from_file: bool) -> None:
    first, second = (
        open_beside(window, name, {"source": f"/{name}.tif"} if from_file else {}) for name in ("first", "second")
    )
    set_scale(window, 20.0)
    assert all(is_in_mm(layer, 0.5) for layer in second)
    assert [shown(layer) for layer in first] == [PIXELS] * 2
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText("first"))
    settle(window)
    set_scale(window, 10.0)
    assert all(is_in_mm(layer, 0.25) for layer in first)
    assert all(is_in_mm(layer, 0.5) for layer in second)
    window.panel.review_box.undo_button.click()
    settle(window)
    assert [shown(layer) for layer in first] == [PIXELS] * 2
    assert all(is_in_mm(layer, 0.5) for layer in second)


def test_a_line_goes_with_the_loop_that_it_was_drawn_on(window: Window) -> None:
    (first, _), (second, _) = (open_beside(window, name, {}) for name in ("first", "second"))
    control = window.panel.spacing_control
    set_scale(window, 20.0)
    control.draw_button.click()
    window.viewer.layers[LINE_NAME].add_lines(np.array([[10.0, 10.0], [10.0, 50.0]]))
    window.panel.image_box.setCurrentIndex(window.panel.image_box.findText("first"))
    settle(window)
    assert LINE_NAME not in window.viewer.layers
    assert control.apply_button.isHidden()
    control.apply()
    assert "no line yet" in window.told[-1]
    assert shown(first) == PIXELS
    assert is_in_mm(second, 0.5)


def test_a_line_goes_with_the_scale_that_it_was_drawn_at(window: Window) -> None:
    image = window.open(loop(), metadata={METADATA_KEY: {}})
    set_scale(window, 20.0)
    window.panel.spacing_control.draw_button.click()
    window.viewer.layers[LINE_NAME].add_lines(np.array([[10.0, 10.0], [10.0, 50.0]]))
    window.panel.review_box.undo_button.click()
    settle(window)
    assert LINE_NAME not in window.viewer.layers
    set_scale(window, 40.0)
    assert is_in_mm(image, 1.0)


def test_undo_goes_back_to_what_the_file_said(window: Window) -> None:
    image = window.open(loop(), metadata={METADATA_KEY: {"spacing_mm": (0.3, 0.3)}}, scale=(1, 0.3, 0.3))
    set_scale(window, 20.0)
    assert is_in_mm(image, 0.5)
    window.panel.review_box.undo_button.click()
    settle(window)
    assert shown(image)[0] == pytest.approx((1.0, 0.3, 0.3))
    assert shown(image)[2] == (0.3, 0.3)


def test_restored_work_brings_its_scale(window: Window) -> None:
    data = loop()
    window.open(data, metadata={METADATA_KEY: {}})
    window.draw_box()
    settle(window)
    set_scale(window, 20.0)
    window.viewer.layers.clear()
    settle(window)
    image = window.open(data, metadata={METADATA_KEY: {}})
    settle(window)
    assert shown(image) == PIXELS
    window.panel.controller.review.restore()
    settle(window)
    assert is_in_mm(image, 0.5)
    assert is_in_mm(window.viewer.layers["UniUltra masks"], 0.5)
