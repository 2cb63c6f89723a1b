"""Spacing by hand: the arithmetic, and the control in a real window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_uniultra.core.spacing import spacing_from_line
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import PromptError
from napari_uniultra.plugin.layers import METADATA_KEY, cine_from_layer, metadata_of
from napari_uniultra.plugin.loop_scale import Scale
from napari_uniultra.plugin.reader import image_layer
from napari_uniultra.widgets.spacing_control import LINE_NAME, SpacingControl


def test_a_line_and_its_length() -> None:
    assert spacing_from_line((5, 10), (5, 210), 40) == pytest.approx((0.2, 0.2))
    assert spacing_from_line((0, 0), (30, 40), 10) == pytest.approx((0.2, 0.2))  # 3, 4, 5
    # Pixels twice as high as wide: 30 wide and 40 high are 30 and 80 of their widths.
    assert spacing_from_line((0, 0), (30, 40), np.hypot(30, 80), aspect=2) == pytest.approx((2, 1))


@pytest.mark.parametrize(
    ("end", "length", "why"),
    [((0, 5), 10, "too short"), ((0, 200), 0, "not above zero"), ((0, 200), float("nan"), "not above zero"),
     ((0, 20), 4000, "not those"), ((0, 5000), 1, "not those")],
)  # fmt: skip
def test_what_cannot_be_is_refused(end: tuple[float, float], length: float, why: str) -> None:
    with pytest.raises(PromptError, match=why):
        spacing_from_line((0, 0), end, length)


@pytest.mark.parametrize("known", [None, (0.4, 0.2)])
def test_the_control_sets_scale_units_and_metadata(
    known: tuple[float, float] | None, make_napari_viewer: Callable[..., Any]
) -> None:
    viewer = make_napari_viewer()
    data, keywords, _ = image_layer(Cine(np.zeros((4, 120, 160), np.uint8), spacing_mm=known), "loop")
    image = viewer.add_image(data, **keywords)
    masks = viewer.add_labels(np.zeros((4, 120, 160), np.uint8), metadata=metadata_of(Cine(data, spacing_mm=known)))
    control = SpacingControl(viewer, lambda: image)
    assert control.draw_button.isEnabled()
    control.draw()
    line = viewer.layers[LINE_NAME]
    assert (line.mode, viewer.layers.selection.active) == ("add_line", line)
    line.add_lines(np.array([[10.0, 30.0], [110.0, 30.0]]))  # 100 rows
    control.length_box.setValue(50)
    control.apply()
    expected = (0.5, 0.5) if known is None else (0.5, 0.25)
    assert LINE_NAME not in viewer.layers
    for layer in (image, masks):
        assert layer.scale == pytest.approx((1, *expected))
        assert [str(unit) for unit in layer.units] == ["pixel", "millimeter", "millimeter"]
        assert layer.metadata[METADATA_KEY]["spacing_mm"] == pytest.approx(expected)
    assert cine_from_layer(image.data, image.rgb, image.metadata).spacing_mm == pytest.approx(expected)
    assert "0.5 mm" in control.label.text()


def test_a_line_is_needed(make_napari_viewer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = make_napari_viewer()
    image = viewer.add_image(np.zeros((4, 60, 80), np.uint8))
    control, told = SpacingControl(viewer, lambda: image), []
    monkeypatch.setattr("napari_uniultra.widgets.spacing_control.tell", told.append)
    control.draw()
    control.apply()
    assert "no line" in str(told[0])
    viewer.layers.remove(LINE_NAME)  # the user may delete it
    control.refresh()
    assert not control.apply_button.isVisible()


def test_a_still_has_two_axes() -> None:
    class Layer:
        metadata, units, scale = {}, ("pixel", "pixel"), (1.0, 1.0)

    Scale.in_mm((0.1, 0.2)).give_to(Layer)
    assert (Layer.units, Layer.scale) == (("mm", "mm"), (0.1, 0.2))
