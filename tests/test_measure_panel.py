"""The measure panel in a real napari window: table, plot, beats and long axis follow the masks and each other."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.layers import Shapes
from napari.utils.notifications import notification_manager
from panel_window import close_dock, drag
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog

from napari_uniultra.core.measure import Cycle, Markers, disc_volume, long_axis, measurement_rows
from napari_uniultra.core.types import Cine
from napari_uniultra.plugin import loop_measurements
from napari_uniultra.plugin.layers import (
    METADATA_KEY,
    features_of_names,
    markers_of,
    metadata_for_masks,
    metadata_of,
    set_markers,
)
from napari_uniultra.plugin.loop_measurements import LoopMeasurements
from napari_uniultra.plugin.loop_scale import Scale, rescale
from napari_uniultra.widgets.measure_panel import MeasurePanel
from napari_uniultra.widgets.spacing_control import LINE_NAME, SpacingControl

pytestmark = pytest.mark.gui

FRAMES, HEIGHT, WIDTH, PERIOD = 40, 60, 90, 16
SPACING = (0.5, 0.4)
ED, ES, NEXT_ED = 0, 8, 16


def ellipse(stretch: float, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    return ((x - width / 2) / (16 * stretch)) ** 2 + ((y - height / 2) / (24 * stretch)) ** 2 <= 1


def beating(frames: int = FRAMES) -> np.ndarray:
    """Object 1 beats, with 16 frames a beat; object 3 is there on the first five frames only, and cut by the edge."""
    labels = np.zeros((frames, HEIGHT, WIDTH), np.uint16)
    for t in range(frames):
        labels[t][ellipse(1 + 0.15 * np.cos(2 * np.pi * t / PERIOD))] = 1
    labels[:5, :6, :9] = 3
    return labels


class Window(SimpleNamespace):
    """A viewer with masks and the panel, and what the user is told."""

    viewer: Any
    panel: MeasurePanel
    layer: Any
    told: list[str]

    def until(self, condition: Callable[[], bool]) -> None:
        self.qtbot.waitUntil(condition, timeout=30_000)

    def cell(self, frame: int, word: str) -> str:
        model = self.panel.model
        words = [model.headerData(i, Qt.Orientation.Horizontal).partition("\n")[0] for i in range(model.columnCount())]
        return model.data(model.index(model.frames.index(frame), words.index(word)))


@pytest.fixture
def window(make_napari_viewer: Callable[..., Any], qtbot: Any) -> Any:
    viewer = make_napari_viewer()
    cine = Cine(np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8), SPACING, np.arange(FRAMES) * 0.05)
    scale = {"scale": (1, *SPACING), "translate": (0, 7, -3)}
    viewer.add_image(np.asarray(cine.frames), name="loop", metadata=metadata_of(cine), **scale)
    names = features_of_names({1: "Left ventricle", 3: "Left ventricle"})
    layer = viewer.add_labels(beating(), name="masks", metadata=metadata_of(cine), features=names, **scale)
    _, panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Measure")
    told: list[str] = []

    def listen(notification: Any) -> None:
        told.append(notification.message)

    notification_manager.notification_ready.connect(listen)
    made = Window(viewer=viewer, panel=panel, layer=layer, told=told, qtbot=qtbot)
    made.until(lambda: len(panel.controller.rows) == FRAMES + 5)
    yield made
    notification_manager.notification_ready.disconnect(listen)
    panel.controller.pause()
    panel.thread_.stop()


def test_table_plot_and_beats_show_what_is_measured(window: Window) -> None:
    panel = window.panel
    assert [panel.object_box.itemText(i) for i in range(panel.object_box.count())] == ["Left ventricle"] * 2
    cine = Cine(np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8), SPACING, np.arange(FRAMES) * 0.05)
    expected = {(row.frame, row.object_id): row for row in measurement_rows(cine, beating())}
    assert window.cell(4, "Area") == f"{expected[4, 1].area:.1f}"
    assert window.cell(4, "Ellipse") == f"{expected[4, 1].shape.ellipse_circumference:.1f}"
    assert window.cell(4, "Time") == "200"
    assert window.cell(8, "Change") == f"{100 * expected[8, 1].area_change:.1f}"
    assert window.cell(4, "Cut") == ""
    assert len(panel.plot._curves) == 2
    x, y = panel.plot._curves[0].getData()
    np.testing.assert_allclose(x, np.arange(FRAMES) * 50)
    np.testing.assert_allclose(y, [expected[t, 1].area for t in range(FRAMES)])
    assert panel.controller.cycles == [Cycle(ED, ES), Cycle(NEXT_ED, 24)]  # the third is cut off by the loop's end
    assert "End-diastole frame 0 (0 ms)" in panel.beat_words.text()
    assert "End-systole frame 8 (400 ms)" in panel.beat_words.text()
    assert panel.status.text() == ""
    panel.object_box.setCurrentIndex(1)
    assert panel.model.frames == [0, 1, 2, 3, 4]
    assert window.cell(4, "Cut") == "yes"
    assert "does not change" in panel.beat_words.text()
    assert window.told == []


def test_frame_slider_table_and_plot_follow_each_other(window: Window) -> None:
    panel, dims = window.panel, window.viewer.dims
    dims.set_point(0, 11)
    assert panel.plot.shown.value() == 550
    assert panel.table.currentIndex().row() == 11
    panel.table.selectRow(20)
    assert dims.current_step[0] == 20
    assert panel.plot.shown.value() == 1000
    panel.plot.shown.setValue(730)  # as when it is dragged
    panel.plot.shown.sigDragged.emit(panel.plot.shown)
    assert dims.current_step[0] == 15
    assert panel.table.currentIndex().row() == 15


def test_markers_of_a_beat_can_be_dragged(window: Window) -> None:
    panel = window.panel
    before = panel.controller.measured_cycle()
    panel.plot.es.setValue(290)
    panel.plot.es.sigPositionChangeFinished.emit(panel.plot.es)
    assert panel.controller.cycle == Cycle(ED, 6)
    after = panel.controller.measured_cycle()
    assert after.es_area > before.es_area
    assert f"{100 * after.fractional_area_change:.1f} %" in panel.beat_words.text()
    panel.plot.ed.setValue(60)
    panel.plot.ed.sigPositionChangeFinished.emit(panel.plot.ed)
    assert panel.controller.cycle == Cycle(1, 6)
    panel.beat_box.setValue(2)
    assert panel.controller.cycle.ed == NEXT_ED
    assert panel.plot.ed.value() == 50 * NEXT_ED
    panel.again_button.click()
    panel.beat_box.setValue(1)
    assert panel.controller.cycle == Cycle(ED, ES)


def axis_layer(window: Window) -> Any:
    return window.viewer.layers["UniUltra long axis"]


def test_the_long_axis_is_a_line_that_can_be_moved(window: Window) -> None:
    panel = window.panel
    panel.axis_button.click()
    layer = axis_layer(window)
    assert isinstance(layer, Shapes)
    assert list(layer.features["phase"]) == ["ED", "ES"]
    assert [round(line[0, 0]) for line in layer.data] == [ED, ES]
    masks = [beating()[frame] == 1 for frame in (ED, ES)]
    axes = [long_axis(mask, SPACING) for mask in masks]
    # napari counts pixel centres as whole numbers: half a pixel from the edge.
    np.testing.assert_allclose(layer.data[0][:, :0:-1] + 0.5, axes[0], atol=1e-6)
    expected = [disc_volume(mask, axis, SPACING) / 1000 for mask, axis in zip(masks, axes, strict=True)]
    found = panel.controller.measured_cycle()
    assert (found.ed_volume, found.es_volume) == pytest.approx(expected)
    moved = np.array(layer.data[0])
    moved[1, 1] -= 12  # the lower end goes up
    layer.data = [moved, layer.data[1]]
    layer.events.data(value=layer.data, action="changed", data_indices=(0,), vertex_indices=((),))
    found = panel.controller.measured_cycle()
    assert found.ed_volume == pytest.approx(
        disc_volume(masks[0], (axes[0][0], (axes[0][1][0], axes[0][1][1] - 12)), SPACING) / 1000
    )
    assert found.es_volume == pytest.approx(expected[1])
    assert f"{100 * found.ejection_fraction:.1f} %" in panel.beat_words.text()
    panel.again_button.click()
    assert panel.controller.measured_cycle().ed_volume == pytest.approx(expected[0])
    np.testing.assert_allclose(axis_layer(window).data[0][:, :0:-1] + 0.5, axes[0], atol=1e-6)
    panel.axis_button.click()
    assert "UniUltra long axis" not in window.viewer.layers


def test_the_first_drag_moves_an_end_of_the_long_axis(window: Window) -> None:
    window.viewer.dims.set_current_step(0, ED)
    window.panel.axis_button.click()
    layer = axis_layer(window)
    before = np.array(layer.data[0])
    end = np.asarray(layer.data_to_world(before[1]))
    drag(layer, tuple(end), tuple(end - (0, 5 * SPACING[0], 0)))
    np.testing.assert_allclose(layer.data[0], before - [[0, 0, 0], [0, 5, 0]], atol=0.1)


def test_the_long_axis_keeps_step_with_masks_and_beats(window: Window) -> None:
    panel, viewer = window.panel, window.viewer
    panel.axis_button.click()
    layer = axis_layer(window)

    def is_drawn() -> bool:
        return bool(viewer.window._qt_viewer.canvas.layer_to_visual[layer].node.visible)

    viewer.dims.set_current_step(0, ED)
    assert is_drawn()
    viewer.dims.set_current_step(0, ED + 1)
    assert not is_drawn()
    rescale(viewer, viewer.layers["loop"], Scale.in_mm((0.25, 0.2)))
    assert tuple(layer.scale) == tuple(window.layer.scale) == (1, 0.25, 0.2)
    # Without a beat what is on can still be turned off.
    panel.object_box.setCurrentIndex(1)
    assert "does not change" in panel.beat_words.text()
    assert panel.axis_button.isEnabled()
    panel.axis_button.click()
    assert "UniUltra long axis" not in viewer.layers
    assert not panel.axis_button.isEnabled()


def test_the_number_of_the_beat_is_written_out(window: Window) -> None:
    box = window.panel.beat_box
    window.panel.resize(320, 800)
    window.panel.show()
    window.qtbot.wait(20)
    line = box.lineEdit()
    assert box.text() == "Beat 1 of 2"
    assert line.fontMetrics().horizontalAdvance(box.text()) < line.width()


def test_the_user_may_delete_the_axis_layer(window: Window) -> None:
    window.panel.axis_button.click()
    window.viewer.layers.remove("UniUltra long axis")
    assert not window.panel.axis_button.isChecked()
    window.panel.beat_box.setValue(2)
    window.panel.axis_button.click()
    assert round(axis_layer(window).data[0][0, 0]) == NEXT_ED


def test_masks_that_change_are_measured_again(window: Window) -> None:
    panel = window.panel
    window.layer.data[3] = 0  # in place, as tracking writes: napari tells nobody
    window.layer.data[30, 40:50, 70:80] = 7
    window.until(lambda: 7 in panel.controller.objects)
    assert 3 not in panel.model.frames
    window.layer.selected_label = 9
    window.layer.data_setitem((np.array([2]), np.array([50]), np.array([2])), 9)
    window.until(lambda: 9 in panel.controller.objects)
    window.layer.features = features_of_names({1: "Ventrikel", 3: "Vorhof"})
    window.until(lambda: "Ventrikel" in panel.controller.objects.values())
    assert panel.object_box.itemText(1) == "Vorhof"


def test_masks_that_become_shorter_are_measured_as_such(window: Window) -> None:
    control = window.panel.controller
    set_markers(window.layer, Markers({1: (Cycle(16, 24),)}, {}))
    window.until(lambda: control.cycles == [Cycle(16, 24)])
    window.layer.data = beating()[:20]
    window.until(lambda: len(control.rows) == 20 + 5)
    assert len(control.cine) == len(control.positions()) == 20
    assert control.cycles == [Cycle(0, 8)], "the one set by hand ends after the loop"
    window.layer.data = beating()
    window.until(lambda: len(control.rows) == FRAMES + 5)
    assert control.cycles == [Cycle(16, 24)]
    window.layer.data = beating()[:, : HEIGHT // 2]
    window.until(lambda: control.rows[0].area == (beating()[0, : HEIGHT // 2] == 1).sum() * 0.2)
    assert window.told == []


def test_copy_and_csv(window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = window.panel
    window.layer.features = features_of_names({1: "=1+2"})
    window.until(lambda: "=1+2" in panel.controller.objects.values())
    panel.copy_button.click()
    lines = QGuiApplication.clipboard().text().splitlines()
    assert {line.split("\t")[3] for line in lines if line.split("\t")[2] == "1"} == {"'=1+2"}
    assert len(lines) == 1 + FRAMES + 5
    assert lines[0].split("\t")[:5] == ["frame", "time_s", "object_id", "object", "area_mm2"]
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(tmp_path / "m.csv"), ""))
    panel.save_button.click()
    with (tmp_path / "m.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == FRAMES + 5
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(tmp_path / "b.csv"), ""))
    panel.save_beats_button.click()
    with (tmp_path / "b.csv").open(newline="", encoding="utf-8") as file:
        assert [row["ed_frame"] for row in csv.DictReader(file)][:2] == ["0", "16"]
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(tmp_path / "folder.csv"), ""))
    panel.save_button.click()
    assert "folder.csv cannot be written" in window.told[-1]


def test_without_spacing_and_times_it_says_so(window: Window) -> None:
    panel = window.panel
    window.viewer.layers.clear()
    window.until(lambda: panel.controller.layer is None)
    assert panel.controller.rows == []
    window.viewer.add_labels(beating(6), name="bare")
    window.until(lambda: len(panel.controller.rows) == 6 + 5)
    assert panel.status.text() == "Not known: the size of a pixel and the frame times"
    assert window.cell(0, "Area") == f"{(beating(1) == 1).sum():.1f}"
    window.viewer.add_labels(beating(1)[0], name="still")
    panel.layer_box.setCurrentIndex(1)
    window.until(lambda: len(panel.controller.rows) == 2)
    panel.plot.frame_chosen.emit(0)
    window.viewer.layers.clear()
    assert window.told == []


def test_spacing_may_come_from_the_image_below(window: Window) -> None:
    window.viewer.add_labels(beating(), name="painted")
    window.panel.layer_box.setCurrentIndex(1)
    window.until(lambda: len(window.panel.controller.rows) == FRAMES + 5)
    assert window.panel.controller.cine.spacing_mm == window.viewer.layers["loop"].metadata[METADATA_KEY]["spacing_mm"]


def test_a_loop_that_is_opened_after_its_masks_gives_times_and_scan_area(window: Window) -> None:
    control = window.panel.controller
    window.viewer.add_labels(beating()[:24], name="alone")
    window.panel.layer_box.setCurrentIndex(1)
    window.until(lambda: len(control.rows) == 24 + 5)
    assert not control.rows[0].shape.cut_by_border
    sector = np.ones((HEIGHT, WIDTH), bool)
    sector[:, : WIDTH // 2] = False
    cine = Cine(np.zeros((24, HEIGHT, WIDTH), np.uint8), None, np.arange(24) * 0.04)
    image = window.viewer.add_image(np.asarray(cine.frames), metadata=metadata_of(cine))
    window.until(lambda: control.cine.frame_times_s is not None)
    image.metadata = metadata_of(cine.with_(sector=sector))
    window.until(lambda: control.rows[0].shape.cut_by_border)


@pytest.mark.parametrize("what", ["beat", "axis"])
def test_masks_stay_in_mm_when_something_is_moved_on_them(window: Window, what: str) -> None:
    panel = window.panel
    window.viewer.add_labels(beating(), name="painted")
    panel.layer_box.setCurrentIndex(1)
    window.until(lambda: len(panel.controller.rows) == FRAMES + 5)
    area = window.cell(4, "Area")
    if what == "beat":
        panel.plot.es.setValue(290)
        panel.plot.es.sigPositionChangeFinished.emit(panel.plot.es)
    else:
        panel.axis_button.click()
        lines = axis_layer(window)
        moved = np.array(lines.data[0])
        moved[1, 1] -= 12
        lines.data = [moved, lines.data[1]]
        lines.events.data(value=lines.data, action="changed", data_indices=(0,), vertex_indices=((),))
    layer = window.viewer.layers["painted"]
    assert markers_of(layer)
    layer.data_setitem((np.array([30]), np.array([50]), np.array([2])), 9)  # has it measured again
    window.until(lambda: 9 in panel.controller.objects)
    cine = panel.controller.cine
    assert cine.spacing_mm == SPACING
    np.testing.assert_allclose(cine.frame_times_s, np.arange(FRAMES) * 0.05)
    assert window.cell(4, "Area") == area
    assert panel.status.text() == ""


def test_masks_of_a_loop_of_unknown_scale_do_not_take_that_of_another(window: Window) -> None:
    image = window.viewer.add_image(np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8), name="other")
    window.viewer.add_labels(beating(), name="of the other", metadata=metadata_for_masks(image))
    window.panel.layer_box.setCurrentIndex(1)
    window.until(lambda: len(window.panel.controller.rows) == FRAMES + 5)
    assert window.panel.controller.cine.spacing_mm is None


def test_masks_that_know_of_no_loop_have_the_scale_of_the_one_in_use(window: Window) -> None:
    viewer, panel = window.viewer, window.panel
    other = Cine(np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8), (0.2, 0.1), np.arange(FRAMES) * 0.02)
    viewer.add_image(np.asarray(other.frames), name="other", metadata=metadata_of(other))
    viewer.layers.remove("masks")
    viewer.add_labels(beating(), name="painted")
    window.until(lambda: len(panel.controller.rows) == FRAMES + 5)
    assert panel.controller.cine.spacing_mm is None
    assert "Several loops of this size" in panel.status.text()
    # The one in use is the one that is meant.
    _, segment = viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
    for name, spacing, last_s in (("other", (0.2, 0.1), 0.78), ("loop", SPACING, 1.95)):
        segment.choose_image(viewer.layers[name])
        area = (beating(1) == 1).sum() * spacing[0] * spacing[1]
        window.until(lambda area=area: window.cell(0, "Area") == f"{area:.1f}")
        assert panel.controller.cine.spacing_mm == spacing
        assert panel.controller.cine.frame_times_s[-1] == pytest.approx(last_s)
        assert panel.status.text() == ""
    assert window.told == []
    segment.thread_.stop()


@pytest.mark.parametrize("own", [True, False])
def test_a_scale_set_by_hand_shows_at_once(window: Window, own: bool) -> None:
    panel, image = window.panel, window.viewer.layers["loop"]
    if not own:  # masks that know of no loop: their spacing is that of the image below
        window.viewer.add_labels(beating(), name="painted", scale=image.scale, translate=image.translate)
        panel.layer_box.setCurrentIndex(1)
        window.until(lambda: len(panel.controller.rows) == FRAMES + 5)
    panel.controller.set_frames_of_cycle(ed=2)
    control = SpacingControl(window.viewer, lambda: image)
    window.qtbot.addWidget(control)
    control.draw()
    window.viewer.layers[LINE_NAME].add([[10, 20], [50, 20]], shape_type="line")  # 40 rows
    control.length_box.setValue(10.0)
    control.apply()
    row, column = 0.25, 0.25 * SPACING[1] / SPACING[0]  # the aspect of a pixel was known
    area = (beating(1) == 1).sum() * row * column
    window.qtbot.waitUntil(lambda: window.cell(0, "Area") == f"{area:.1f}", timeout=5_000)
    assert panel.controller.cine.spacing_mm == pytest.approx((row, column))
    assert panel.controller.cycle.ed == 2, "what the user said of beats stays"
    assert window.told == []


def test_a_closed_dock_lets_go(window: Window) -> None:
    window.panel.axis_button.click()
    gone: list[Any] = []
    window.panel.destroyed.connect(gone.append)
    close_dock(window.panel)
    assert "UniUltra long axis" not in window.viewer.layers
    window.until(lambda: bool(gone))
    window.viewer.dims.set_point(0, 9)
    window.layer.data_setitem((np.array([2]), np.array([50]), np.array([2])), 9)
    window.viewer.layers.clear()
    assert window.told == []


def test_masks_that_change_while_they_are_measured_are_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = beating(1)
    measured, measure = LoopMeasurements(Cine(np.zeros(labels.shape, np.uint8))), loop_measurements.measure_labels

    def painted_meanwhile(*args: Any) -> Any:
        labels[0, :30, :30] = 1
        try:
            return measure(*args)
        finally:
            labels[0] = beating(1)[0]  # taken back before the next look

    with monkeypatch.context() as patch:
        patch.setattr(loop_measurements, "measure_labels", painted_meanwhile)
        measured.update(labels)
    measured.update(labels)
    assert measured.rows()[0].area == (labels == 1).sum()


def test_only_changed_frames_are_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = LoopMeasurements(Cine(np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)))
    labels = beating()
    assert measured.update(labels)
    assert not measured.update(labels)
    before = measured.rows({1: "lv"})
    labels[7, 0, 0] = 2
    assert measured.update(labels)
    after = measured.rows({1: "lv"})
    assert [row for row in after if row.frame != 7] == [row for row in before if row.frame != 7]
    assert {row.object_name for row in after if row.object_id == 1} == {"lv"}
    assert len(after) == len(before) + 1
    measured.close()
    assert not measured.update(beating() * 2)
