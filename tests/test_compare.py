"""Comparing two sets of masks: pairing and numbers by hand, and the panel with models, sessions and files."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panel_window import Window, close_dock, loop, settle
from qtpy.QtWidgets import QApplication

from napari_uniultra.core.counterparts import pair_objects
from napari_uniultra.core.masks import Masks
from napari_uniultra.errors import ReadError
from napari_uniultra.io.writers import write_masks
from napari_uniultra.model.load import load_model
from napari_uniultra.plugin.compare import Comparison, compare_masks
from napari_uniultra.plugin.layers import METADATA_KEY
from napari_uniultra.segment.session import CineSession
from napari_uniultra.widgets.compare_panel import ComparePanel

SPACING = (0.5, 2.0)


def squares(*places: tuple[int, int, int, int], names: dict[int, str] | None = None, frames: int = 3) -> Masks:
    """Objects 1, 2, ... of 4 x 4 pixels, each as (frame, row, column, id)."""
    labels = np.zeros((frames, 20, 30), np.uint8)
    for frame, row, column, number in places:
        labels[frame, row : row + 4, column : column + 4] = number
    return Masks(labels, names or {})


def compared(a: Masks, b: Masks, spacing: tuple[float, float] | None = SPACING) -> Comparison:
    *done, found = compare_masks(("left", "right"), a, b, spacing)
    assert done == list(range(1, len(a) + 1))
    return found


def test_the_numbers_of_a_shifted_square() -> None:
    a = squares((0, 4, 4, 1), (1, 4, 4, 1), names={1: "lumen"})
    b = squares((0, 4, 4, 1), (1, 4, 6, 1), (2, 0, 0, 1))
    found = compared(a, b)
    (item,) = found.objects
    assert item.name == "lumen"
    # Frame 0 is equal, on frame 1 half of 16 pixels overlap, on frame 2 there is only one.
    assert item.dice.tolist() == [1.0, 0.5, 0.0]
    # Shifted by two columns of 2 mm: the far columns' boundary pixels are 4 mm from the nearest of the other.
    assert item.hd95.tolist()[:2] == [0.0, 4.0]
    assert math.isinf(item.hd95[2])
    assert (item.mean_dice, item.mean_hd95, item.frames, item.one_sided) == (0.5, 2.0, 3, 1)
    assert [frame for frame, _ in found.worst(5)] == [2, 1]
    header, cells = found.table()
    assert header == ["frame", "object", "id_a", "id_b", "dice", "hd95_mm"]
    assert cells[1] == ["1", "lumen", "1", "1", "0.5000", "4.0000"]
    assert cells[2][-1] == "inf"
    assert compared(a, b, spacing=None).unit == "px"
    assert compared(a, b, spacing=None).objects[0].hd95[1] == 2.0


def test_frames_without_the_object_count_for_nothing() -> None:
    found = compared(squares((1, 0, 0, 1)), squares((1, 0, 0, 1)))
    assert np.isnan(found.objects[0].dice).tolist() == [True, False, True]
    assert found.objects[0].mean_dice == 1.0
    assert len(found.table()[1]) == 1
    nothing = compared(squares(), squares())
    assert (nothing.objects, nothing.worst(5), nothing.table()[1]) == ((), [], [])


@pytest.mark.parametrize(
    ("names_a", "names_b", "pairs"),
    [
        ({}, {}, [(1, 1), (2, 2)]),
        ({1: "wall", 2: "Lumen"}, {1: "lumen", 2: "wall"}, [(1, 2), (2, 1)]),
        ({1: "Object 1", 2: "lumen"}, {1: "lumen", 2: "Object 2"}, [(2, 1)]),
        ({1: "wall"}, {1: "lumen"}, [(2, 2)]),
        ({1: "wall"}, {}, [(1, 1), (2, 2)]),
        ({1: "cyst", 2: "cyst"}, {1: "cyst", 2: "cyst"}, [(1, 1), (2, 2)]),
    ],
)
def test_objects_pair_by_name_and_then_by_number(
    names_a: dict[int, str], names_b: dict[int, str], pairs: list[tuple[int, int]]
) -> None:
    both = ((0, 0, 0, 1), (0, 10, 10, 2))
    assert pair_objects(squares(*both, names=names_a), squares(*both, names=names_b)) == pairs


def test_objects_without_a_counterpart_are_named() -> None:
    found = compared(squares((0, 0, 0, 1), names={1: "wall"}), squares((0, 0, 0, 1), names={1: "lumen"}))
    assert (found.objects, found.only_a, found.only_b) == ((), ("wall",), ("lumen",))


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(ReadError, match=r"left has 3 frames of 30 x 20 pixels, right has 2 frames"):
        next(compare_masks(("left", "right"), squares(), squares(frames=2), None))


# In the viewer --------------------------------------------------------------------------------------------------------


@pytest.fixture
def compare(window: Window) -> Any:
    _, panel = window.viewer.window.add_plugin_dock_widget("napari-uniultra", "Compare")
    yield panel
    panel.controller.close()


def choose(panel: ComparePanel, side: int, kind: str, value: Any) -> None:
    box = panel.sources[side]
    if kind in ("session", "file"):
        box.add_file(kind, value)
    box.choose((kind, value))
    assert box.currentData() == (kind, value)


def finish(window: Window, panel: ComparePanel) -> Comparison | None:
    window.qtbot.waitUntil(lambda: not panel.controller.running and not panel.thread_.busy, timeout=60_000)
    return panel.controller.comparison


@pytest.mark.gui
def test_another_model_on_the_same_marks_leaves_the_session_alone(
    window: Window, compare: ComparePanel, checkpoint: Path
) -> None:
    from napari_uniultra.model.zoo import add_model
    from napari_uniultra.plugin.layers import cine_of_layer

    add_model(checkpoint, "other")
    image = window.open(loop(), metadata={METADATA_KEY: {"spacing_mm": (0.5, 0.5)}})
    window.draw_box(frame=2)
    window.panel.controller.objects.rename(1, "lumen")
    settle(window)
    before = window.masks().copy()
    choose(compare, 0, "layer", window.viewer.layers["UniUltra masks"])
    choose(compare, 1, "model", "other")
    told: list[Any] = []
    compare.controller.progressed.connect(told.append)
    compare.run_button.click()
    assert not compare.run_button.isEnabled()
    found = finish(window, compare)
    assert [item.done for item in told if item is not None and "segments" in item.words and item.total] == list(
        range(1, 9)
    )
    reference = CineSession(cine_of_layer(image), load_model(checkpoint, device="cpu"))
    reference.set_prompt(1, 2, window.panel.controller.snapshot.prompts[1, 2])
    list(reference.propagate("both"))
    assert np.array_equal(found.masks[1].labels, reference.masks)
    (item,) = found.objects
    assert (item.name, item.dice[2]) == ("lumen", 1.0)
    assert np.array_equal(window.masks(), before)
    assert window.panel.controller.snapshot.can_undo
    assert [layer.name for layer in compare.controller._shown.layers] == ["A: UniUltra masks", "B: other"]
    assert "lumen: mean Dice" in compare.summary.text()
    assert window.told == []


@pytest.mark.gui
def test_sessions_and_reference_files(window: Window, compare: ComparePanel, tmp_path: Path) -> None:
    image = window.open(loop())
    window.draw_box()
    window.panel.controller.tracker.track("forward")
    settle(window)
    window.panel.controller.files.save(tmp_path / "mine.uniultra")
    settle(window)
    masks = window.masks().copy()
    shifted = np.roll(masks, 3, axis=2)
    write_masks(tmp_path / "truth.seg.nrrd", Masks(shifted, {1: "=1+2"}))
    choose(compare, 0, "session", tmp_path / "mine.uniultra")
    choose(compare, 1, "file", tmp_path / "truth.seg.nrrd")
    compare.run()
    found = finish(window, compare)
    assert found.unit == "px"
    for frame in range(8):
        both = 2 * np.count_nonzero((masks[frame] == 1) & (shifted[frame] == 1))
        sizes = np.count_nonzero(masks[frame]) + np.count_nonzero(shifted[frame])
        assert found.objects[0].dice[frame] == pytest.approx(both / sizes)
    # The list of frames leads to them, the plot follows the slider, and back.
    worst = found.worst(1)[0][0]
    window.viewer.dims.set_point(0, (worst + 3) % 8)
    compare.table.selectRow(0)
    assert compare.controller.frame == worst
    assert compare.plot.shown.value() == worst
    compare.plot.frame_chosen.emit(5)
    assert int(window.viewer.dims.point[0]) == 5
    # The table can be taken away.
    compare.save(str(tmp_path / "table.csv"))
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == list(range(8))
    compare.copy()
    header, first = [line.split("\t") for line in QApplication.clipboard().text().splitlines()[:2]]
    assert header[-1] == "hd95_px"
    assert first[1] == rows[0]["object"] == "'=1+2", "a spreadsheet would run it"
    # Without the loop there is nothing to compare any more.
    window.viewer.layers.remove(image)
    assert compare.controller.comparison is None
    assert not compare.save_button.isEnabled()


def compare_two_layers(window: Window, compare: ComparePanel) -> None:
    """Of a loop: "one", which is shown, with "two", which is not."""
    window.open(loop())
    one = window.viewer.add_labels(squares((0, 4, 4, 1), frames=8).labels, name="one")
    two = window.viewer.add_labels(squares((0, 4, 6, 1), frames=8).labels, name="two", visible=False)
    choose(compare, 0, "layer", one)
    choose(compare, 1, "layer", two)
    compare.run()
    finish(window, compare)


@pytest.mark.gui
def test_two_layers_are_compared_with_each_other(window: Window, compare: ComparePanel) -> None:
    for name in ("first", "second"):
        window.viewer.add_labels(np.zeros((8, 72, 96), np.uint8), name=name)
    assert len({box.currentText() for box in compare.sources}) == 2
    compare.sources[0].choose(compare.sources[1].currentData())
    chosen = compare.sources[1].currentText()
    window.viewer.add_labels(np.zeros((8, 72, 96), np.uint8), name="third")
    assert [box.currentText() for box in compare.sources] == [chosen, chosen]


def test_outlines_and_side_by_side_leave_the_viewer_as_it_was(window: Window, compare: ComparePanel) -> None:
    viewer = window.viewer
    compare_two_layers(window, compare)
    a, b = compare.controller._shown.layers
    names = [layer.name for layer in viewer.layers]
    assert (a.contour, b.contour) == (2, 2)
    compare.outline_box.setChecked(False)
    assert (a.contour, b.contour) == (0, 0)
    compare.grid_box.setChecked(True)
    visible = [layer for layer in viewer.layers if layer.visible]
    assert [layer.name for layer in visible] == ["A: loop", a.name, "B: loop", b.name]
    grid = viewer.canvas.grid if hasattr(viewer, "canvas") else viewer.grid
    cells = [grid.position(viewer.layers.index(layer), viewer.layers) for layer in visible]
    assert cells == [(0, 0), (0, 0), (0, 1), (0, 1)]
    assert visible[0].data is viewer.layers["loop"].data or np.shares_memory(
        visible[0].data, viewer.layers["loop"].data
    )
    compare.grid_box.setChecked(False)
    assert [layer.name for layer in viewer.layers] == names
    assert [viewer.layers[name].visible for name in ("loop", "one", "two")] == [True, True, False]
    assert not grid.enabled
    # Again, and the user deletes one of the two meanwhile.
    compare.grid_box.setChecked(True)
    viewer.layers.remove(a)
    compare.grid_box.setChecked(False)
    assert "B: loop" not in viewer.layers
    compare.run()
    finish(window, compare)
    assert len(compare.controller._shown.layers) == 2


@pytest.mark.gui
def test_closing_the_dock_leaves_the_viewer_as_it_was(window: Window, compare: ComparePanel) -> None:
    viewer = window.viewer
    compare_two_layers(window, compare)
    names = [layer.name for layer in viewer.layers]
    compare.grid_box.setChecked(True)
    gone, thread = [], compare.thread_
    compare.destroyed.connect(gone.append)
    close_dock(compare)
    grid = viewer.canvas.grid if hasattr(viewer, "canvas") else viewer.grid
    assert not grid.enabled
    assert [layer.name for layer in viewer.layers] == names
    assert [viewer.layers[name].visible for name in ("loop", "one", "two")] == [True, True, False]
    window.qtbot.waitUntil(lambda: bool(gone) and not thread.running, timeout=10_000)
    viewer.layers.clear()
    assert window.told == []


@pytest.mark.gui
def test_a_comparison_can_be_stopped_and_says_what_is_missing(
    window: Window, compare: ComparePanel, checkpoint: Path
) -> None:
    from napari_uniultra.model.zoo import add_model

    add_model(checkpoint, "other")
    window.open(loop(frames=200))
    choose(compare, 0, "model", "other")
    choose(compare, 1, "model", "other")
    compare.run()
    finish(window, compare)
    assert "no marks on this loop" in window.told[-1]
    window.draw_box()
    settle(window)
    done: list[int] = []
    compare.controller.progressed.connect(lambda item: done.append(0 if item is None else item.done))
    compare.run()
    window.qtbot.waitUntil(lambda: 3 in done, timeout=60_000)
    # The session that is open answers meanwhile.
    window.draw_box(frame=7)
    settle(window)
    assert window.masks()[7].any()
    assert compare.controller.running
    compare.cancel_button.click()
    finish(window, compare)
    assert compare.controller.comparison is None
    assert max(done) < 200
    assert compare.run_button.isEnabled()


@pytest.mark.gui
def test_renamed_and_deleted_layers_are_followed(window: Window, compare: ComparePanel) -> None:
    image = window.open(loop())
    masks = window.viewer.add_labels(np.zeros((8, 72, 96), np.uint8), name="reader 1")
    choose(compare, 0, "layer", masks)
    masks.name, image.name = "reader one", "probe"
    assert compare.sources[0].currentText() == "Masks: reader one"
    assert compare.image_box.currentText() == "probe"
    window.viewer.layers.move(0, 2)
    assert compare.sources[0].currentData() == ("layer", masks)
    window.viewer.layers.remove(masks)
    assert "Masks: reader one" not in [compare.sources[0].itemText(row) for row in range(compare.sources[0].count())]
    window.viewer.layers.clear()
    assert not compare.run_button.isEnabled()


@pytest.mark.gui
def test_closing_the_panel_lets_go_of_the_viewer(window: Window, compare: ComparePanel) -> None:
    window.open(loop())
    thread = compare.thread_
    window.viewer.window.remove_dock_widget("all")
    compare.deleteLater()
    window.qtbot.waitUntil(lambda: not thread.running, timeout=10_000)
    window.qtbot.wait(50)
    window.viewer.add_labels(np.zeros((8, 72, 96), np.uint8))
    window.viewer.dims.set_point(0, 2)
    window.viewer.layers.clear()
    assert window.told == []
