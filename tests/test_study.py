"""Folders and discs: what is listed, what never is, thumbnails, and the list in a real window."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pydicom
import pytest
import zarr
from panel_window import close_dock, docks, open_from_menu
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from napari_uniultra.errors import ReadError
from napari_uniultra.io.study import find_loops, look_at, looks
from napari_uniultra.plugin import reader
from napari_uniultra.widgets import study_picker


@pytest.fixture
def study(tmp_path: Path, shared_data: Path) -> Path:
    """Two loops, one of them without a suffix in a subfolder, a sequence of images, a damaged file, and clutter."""
    folder = tmp_path / "study"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.dcm").write_bytes((shared_data / "dicom" / "OBXXXX1A_rle_2frame.dcm").read_bytes())
    (folder / "deep" / "er" / "IM_0001").write_bytes((shared_data / "dicom" / "US1_J2KI.dcm").read_bytes())
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "images").mkdir()
    for index in range(3):
        Image.fromarray(np.full((30, 40), 50 * index, np.uint8)).save(folder / "images" / f"{index}.png")
    (folder / "notes.txt").write_text("not a loop")
    (folder / ".hidden.dcm").write_bytes((folder / "a.dcm").read_bytes())
    return folder


def names(folder: Path, found: tuple[Path, ...]) -> list[str]:
    return [str(path.relative_to(folder)) for path in found]


def test_loops_of_a_folder(study: Path) -> None:
    assert names(study, find_loops(study)) == ["a.dcm", "broken.dcm", "deep/er/IM_0001", "images"]
    assert len(find_loops(study, limit=2)) == 2
    looked = dict(looks(find_loops(study)))
    assert looked[study / "a.dcm"].words == "2 frames, 800 x 600"
    assert looked[study / "images"].words == "3 frames, 40 x 30"
    assert replace(looked[study / "images"], frames=1200).words == "1,200 frames, 40 x 30"
    assert looked[study / "a.dcm"].thumbnail.shape == (96, 128, 3)
    assert looked[study / "a.dcm"].has_spacing
    assert isinstance(looked[study / "broken.dcm"], ReadError)


def test_a_zarr_folder_is_one_loop_whatever_it_is_called(study: Path) -> None:
    zarr.open_group(str(study / "deep" / "stored"), mode="w").create_array("0", shape=(2, 8, 9), dtype="uint8")
    found = ["a.dcm", "broken.dcm", "deep/er/IM_0001", "deep/stored", "images"]
    assert names(study, find_loops(study)) == found


def test_links_in_a_ring_and_to_elsewhere(study: Path, tmp_path: Path) -> None:
    (study / "ring").symlink_to(study, target_is_directory=True)
    (study / "deep" / "up").symlink_to("..", target_is_directory=True)
    (study / "self.dcm").symlink_to("self.dcm")
    assert names(study, find_loops(study)) == ["a.dcm", "broken.dcm", "deep/er/IM_0001", "images"]
    with pytest.raises(ReadError, match=r"self\.dcm"):
        look_at(study / "self.dcm")


def test_unicode_and_long_names(study: Path) -> None:
    content = (study / "a.dcm").read_bytes()
    odd = [
        "Zażółć gęślą jaźń.dcm",
        "心臓 エコー.dcm",
        "a" * 240 + ".dcm",
        "line\nbreak.dcm",
        "%s {0} $HOME.dcm",
        "e\u0301.dcm",
    ]
    for name in odd:
        (study / name).write_bytes(content)
    found = {path.name for path in find_loops(study)}
    assert set(odd) <= found
    for name in odd:
        assert look_at(study / name).frames == 2
    with pytest.raises(ReadError):
        look_at(study / ("x" * 5000 + ".dcm"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_subfolder_that_may_not_be_read(study: Path) -> None:
    (study / "deep").chmod(0)
    try:
        assert names(study, find_loops(study)) == ["a.dcm", "broken.dcm", "images"]
    finally:
        (study / "deep").chmod(0o755)


def make_disc(folder: Path, originals: list[Path]) -> Path:
    files = FileSet()
    for original in originals:
        dataset = pydicom.dcmread(original)
        dataset.PatientID, dataset.StudyID, dataset.StudyDate, dataset.StudyTime = "CANARY", "1", "20200101", "120000"
        dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
        files.add(dataset)
    files.write(folder)
    return folder / "DICOMDIR"


@pytest.fixture
def disc(tmp_path: Path, shared_data: Path) -> Path:
    originals = [shared_data / "dicom" / name for name in ("OBXXXX1A_rle_2frame.dcm", "US1_J2KI.dcm")]
    return make_disc(tmp_path / "disc", originals)


def test_dicomdir(disc: Path) -> None:
    found = find_loops(disc)
    assert sorted(look_at(path).frames for path in found) == [1, 2]
    assert find_loops(disc.parent) == tuple(sorted(found))  # the folder holds the same
    for path in found:  # a copy that lost its capitals
        lower = path.with_name(path.name.lower())
        path.rename(lower)
    assert len(find_loops(disc)) == len(found)


@pytest.mark.parametrize(
    "reference",
    [
        ["..", "secret.dcm"],
        ["/etc", "passwd"],
        ["C:", "x"],
        ["a\\..\\..", "b"],
        ["."],
        [""],
        ["link.dcm"],
        ["x" * 4000],
    ],
    ids=lambda reference: reference[0][:20],
)  # fmt: skip
def test_a_dicomdir_does_not_lead_out_of_its_folder(reference: list[str], disc: Path, shared_data: Path) -> None:
    secret = disc.parent.parent / "secret.dcm"
    secret.write_bytes((shared_data / "dicom" / "US1_J2KI.dcm").read_bytes())
    (disc.parent / "link.dcm").symlink_to(secret)
    record, dataset = Dataset(), pydicom.dcmread(disc)
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", reference
    dataset.DirectoryRecordSequence = [record]
    with pydicom.config.disable_value_validation():
        dataset.save_as(disc)
    assert find_loops(disc) == ()


def test_damaged_dicomdir(disc: Path) -> None:
    content = disc.read_bytes()
    disc.write_bytes(content[: len(content) // 2])
    with contextlib.suppress(ReadError):
        find_loops(disc)
    disc.write_bytes(bytes(2000))
    with pytest.raises(ReadError, match="DICOMDIR"):
        find_loops(disc)
    with pytest.raises(ReadError, match="nowhere"):
        find_loops(disc.parent / "nowhere")


def test_dropping_a_study_offers_a_choice(study: Path, make_napari_viewer: Callable[..., Any], qtbot: Any) -> None:
    viewer = make_napari_viewer()
    assert napari.current_viewer() is viewer
    assert viewer.open(str(study), plugin="napari-uniultra") == []
    (picker,) = (dock.inner_widget() for dock in viewer.window._wrapped_dock_widgets.values())
    assert picker.list.count() == 4
    qtbot.waitUntil(lambda: not picker.thread_.busy, timeout=20_000)
    texts = [picker.list.item(row).text() for row in range(4)]
    assert texts[0] == "a.dcm\n2 frames, 800 x 600"
    assert texts[1] == "broken.dcm\ncannot be read"
    assert not picker.list.item(0).icon().isNull()
    picker.list.item(0).setSelected(True)
    picker.open_selected()
    assert [layer.name for layer in viewer.layers] == ["a"]
    picker._open(picker.list.item(1))  # broken: told, and the window stays
    assert len(viewer.layers) == 1


def test_a_study_is_listed_in_the_panel_that_the_menu_opened(
    study: Path, make_napari_viewer: Callable[..., Any], qtbot: Any
) -> None:
    viewer = make_napari_viewer()
    picker = open_from_menu(viewer, "Open study")
    viewer.open(str(study), plugin="napari-uniultra")
    assert picker.list.count() == 4
    assert docks(viewer, "Open study") == ["Open study (UniUltra)"]
    thread = picker.thread_
    close_dock(picker)
    qtbot.waitUntil(lambda: not thread.running, timeout=20_000)


def test_a_folder_with_one_loop_opens_at_once(study: Path, make_napari_viewer: Callable[..., Any]) -> None:
    viewer = make_napari_viewer()
    (layer,) = viewer.open(str(study / "deep"), plugin="napari-uniultra")
    assert layer.name == "deep"
    (layer,) = viewer.open(str(study / "images"), plugin="napari-uniultra")
    assert layer.data.shape == (3, 30, 40)


def test_without_a_window_a_study_is_refused_in_words(study: Path) -> None:
    assert study_picker.get_reader(str(study)) is None
    with pytest.raises(ReadError, match="holds 4 loops"):
        reader.get_reader(str(study))(str(study))


def test_several_images_are_one_loop(study: Path) -> None:
    paths = [str(study / "images" / f"{index}.png") for index in (2, 0, 1)]
    ((data, _, _),) = reader.get_reader(paths)(paths)
    np.testing.assert_array_equal(data[:, 0, 0], [0, 50, 100])
