"""An object that is not in a frame, and objects that are locked, named and coloured: undone, saved, tracked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import PromptError, ReadError
from napari_uniultra.io.writers.prompts import ObjectPrompts, read_prompts, write_prompts
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import architecture
from napari_uniultra.model.loaded import Model
from napari_uniultra.segment.session import CineSession

FRAMES, HEIGHT, WIDTH = 8, 60, 80
BOX = (20, 15, 60, 45)
SMALL_BOX = (5, 5, 20, 20)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(1)
    config = architecture("uniultra-mini", image_size=64)
    network = build_network(config)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    return Model(network, config, torch.device("cpu"), "random", "0" * 64, {})


@pytest.fixture
def session(model: Model) -> CineSession:
    frames = np.random.default_rng(5).integers(0, 255, (FRAMES, HEIGHT, WIDTH), np.uint8)
    return CineSession(Cine(frames), model)


def tracked(session: CineSession) -> np.ndarray:
    session.add_box(1, 0, BOX)
    list(session.propagate())
    return session.masks


# Absent ---------------------------------------------------------------------------------------------------------------


def test_an_absent_object_has_no_mask_and_a_negative_score(session: CineSession) -> None:
    before = tracked(session)
    assert before[4].any()
    step = session.mark_absent(1, 4)
    assert not step.masks[1].any()
    assert step.object_score[1] == -10  # SAM2's logit of an object that a mask says is not there
    assert session.prompts[1, 4].absent
    assert np.array_equal(np.delete(session.masks, 4, axis=0), np.delete(before, 4, axis=0))


def test_its_pointer_and_memory_are_those_of_an_occluded_object(session: CineSession, model: Model) -> None:
    session.add_box(1, 0, BOX)
    session.mark_absent(1, 4)
    engine, state = session._engine, session._state
    network = model.network
    pointer = torch.from_numpy(state.result((1, 4)).pointer)
    embedding = engine.embed(4)
    nothing, seen = torch.full((1, 1, 16, 16), -10.0), torch.tensor([[10.0]])
    without = engine.predictor.remember(embedding, nothing, seen, prompted=True)
    difference = engine.memories.features(state, (1, 4), engine.memories.whole).float() - without.float()
    assert torch.allclose(difference, network.no_obj_embed_spatial[:, :, None, None].expand_as(difference), atol=0.02)
    expected = network._use_mask_as_output(embedding.image, list(embedding.high_res), torch.zeros(1, 1, 64, 64))[5][0]
    assert torch.allclose(pointer, expected, atol=1e-5)


def test_tracking_keeps_it_absent_there_and_is_told_so(session: CineSession) -> None:
    before = tracked(session)
    session.mark_absent(1, 4)
    list(session.propagate(start=4))
    assert not session.masks[4].any()
    assert not np.array_equal(session.masks[5:], before[5:])
    assert np.array_equal(session.masks[:4], before[:4])


def test_taking_it_back_brings_back_what_was_tracked(session: CineSession) -> None:
    before = tracked(session)
    session.mark_absent(1, 4)
    session.set_prompt(1, 4, None)
    assert np.array_equal(session.masks, before)
    session.mark_absent(1, 4)
    assert session.undo() == {4}
    assert np.array_equal(session.masks, before)
    session.redo()
    assert not session.masks[4].any()


def test_a_box_on_a_frame_where_it_was_absent_starts_anew(session: CineSession) -> None:
    expected = session.add_box(1, 2, BOX).masks[1]
    session.undo()
    session.mark_absent(1, 2)
    assert np.array_equal(session.add_box(1, 2, BOX).masks[1], expected)
    assert session.prompts[1, 2] == Prompt(box=tuple(map(float, BOX)))


def test_an_object_that_was_never_seen_is_not_tracked(session: CineSession) -> None:
    session.mark_absent(1, 2)
    with pytest.raises(PromptError, match="nothing to track"):
        session.propagate()
    session.add_box(2, 0, BOX)
    steps = list(session.propagate())
    assert all(set(step.masks) <= {2} or step.frame == 2 for step in steps)


def test_it_is_saved(session: CineSession, model: Model, tmp_path: Path) -> None:
    tracked(session)
    session.mark_absent(1, 4)
    session.save(tmp_path / "session.npz")
    again = CineSession.restore(tmp_path / "session.npz", session.cine, model)
    assert again.prompts == session.prompts
    assert np.array_equal(again.masks, session.masks)


def test_a_box_and_no_mask_at_once_are_refused(session: CineSession) -> None:
    with pytest.raises(PromptError, match="empty"):
        session.set_prompt(1, 0, Prompt(box=BOX, mask=np.zeros((HEIGHT, WIDTH), bool)))


def test_prompts_on_file(session: CineSession, tmp_path: Path) -> None:
    session.add_box(1, 0, BOX)
    session.mark_absent(1, 4)
    frames = {frame: prompt for (_, frame), prompt in session.prompts.items()}
    write_prompts(tmp_path / "prompts.json", [ObjectPrompts(1, "lumen", frames)])
    assert json.loads((tmp_path / "prompts.json").read_text())["objects"][0]["frames"]["4"] == {"absent": True}
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.json"]
    (again,) = read_prompts(tmp_path / "prompts.json", (HEIGHT, WIDTH))
    assert again.frames == frames


@pytest.mark.parametrize("drawn", [{"absent": False}, {"absent": True, "box": [1, 2, 3, 4]}, {"absent": "yes"}])
def test_other_words_for_absent_are_refused(tmp_path: Path, drawn: dict) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"objects": [{"id": 1, "frames": {"4": drawn}}]}))
    with pytest.raises(PromptError, match="absent"):
        read_prompts(path, (HEIGHT, WIDTH))


# Objects --------------------------------------------------------------------------------------------------------------


def test_an_object_is_known_before_it_is_drawn(session: CineSession) -> None:
    session.edit_object(3, name="lumen", colour=(1, 2, 3))
    assert (session.names, session.colours) == ({3: "lumen"}, {3: (1, 2, 3)})
    session.add_box(3, 0, BOX)
    session.remove_object(3)
    assert (session.names, session.colours) == ({}, {})
    session.undo()
    assert (session.names, session.colours) == ({3: "lumen"}, {3: (1, 2, 3)})
    assert session.step(0).masks[3].any()
    session.undo()
    session.undo()
    assert (session.names, session.colours) == ({}, {})
    assert not session.can_undo


def test_saying_what_is_so_already_is_no_change(session: CineSession) -> None:
    session.edit_object(1, name="lumen", locked=False)
    session.edit_object(1, name="lumen", colour=None, locked=False)
    session.undo()
    assert not session.can_undo


def test_a_locked_object_is_neither_drawn_nor_tracked_nor_deleted(session: CineSession) -> None:
    before = tracked(session)
    session.edit_object(1, name="lumen", locked=True)
    for change in (
        lambda: session.add_box(1, 3, SMALL_BOX),
        lambda: session.add_points(1, 0, [(5, 5)], [1]),
        lambda: session.set_prompt(1, 0, None),
        lambda: session.mark_absent(1, 3),
        lambda: session.remove_object(1),
        lambda: session.propagate(objects=[1]),
    ):
        with pytest.raises(PromptError, match="lumen is locked"):
            change()
    with pytest.raises(PromptError, match="every object is locked"):
        session.propagate()
    session.add_box(2, 0, SMALL_BOX)
    steps = list(session.propagate())
    assert all(np.array_equal(step.masks[1], before[step.frame] == 1) for step in steps)
    assert all(2 in step.masks for step in steps)
    session.edit_object(1, locked=False)
    session.remove_object(1)
    assert session.object_ids == (2,)


def test_an_object_locked_while_it_is_tracked_stays_as_it_is_from_there(session: CineSession) -> None:
    session.add_box(1, 0, BOX)
    tracking = session.propagate()
    for _ in range(3):
        next(tracking)
    session.edit_object(1, locked=True)
    list(tracking)
    assert session.frames_with_results == (0, 1, 2)


def test_several_changes_as_one(session: CineSession) -> None:
    with session.one_change():
        session.edit_object(1, name="lumen")
        session.add_box(2, 0, BOX)

    def with_a_fault() -> None:
        with session.one_change():
            session.edit_object(1, name="wall")
            session.add_box(0, 0, BOX)

    with pytest.raises(PromptError):
        with_a_fault()
    assert session.names == {1: "wall", 2: "Object 2"}  # what was done before the fault stays, and can be undone
    session.undo()
    assert session.names == {1: "lumen", 2: "Object 2"}
    session.undo()
    assert session.names == {}
    assert not session.can_undo
    session.redo()
    assert session.step(0).masks[2].any()


def test_colours_and_locks_are_saved_and_files_without_them_are_read(
    session: CineSession, model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "session.npz"
    session.edit_object(1, name="lumen", colour=(250, 0, 17), locked=True)
    session.edit_object(2, name="wall")
    session.save(path)
    again = CineSession.restore(path, session.cine, model)
    assert (again.names, again.colours) == (session.names, {1: (250, 0, 17)})
    assert again.locked_objects == {1}
    rewrite(path, lambda meta: [meta.pop("colours"), meta.pop("locked_objects"), meta.pop("markers")])
    rewrite(path, lambda meta: meta.update(format="napari-uniultra-session/1"))
    again = CineSession.restore(path, session.cine, model)
    assert (again.names, again.colours, again.locked_objects) == (session.names, {}, frozenset())


@pytest.mark.parametrize("colour", [[1, 2], [1, 2, 256], [-1, 0, 0], "red", 7])
def test_a_damaged_colour_is_told_as_a_damaged_file(session: CineSession, tmp_path: Path, colour: object) -> None:
    path = tmp_path / "session.npz"
    session.edit_object(1, colour=(1, 2, 3))
    session.save(path)
    rewrite(path, lambda meta: meta.update(colours={"1": colour}))
    with pytest.raises(ReadError, match="damaged"):
        CineSession.restore(path, session.cine, None)


def rewrite(path: Path, change: object) -> None:
    """Change the description in a session file."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(arrays["meta"].tobytes())
    change(meta)
    np.savez(path, **{**arrays, "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})
