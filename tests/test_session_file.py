"""Session files: what they hold, what they never hold, versions, other loops, damage."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_uniultra.core.measure import Cycle, Markers
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import PromptError, ReadError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import architecture
from napari_uniultra.model.loaded import Model
from napari_uniultra.segment.session import CineSession
from napari_uniultra.segment.session_file import read_about

FRAMES, HEIGHT, WIDTH = 5, 48, 64
BOX = (10, 8, 50, 40)
MARKERS = Markers({1: (Cycle(0, 3),)}, {(1, 3): ((10.5, 8.0), (40.0, 30.25))})


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(1)
    config = architecture("uniultra-mini", image_size=64)
    network = build_network(config).eval()
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)  # it finds something, however odd
    return Model(network, config, torch.device("cpu"), "tiny", "ab" * 32, {})


@pytest.fixture
def cine() -> Cine:
    frames = np.random.default_rng(4).integers(0, 255, (FRAMES, HEIGHT, WIDTH), dtype=np.uint8)
    return Cine(frames, source="/data/DOE^JANE.dcm", details={"patient": "DOE^JANE"})


@pytest.fixture
def saved(cine: Cine, model: Model, tmp_path: Path) -> Path:
    session = CineSession(cine, model)
    session.add_box(1, 0, BOX)
    session.name_object(1, "lumen")
    list(session.propagate())
    session.lock([2])
    session.set_markers(MARKERS)
    session.set_spacing((0.5, 0.25))
    session.save(tmp_path / "kept.uniultra", {"measurements.csv": "frame,area\n0,3\n"})
    return tmp_path / "kept.uniultra"


def test_a_file_says_what_it_is_of_without_the_loop(saved: Path, cine: Cine) -> None:
    about = read_about(saved)
    assert (about.loop.key, about.loop.shape) == (cine.key, (FRAMES, HEIGHT, WIDTH))
    assert about.loop.words == f"5 frames of 64 x 48 pixels, content {cine.key[:8]}"
    assert (about.model.name, about.model.sha256, about.model.image_size) == ("tiny", "ab" * 32, 64)
    assert list(csv.reader(io.StringIO(about.tables["measurements.csv"]))) == [["frame", "area"], ["0", "3"]]


def test_measurements_can_be_read_with_any_unzip(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert archive.read("measurements.csv") == b"frame,area\n0,3\n"


def test_nothing_in_a_file_names_the_loop_or_the_patient(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        content = b"".join(name.encode() + archive.read(name) for name in archive.namelist())
    assert b"DOE" not in content
    assert b"DOE" not in saved.read_bytes()


def test_markers_come_back_and_can_be_undone(saved: Path, cine: Cine, model: Model) -> None:
    session = CineSession.restore(saved, cine, model)
    assert session.markers == MARKERS
    session.set_markers(Markers())
    assert not session.markers
    session.undo()
    assert session.markers == MARKERS
    session.remove_object(1)
    assert not session.markers


def test_a_scale_set_by_hand_comes_back_and_can_be_undone(saved: Path, cine: Cine, model: Model) -> None:
    session = CineSession.restore(saved, cine, model)
    assert session.spacing_mm == (0.5, 0.25)
    session.set_spacing((0.1, 0.1))
    session.undo()
    assert session.spacing_mm == (0.5, 0.25)
    with pytest.raises(ReadError, match="not a size"):
        session.set_spacing((0.0, 0.1))
    assert session.spacing_mm == (0.5, 0.25)


def test_what_is_hidden_or_locked_comes_back(cine: Cine, model: Model, tmp_path: Path) -> None:
    session = CineSession(cine, model)
    for object_id in (1, 2, 3):
        session.name_object(object_id, f"Structure {object_id}")
    session.edit_object(2, hidden=True)
    session.edit_object(3, locked=True)
    session.save(tmp_path / "looks.uniultra")
    other = CineSession(cine, model)
    other.open(tmp_path / "looks.uniultra")
    assert (other.hidden_objects, other.locked_objects) == ({2}, {3})
    other.edit_object(2, hidden=False)
    assert other.hidden_objects == frozenset()
    other.undo()
    assert other.hidden_objects == {2}
    other.remove_object(2)
    assert other.hidden_objects == frozenset()


def test_opening_is_one_undo_away_from_what_was_there(saved: Path, cine: Cine, model: Model) -> None:
    session = CineSession(cine, model)
    mine = np.zeros((HEIGHT, WIDTH), bool)
    mine[5:9, 5:9] = True
    session.add_mask(2, 4, mine)
    assert session.open(saved) == set(range(FRAMES))
    assert (session.names, session.locked) == ({1: "lumen"}, {(1, 2)})
    session.undo()
    assert (session.names, np.array_equal(session.masks[4] == 2, mine)) == ({2: "Object 2"}, True)
    session.redo()
    assert session.names == {1: "lumen"}


def test_a_scale_set_by_hand_is_one_undo_away_too(saved: Path, cine: Cine, model: Model) -> None:
    session = CineSession(cine, model)
    session.set_spacing((0.1, 0.1))
    session.open(saved)
    session.undo()
    assert (session.spacing_mm, session.names) == ((0.1, 0.1), {})


def test_what_was_undone_before_opening_cannot_be_made_again_after_it(saved: Path, cine: Cine, model: Model) -> None:
    session = CineSession(cine, model)
    session.add_box(2, 0, BOX)
    session.undo()
    session.open(saved)
    assert not session.can_redo


def test_undoing_an_opening_names_the_model_of_what_is_back(saved: Path, cine: Cine, model: Model) -> None:
    session = CineSession(cine, replace(model, name="other", sha256="cd" * 32))
    session.add_box(1, 0, BOX)
    session.open(saved)
    assert session.made_with.name == "tiny"
    session.undo()
    assert session.made_with.name == "other"


def test_opening_needs_no_model(saved: Path, cine: Cine, model: Model) -> None:
    session = CineSession(cine, None)
    session.open(saved)
    with pytest.raises(PromptError, match="no model to segment with"):
        session.mark_absent(1, 1)
    expected = CineSession.restore(saved, cine, model)
    assert np.array_equal(session.masks, expected.masks)
    session.save(saved)
    assert read_about(saved).model.name == "tiny"  # still the one that the masks came from
    session.model = model
    assert session.add_box(1, 1, BOX).frame == 1


def test_the_same_session_gives_the_same_file(saved: Path, cine: Cine, model: Model, tmp_path: Path) -> None:
    session = CineSession.restore(saved, cine, model)
    session.save(tmp_path / "a.uniultra", {"t.csv": "1"})
    session.save(tmp_path / "b.uniultra", {"t.csv": "1"})
    assert (tmp_path / "a.uniultra").read_bytes() == (tmp_path / "b.uniultra").read_bytes()


def test_another_loop_is_told_by_size_and_content(saved: Path, cine: Cine, model: Model) -> None:
    other = Cine(np.zeros((1, 20, 30), np.uint8), source="/data/ROE^JOHN.dcm")
    session = CineSession(other, model)
    with pytest.raises(ReadError) as caught:
        session.open(saved)
    words = str(caught.value)
    assert f"5 frames of 64 x 48 pixels, content {cine.key[:8]}" in words
    assert f"1 frame of 30 x 20 pixels, content {other.key[:8]}" in words
    assert "ROE" not in words
    assert "DOE" not in words
    assert not session.can_undo


def rewritten(path: Path, change: dict[str, Any], drop: tuple[str, ...] = ()) -> None:
    """The same file with another description."""
    with np.load(path) as file:
        meta, bits, pointers = json.loads(file["meta"].tobytes()), file["bits"], file["pointers"]
    meta = {key: value for key, value in {**meta, **change}.items() if key not in drop}
    with path.open("wb") as file:
        np.savez_compressed(file, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), bits=bits, pointers=pointers)


def test_files_of_the_first_version_open(saved: Path, cine: Cine, model: Model) -> None:
    before = CineSession.restore(saved, cine, model)
    rewritten(saved, {"format": "napari-uniultra-session/1"}, drop=("shape", "model", "markers"))
    again = CineSession.restore(saved, cine, model)
    assert np.array_equal(again.masks, before.masks)
    assert (again.prompts, again.locked, again.names) == (before.prompts, before.locked, before.names)
    assert (again.made_with, bool(again.markers)) == (None, False)
    assert read_about(saved).loop.words == f"content {cine.key[:8]}"


def test_files_of_a_later_version_are_refused(saved: Path) -> None:
    rewritten(saved, {"format": "napari-uniultra-session/9"})
    with pytest.raises(ReadError, match=r"session/9.*update"):
        read_about(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"markers": 3},
        {"markers": {"cycles": [[1, [[0]]]], "axes": []}},
        {"markers": {"cycles": [], "axes": [[1, 0, [[1, 2]]]]}},
        {"shape": [1, 2]},
        {"model": {"name": "x"}},
        {"prompts": [[1, 0, {}]]},
        {"names": []},
        {"colours": {"1": "#ff0000"}},
    ],
)
def test_a_file_that_makes_no_sense_is_damaged(saved: Path, cine: Cine, model: Model, change: dict[str, Any]) -> None:
    rewritten(saved, change)
    with pytest.raises(ReadError, match="damaged"):
        CineSession.restore(saved, cine, model)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + bytes(40)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.uniultra").write_bytes(content)
    with pytest.raises(ReadError, match="no session file"):
        read_about(tmp_path / "a.uniultra")
    with pytest.raises(ReadError, match="cannot be read"):
        read_about(tmp_path / "missing.uniultra")


def test_a_zip_without_a_session_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.uniultra", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ReadError, match="damaged"):
        read_about(tmp_path / "a.uniultra")
