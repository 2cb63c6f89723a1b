"""What a user may rely on in a session: nothing lost, nothing rewritten, everything undone, saved and restored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_uniultra.core.postprocess import TidySettings
from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import PromptError, ReadError, ResourceError
from napari_uniultra.io.readers.lazy import LazyFrames
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import architecture
from napari_uniultra.model.load import load_model
from napari_uniultra.model.loaded import Model
from napari_uniultra.segment.fallback import run_with_fallback
from napari_uniultra.segment.memory import MemoryLimits, plan_memory
from napari_uniultra.segment.predictor import HalfPrecisionError
from napari_uniultra.segment.session import CineSession

HEIGHT, WIDTH, FRAMES = 72, 96, 12
BOX = (20, 18, 62, 60)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    config = architecture("uniultra-mini", image_size=64)
    network = build_network(config)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    return Model(network, config, torch.device("cpu"), "tiny", "ab" * 32, {})


# The session needs no more of a model than this; what load_model returns has these attributes too.
def discs(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    loop = rng.gamma(2.0, 25.0, (frames, height, width))
    for t, frame in enumerate(loop):
        frame[(y - height / 2 - t) ** 2 + (x - width / 2) ** 2 < height * 3] *= 0.2
    return loop.clip(0, 255).astype(np.uint8)


@pytest.fixture
def session(model) -> CineSession:
    return CineSession(Cine(discs()), model)


# Prompts --------------------------------------------------------------------------------------------------------------


def test_prompts_alone_fill_their_frame(session) -> None:
    step = session.add_box(1, 3, BOX)
    assert step.masks[1].any()
    assert np.array_equal(session.masks[3] == 1, step.masks[1])
    assert not session.masks[[t for t in range(FRAMES) if t != 3]].any()


def test_the_direction_of_dragging_does_not_matter(session) -> None:
    x0, y0, x1, y1 = BOX
    reference = session.add_box(1, 0, BOX).masks[1]
    for object_id, box in enumerate([(x1, y1, x0, y0), (x0, y1, x1, y0), (x1, y0, x0, y1)], start=2):
        assert np.array_equal(session.add_box(object_id, 0, box).masks[object_id], reference)


def test_a_mask_shows_exactly_as_painted(session) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:13, 50:90:3] = True
    assert np.array_equal(session.add_mask(4, 2, mask).masks[4], mask)


def test_prompts_do_not_depend_on_when_they_were_asked(session) -> None:
    session.add_box(1, 0, BOX)
    session.add_points(1, 0, [(50, 50)], [0])
    refined = session.step(0).masks[1]
    session.add_points(1, 0, [(30, 30)], [1])
    session.set_prompt(1, 0, Prompt(box=BOX, points=((50.0, 50.0),), labels=(0,), rounds=(0, 1)))
    assert np.array_equal(session.step(0).masks[1], refined)


def test_removing_a_prompt_brings_back_what_was_tracked(session) -> None:
    session.add_box(1, 0, BOX)
    list(session.propagate())
    before = session.step(5).masks[1]
    session.add_mask(1, 5, np.eye(HEIGHT, WIDTH, dtype=bool))
    session.set_prompt(1, 5, None)
    assert np.array_equal(session.step(5).masks[1], before)
    assert (1, 5) not in session.prompts


def test_removing_an_object_removes_all_of_it_and_nothing_else(session) -> None:
    session.add_box(1, 0, BOX)
    session.add_box(2, 0, (5, 5, 30, 30))
    list(session.propagate())
    kept = {t: session.step(t).masks[2] for t in range(FRAMES)}
    session.remove_object(1)
    assert session.object_ids == (2,)
    assert all(set(session.step(t).masks) == {2} and np.array_equal(session.step(t).masks[2], kept[t]) for t in kept)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda s: s.add_box(1, 0, (200, 200, 300, 300)), "covers no pixel"),
        (lambda s: s.add_box(1, 0, (10, 10, 10, 40)), "covers no pixel"),
        (lambda s: s.add_box(1, 0, (10, 10, float("nan"), 40)), "not a box"),
        (lambda s: s.add_points(1, 0, [(-3, 10)], [1]), "outside the frame"),
        (lambda s: s.add_points(1, 0, [(3, 10)], [2]), "0 or 1"),
        (lambda s: s.add_points(1, 0, [(3, 10)], []), "labels"),
        (lambda s: s.add_mask(1, 0, np.zeros((HEIGHT, WIDTH), bool)), "empty"),
        (lambda s: s.add_mask(1, 0, np.ones((3, 3), bool)), "shape"),
        (lambda s: s.add_box(1, FRAMES, BOX), "does not exist"),
        (lambda s: s.add_box(0, 0, BOX), "object id"),
        (lambda s: s.lock([0, FRAMES]), "does not exist"),
        (lambda s: s.edit_object(1, colour="#ff0000"), "not a colour"),
        (lambda s: s.edit_object(1, colour=(0.5, 0, 0)), "not a colour"),
        (lambda s: s.edit_object(1, colour=(0, 0, 256)), "not a colour"),
        (lambda s: s.propagate(), "nothing to track"),
        (lambda s: s.propagate(objects=[7]), "nothing to track from"),
    ],
)
def test_bad_prompts_are_refused_in_words_and_change_nothing(session, ask, words) -> None:
    with pytest.raises(PromptError, match=words):
        ask(session)
    assert not session.prompts
    assert not session.object_ids
    assert not session.can_undo


# Propagation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "start", "stop", "expected"),
    [
        ("forward", None, None, range(4, FRAMES)),
        ("backward", None, None, range(4, -1, -1)),
        ("both", None, None, [*range(4, FRAMES), *range(3, -1, -1)]),
        ("forward", 6, 8, [6, 7, 8]),
        ("backward", 8, 6, [8, 7, 6]),
        ("both", 2, 6, [4, 5, 6, 3, 2]),
    ],
)
def test_ranges(session, direction, start, stop, expected) -> None:
    session.add_box(1, 4, BOX)
    assert session.frames_to_propagate(direction, start=start, stop=stop) == len(expected)
    assert [step.frame for step in session.propagate(direction, start=start, stop=stop)] == list(expected)


def test_stopping_keeps_what_is_done_and_going_on_equals_never_having_stopped(model) -> None:
    whole, halves = (CineSession(Cine(discs()), model) for _ in range(2))
    for session in (whole, halves):
        session.add_box(1, 0, BOX)
    list(whole.propagate())
    tracking = halves.propagate()
    for _ in range(5):
        next(tracking)
    tracking.close()
    assert halves.frames_with_results == (0, 1, 2, 3, 4)
    list(halves.propagate(start=5))
    assert np.array_equal(halves.masks, whole.masks)


def test_objects_do_not_disturb_each_other(model) -> None:
    alone, together = (CineSession(Cine(discs()), model) for _ in range(2))
    alone.add_box(1, 0, BOX)
    list(alone.propagate())
    together.add_box(1, 0, BOX)
    together.add_box(2, 0, (5, 5, 30, 30))
    together.add_points(3, 2, [(70, 20)], [1])
    list(together.propagate())
    for t in range(FRAMES):
        differing = alone.step(t).masks[1] ^ together.step(t).masks[1]
        assert differing.mean() < 1e-3  # batched products round differently


def test_an_object_whose_last_mark_goes_while_it_is_tracked_does_not_end_the_others(session) -> None:
    session.add_mask(1, 0, disc(20))
    session.add_mask(2, 0, disc(70))
    steps = session.propagate()
    next(steps)
    next(steps)
    session.set_prompt(2, 0, None)
    assert [step.frame for step in steps] == list(range(2, FRAMES))
    assert session.step(FRAMES - 1).masks.keys() == {1}


def test_numbers_of_numpy_are_as_good_as_pythons(session, tmp_path) -> None:
    one, frames = np.int64(1), np.arange(4)
    session.add_box(one, frames[0], BOX)
    session.add_points(one, frames[1], [(40, 40)], np.array([1]))
    session.add_mask(one, frames[3], disc(40))
    session.interpolate(frames[2], objects=[one])
    list(session.propagate(objects=np.array([1])))
    session.lock(frames, objects=np.array([1]))
    session.edit_object(one, colour=np.array([230, 159, 0], np.uint8))
    session.save(tmp_path / "work.npz")
    again = CineSession.restore(tmp_path / "work.npz", session.cine, None)
    assert np.array_equal(again.masks, session.masks)
    assert again.colours == {1: (230, 159, 0)}


def test_an_object_added_late_keeps_the_others(session) -> None:
    session.add_box(1, 0, BOX)
    list(session.propagate())
    before = [session.step(t).masks[1] for t in range(FRAMES)]
    session.add_box(2, 6, (5, 5, 30, 30))
    list(session.propagate("both", objects=[2]))
    assert all(np.array_equal(session.step(t).masks[1], before[t]) for t in range(FRAMES))
    assert all(2 in session.step(t).masks for t in range(FRAMES))


def test_locked_frames_are_never_rewritten_and_guide_the_rest(session) -> None:
    session.add_box(1, 0, BOX)
    list(session.propagate())
    free = session.masks
    painted = np.zeros((HEIGHT, WIDTH), bool)
    painted[5:20, 5:20] = True
    session.add_mask(1, 4, painted)
    session.lock([4, 5])
    kept = session.masks[[4, 5]]
    session.set_prompt(1, 0, Prompt(box=(40, 30, 90, 70)))
    list(session.propagate())
    assert np.array_equal(session.masks[[4, 5]], kept)
    with pytest.raises(PromptError, match="accepted"):
        session.add_box(1, 4, BOX)
    assert not np.array_equal(session.masks[8], free[8])
    session.unlock([4, 5])
    assert np.array_equal(session.masks[[4, 5]], kept), "unlocking alone changes no mask"


def test_a_correction_leaves_earlier_accepted_frames_alone(session) -> None:
    session.add_box(1, 0, BOX)
    list(session.propagate())
    session.lock(range(6))
    kept = session.masks[:6]
    session.add_points(1, 8, [(70, 20)], [1])
    list(session.propagate("both"))
    assert np.array_equal(session.masks[:6], kept)


@pytest.mark.parametrize("shape", [(64, 64), (65, 97), (40, 900), (900, 40), (1500, 1500)])
def test_sizes(model, shape) -> None:
    height, width = shape
    session = CineSession(Cine(discs(2, height, width)), model)
    session.add_box(1, 0, (width * 0.3, height * 0.3, width * 0.7, height * 0.7))
    assert [step.masks[1].shape for step in session.propagate()] == [shape, shape]


def test_a_single_frame_can_be_tracked(model) -> None:
    session = CineSession(Cine(discs(1)), model)
    session.add_box(1, 0, BOX)
    assert [step.frame for step in session.propagate("both")] == [0]


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((3, HEIGHT, WIDTH), np.uint8),
        np.full((3, HEIGHT, WIDTH), 7.5, np.float32),
        np.where(np.arange(WIDTH) % 5 == 0, np.nan, np.arange(WIDTH)) * np.ones((3, HEIGHT, 1)),
        discs(3).astype(np.uint16) * 257,
        np.repeat(discs(3)[..., None], 3, axis=3),
    ],
    ids=["constant", "constant float", "nan", "16-bit", "rgb"],
)
def test_kinds_of_frames(model, frames) -> None:
    session = CineSession(Cine(frames), model)
    session.add_box(1, 0, BOX)
    steps = list(session.propagate())
    assert all(np.isfinite(step.predicted_iou[1]) for step in steps)


def test_grey_16_bit_and_rgb_give_the_masks_of_grey_8_bit(model) -> None:
    grey = discs(2)
    grey[0, 0, :2] = 0, 255  # the full range, so that scaling 16 bits back is exact
    results = []
    for frames in (grey, grey.astype(np.uint16) * 257, np.repeat(grey[..., None], 3, axis=3)):
        session = CineSession(Cine(frames), model)
        session.add_box(1, 0, BOX)
        results.append(session.step(0).masks[1])
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


# Memory ---------------------------------------------------------------------------------------------------------------


def test_memory_stays_bounded_and_dropped_memories_come_back(model) -> None:
    loop = Cine(discs(24))
    frugal = CineSession(loop, model, cache_bytes=1, memory_bytes=1)
    generous = CineSession(loop, model)
    for session in (frugal, generous):
        session.add_box(1, 0, BOX)
        session.add_box(2, 0, (5, 5, 30, 30))
        list(session.propagate())
    assert len(frugal._engine.embeddings) == 1
    assert len(frugal._engine.memories.kept) == 1
    # Memories encoded again from stored masks are near to, not equal to, those encoded from logits.
    agreement = (frugal.masks == generous.masks).mean()
    assert agreement > 0.9
    limited = CineSession(
        loop, model, memory_bytes=20 * next(iter(generous._engine.memories.kept._values.values())).nbytes
    )
    limited.add_box(1, 0, BOX)
    list(limited.propagate())
    assert limited._engine.memories.kept.nbytes <= limited._engine.memories.kept.max_bytes
    alone = CineSession(loop, model)
    alone.add_box(1, 0, BOX)
    list(alone.propagate())
    assert np.array_equal(limited.masks, alone.masks), "a bank that holds what a frame attends to changes nothing"


# Undo, redo, saving ---------------------------------------------------------------------------------------------------


def test_undo_and_redo_walk_through_every_action(session) -> None:
    actions = [
        lambda: session.add_box(1, 0, BOX),
        lambda: session.add_points(1, 0, [(50, 50)], [0]),
        lambda: list(session.propagate()),
        lambda: session.lock([2, 3]),
        lambda: session.name_object(1, "lumen"),
        lambda: session.add_box(2, 5, (5, 5, 30, 30)),
        lambda: session.unlock([2]),
        lambda: session.remove_object(1),
    ]

    def picture():
        return session.masks, session.prompts, session.locked, session.names

    def same(a, b) -> bool:
        return np.array_equal(a[0], b[0]) and a[1:] == b[1:]

    pictures = [picture()]
    for act in actions:
        act()
        pictures.append(picture())
    for expected in reversed(pictures[:-1]):
        session.undo()
        assert same(picture(), expected)
    assert not session.can_undo
    assert session.undo() == frozenset()
    for expected in pictures[1:]:
        session.redo()
        assert same(picture(), expected)
    assert not session.can_redo


def test_what_changes_nothing_is_no_step_and_takes_no_redo_away(session) -> None:
    session.set_spacing((0.2, 0.3))
    session.add_box(1, 0, BOX)
    list(session.propagate(stop=2))
    session.lock([0, 1, 2])
    session.name_object(1, "lumen")
    session.undo()
    state, made_with = session._state, session.made_with
    nothing = [
        lambda: session.lock([0, 1]),
        lambda: session.unlock([5]),
        lambda: session.set_spacing((0.2, 0.3)),
        lambda: session.name_object(1, "Object 1"),
        lambda: session.set_markers(session.markers),
        lambda: session.set_prompt(1, 6, None),
        lambda: list(session.propagate(stop=2)),  # all of it was accepted
        lambda: list(session.run_passes([])),
        lambda: session.remove_object(9),
    ]
    for act in nothing:
        act()
        assert session.can_redo
        assert session._state == state
    session.redo()
    assert session.names == {1: "lumen"}
    session.undo()
    session.undo()
    assert not session.locked, "one undo takes back what was accepted: nothing else was a step"
    assert session.made_with == made_with


def test_a_scale_set_while_tracking_is_undone_without_the_frames_tracked_before_it(session) -> None:
    session.add_box(1, 0, BOX)
    tracking = session.propagate(stop=5)
    next(tracking), next(tracking)
    session.set_spacing((0.2, 0.3))
    list(tracking)
    assert session.frames_with_results == (0, 1, 2, 3, 4, 5)
    session.undo()
    assert session.spacing_mm is None
    assert session.frames_with_results == (0, 1), "the state before it stayed as it was"
    session.redo()
    assert session.frames_with_results == (0, 1, 2, 3, 4, 5)


def test_undo_tells_which_frames_changed(session) -> None:
    session.add_box(1, 3, BOX)
    session.add_box(2, 7, BOX)
    assert session.undo() == {7}
    assert session.redo() == {7}


def test_saving_and_restoring_brings_back_everything(session, model, tmp_path) -> None:
    session.add_box(1, 0, BOX)
    session.add_points(1, 0, [(50, 50)], [0])
    session.add_mask(2, 4, np.eye(HEIGHT, WIDTH, dtype=bool))
    list(session.propagate("both"))
    session.lock([2])
    session.name_object(2, "needle")
    path = tmp_path / "session.npz"
    session.save(path)
    again = CineSession.restore(path, session.cine, model)
    assert np.array_equal(again.masks, session.masks)
    assert (again.prompts, again.locked, again.names) == (session.prompts, session.locked, session.names)
    assert again.step(6).predicted_iou == session.step(6).predicted_iou
    # And the work goes on: tracking from the restored state gives what it gives in the session that was saved.
    list(again.propagate(start=0))
    list(session.propagate(start=0))
    assert (again.masks == session.masks).mean() > 0.999


def test_autosave_holds_the_last_action(model, tmp_path) -> None:
    path = tmp_path / "autosave.npz"
    session = CineSession(Cine(discs()), model, autosave=path)
    for act in (lambda: session.add_box(1, 0, BOX), lambda: list(session.propagate()), session.undo):
        act()
        restored = CineSession.restore(path, session.cine, model)
        assert np.array_equal(restored.masks, session.masks)
        assert restored.prompts == session.prompts


@contextmanager
def failing_at(key, error: Exception, session: CineSession, monkeypatch) -> Iterator[None]:
    """Computing an answer for one object on one frame raises an error."""
    engine_type = type(session._engine)
    predict = engine_type._predict

    def fails(engine, state, asked, prompt):
        if asked == key:
            raise error
        return predict(engine, state, asked, prompt)

    with monkeypatch.context() as patch:
        patch.setattr(engine_type, "_predict", fails)
        yield


def test_what_is_asked_for_waits_for_an_answer_and_is_saved(model, tmp_path, monkeypatch) -> None:
    path = tmp_path / "autosave.npz"
    session = CineSession(Cine(discs()), None, autosave=path)
    asked = {(1, 0): Prompt(box=BOX), (1, 4): Prompt(mask=np.eye(HEIGHT, WIDTH, dtype=bool)), (2, 1): Prompt(box=BOX)}
    session.ask(asked)
    session.name_object(3, "a change")
    with pytest.raises(PromptError, match="no model"):
        session.answer()
    session.undo()
    again = CineSession.restore(path, session.cine, model)
    assert again.waiting == session.waiting == asked
    # Without room to compute it waits on; what cannot be used does not, nor does what was answered.
    again.ask({(2, 1): None, (2, 5): Prompt(box=(500, 500, 600, 600))})
    with failing_at((1, 4), ResourceError("No room"), again, monkeypatch), pytest.raises(ResourceError):
        again.answer()
    assert set(again.prompts) == {(1, 0)}
    assert (1, 4) in again.waiting
    assert set(again.answer()) == {(2, 5)}
    assert set(again.prompts) == {(1, 0), (1, 4)}
    assert again.waiting == {}
    assert CineSession.restore(path, session.cine, model).waiting == asked, (
        "the session that was restored keeps nothing"
    )
    # All that was answered together is undone together, and does not wait again.
    session.model = model
    session.answer()
    assert set(session.prompts) == {(1, 0), (1, 4), (2, 1)}
    session.undo()
    assert session.prompts == session.waiting == {}
    assert CineSession.restore(path, session.cine, model).waiting == {}


@pytest.mark.parametrize("named", [True, False])
def test_an_object_that_comes_back_has_the_marks_that_waited(model, tmp_path, named: bool) -> None:
    path = tmp_path / "autosave.npz"
    session = CineSession(Cine(discs()), None, autosave=path)
    one = {(1, 0): Prompt(box=BOX), (1, 4): Prompt(mask=np.eye(HEIGHT, WIDTH, dtype=bool))}
    two, three = {(2, 1): Prompt(box=BOX)}, {(3, 1): Prompt(box=BOX)}
    session.ask(one | two)
    if named:
        session.name_object(1, "one")

    def waits() -> dict:
        assert CineSession.restore(path, session.cine, model).waiting == session.waiting
        return session.waiting

    with session.one_change():
        session.remove_object(1)
    assert waits() == two
    session.ask(three)
    assert session.undo() == {0, 4}
    assert waits() == one | two | three
    assert session.redo() == {0, 4}
    assert waits() == two | three
    session.remove_object(2)
    assert waits() == three
    session.undo()
    session.undo()
    assert waits() == one | two | three
    session.model = model
    session.answer()
    session.undo()
    assert waits() == {}, "what was answered does not wait again"


def test_whatever_ends_an_answer_takes_away_nothing_that_was_asked_for(model, monkeypatch) -> None:
    session = CineSession(Cine(discs()), model)
    asked = {(1, 0): Prompt(box=BOX), (1, 4): Prompt(box=BOX), (2, 1): Prompt(box=BOX)}
    session.ask(asked)
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with failing_at((1, 4), error, session, monkeypatch), pytest.raises(RuntimeError):
        session.answer()
    assert {**session.prompts, **session.waiting} == asked
    assert session.answer() == {}
    assert session.prompts == asked


def test_accepted_frames_are_named_once_for_all_that_they_refuse(session) -> None:
    session.add_box(1, 0, BOX)
    list(session.propagate())
    session.lock([1, 2, 3, 5, 7, 8])
    session.ask({(1, frame): Prompt(box=BOX) for frame in range(9)})
    errors = session.answer()
    assert set(errors) == {(1, frame) for frame in (1, 2, 3, 5, 7, 8)}
    assert len(set(errors.values())) == 1
    (words,) = {str(error) for error in errors.values()}
    assert words.startswith("Frames 1 to 3, 5, 7 and 8 were accepted for this object. Press Accept frame (G)")


def test_a_full_disk_stops_no_work_and_is_said(model, tmp_path) -> None:
    (tmp_path / "not a folder").write_text("")
    words: list[str] = []
    autosave = tmp_path / "not a folder" / "autosave.npz"
    session = CineSession(Cine(discs(3)), model, autosave=autosave, on_notice=words.append)
    session.add_box(1, 0, BOX)
    assert len(list(session.propagate())) == 3
    assert len(words) == 2
    assert all("could not be kept" in text for text in words)


def test_autosave_holds_no_name_of_the_file(model, tmp_path) -> None:
    path = tmp_path / "autosave.npz"
    session = CineSession(Cine(discs(), source="/data/DOE^JANE.dcm", details={"n": "DOE^JANE"}), model, autosave=path)
    session.add_box(1, 0, BOX)
    with np.load(path) as file:
        content = b"".join(file[name].tobytes() for name in file.files)
    assert b"DOE" not in content
    assert b"DOE" not in path.read_bytes()


def test_another_loops_file_is_refused(session, model, tmp_path) -> None:
    path = tmp_path / "session.npz"
    session.add_box(1, 0, BOX)
    session.save(path)
    with pytest.raises(ReadError, match="another loop"):
        CineSession.restore(path, Cine(discs()[::-1].copy()), model)


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.9])
def test_a_damaged_file_is_refused(session, model, tmp_path, keep) -> None:
    path = tmp_path / "session.npz"
    session.add_box(1, 0, BOX)
    session.save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with pytest.raises(ReadError):
        CineSession.restore(path, session.cine, model)


# What is remembered --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 4, 7])
def test_the_nearest_frames_are_remembered_as_such_however_few(frames) -> None:
    limits = MemoryLimits(frames=frames)
    for reverse, step in ((False, -1), (True, 1)):
        plan = plan_memory(20, {2}, range(3, 40), reverse=reverse, signed=True, num_frames=40, limits=limits)
        expected = [(0, 2), *((distance, 20 + step * distance) for distance in range(frames - 1, 0, -1))]
        assert plan.spatial == tuple(expected)


def test_more_frames_than_there_are_codes_for_are_refused(model) -> None:
    with pytest.raises(ValueError, match="1 to 7"):
        CineSession(Cine(discs(3)), model, limits=MemoryLimits(frames=8))


def test_close_views_of_a_larger_model_are_no_memory_of_a_smaller_ones_frames() -> None:
    model = load_model("uniultra-mini", "cpu").at(128)
    session = CineSession(Cine(discs(3, 144, 192)), model)
    session.add_box(1, 0, (80, 56, 112, 88))
    memories, result = session._engine.memories, session._state.result((1, 0))
    assert result.view.size == 64
    session.model = model.at(64)
    assert memories.whole.size == 64
    assert memories._remembered_view(result, memories.whole) == memories.whole


# Out of memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["embed", "predict", "track", "remember", "attend"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
    ids=["torch", "python", "cublas", "cudnn"],
)
def test_running_out_of_memory_once_is_survived(model, monkeypatch, stage, error) -> None:
    calm, short = (CineSession(Cine(discs(5)), model) for _ in range(2))
    calm.add_box(1, 0, BOX)
    list(calm.propagate())
    real, failures = getattr(short._engine.predictor, stage), [error]

    def fails_once(*args, **kwargs):
        if failures:
            raise failures.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(short._engine.predictor, stage, fails_once)
    short.add_box(1, 0, BOX)
    list(short.propagate())
    assert not failures
    assert np.array_equal(short.masks, calm.masks)


def test_when_the_memory_never_suffices_the_session_stands(session, monkeypatch) -> None:
    session.add_box(1, 0, BOX)
    before = session.masks

    def fails(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr(session._engine.predictor, "attend", fails)
    tracking = session.propagate()
    next(tracking)
    with pytest.raises(ResourceError, match="not enough memory"):
        next(tracking)
    assert np.array_equal(session.masks, before)


def test_half_precision_may_fail_after_memory_has(session, model) -> None:
    errors = [torch.OutOfMemoryError("CUDA out of memory"), HalfPrecisionError()]
    notices = []
    session.model = replace(model, half=True)

    def work() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    assert run_with_fallback(session._engine, work, notices.append) == "done"
    assert not session.model.half
    assert [words[:32] for words in notices] == ["Numbers became too large for half"[:32]]


def test_results_can_be_read_from_another_thread_while_tracking(session) -> None:
    session.add_box(1, 0, BOX)
    stop, failures = threading.Event(), []

    def read() -> None:
        try:
            while not stop.is_set():
                session.labels(3)
                session.frames_with_results  # noqa: B018
        except Exception as error:  # the thread must report whatever it was
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    list(session.propagate("both"))
    stop.set()
    reader.join()
    assert not failures


# Changing results without the model -----------------------------------------------------------------------------------


def test_filling_between_goes_from_one_given_mask_to_the_other_and_can_be_undone(session) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for frame, column in ((2, 20), (8, 68)):
        session.add_mask(1, frame, (y - 36) ** 2 + (x - column) ** 2 < 144)
    assert session.interpolate(5) == frozenset(range(3, 8))
    for frame in range(3, 8):
        rows, columns = np.nonzero(session.step(frame).masks[1])
        assert (rows.mean(), columns.mean()) == pytest.approx((36, 20 + 8 * (frame - 2)), abs=0.6)
        assert session.step(frame).predicted_iou == {}, "no model judged it"
    assert session.undo() == frozenset(range(3, 8))
    assert session.frames_with_results == (2, 8)


def test_filling_between_needs_both_sides_and_leaves_what_was_accepted(session) -> None:
    session.add_mask(1, 2, np.eye(HEIGHT, WIDTH, dtype=bool))
    with pytest.raises(PromptError, match="between no two frames"):
        session.interpolate(5)
    session.add_mask(1, 8, np.eye(HEIGHT, WIDTH, dtype=bool))
    list(session.propagate())
    session.lock(6)
    accepted = session.step(6).masks[1]
    assert session.interpolate(4) <= {3, 4, 5}
    assert np.array_equal(session.step(6).masks[1], accepted)


def disc(column: int, radius: int = 12) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - 36) ** 2 + (x - column) ** 2 < radius**2


def test_filling_between_leaves_what_was_given_and_what_is_locked(session) -> None:
    for frame, column in ((0, 20), (5, 70), (10, 60)):
        session.add_mask(1, frame, disc(column))
    with pytest.raises(PromptError, match="between no two frames"):
        session.interpolate(5)  # it was painted itself
    assert session.interpolate(7) == frozenset(range(6, 10))  # from there on
    session.mark_absent(1, 8)
    with pytest.raises(PromptError, match="between no two frames"):
        session.interpolate(7)  # the structure was gone before the next one
    before = session.masks
    session.edit_object(1, locked=True)
    with pytest.raises(PromptError, match="between no two frames"):
        session.interpolate(3)
    with pytest.raises(PromptError, match="is locked"):
        session.interpolate(3, objects=[1])
    assert np.array_equal(session.masks, before)


def test_filled_frames_survive_saving(session, model, tmp_path) -> None:
    for frame in (0, 4):
        session.add_mask(1, frame, np.eye(HEIGHT, WIDTH, dtype=bool))
    session.interpolate(2)
    session.save(tmp_path / "work.npz")
    restored = CineSession.restore(tmp_path / "work.npz", session.cine, model)
    assert np.array_equal(restored.masks, session.masks)
    assert restored.step(2).predicted_iou == {}


def test_tidying_shows_first_and_changes_only_what_no_hand_gave(session) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ring = ((y - 36) ** 2 + (x - 40) ** 2 < 400) & ((y - 36) ** 2 + (x - 40) ** 2 > 50)
    session.add_mask(1, 0, ring)
    session.add_mask(1, 4, ring)
    session.interpolate(2)
    before = session.masks
    settings = TidySettings(fill_holes=True)
    shown = session.preview_tidy(settings, 2)
    assert shown[36, 40] == 1
    assert np.array_equal(session.masks, before)
    assert session.tidy(settings) == {1, 2, 3}
    assert np.array_equal(session.masks[2], shown)
    assert np.array_equal(session.masks[0], before[0])
    session.undo()
    assert np.array_equal(session.masks, before)


def test_a_further_click_decodes_once_and_gives_what_a_replay_gives(session, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, calls = session._engine.predictor._decode, []
    monkeypatch.setattr(session._engine.predictor, "_decode", lambda *a, **k: calls.append(1) or decode(*a, **k))
    session.add_box(1, 0, BOX)
    session.add_points(1, 0, [(50, 50)], [0])
    session.add_points(1, 0, [(30, 30)], [1])
    assert len(calls) == 3
    clicked, prompt = session.logits(1, 0), session.prompts[1, 0]
    session.set_prompt(1, 0, None)
    session.set_prompt(1, 0, prompt)  # all rounds again
    assert len(calls) == 6
    assert np.array_equal(session.logits(1, 0), clicked)


# Reading ahead -------------------------------------------------------------------------------------------------------


class OnDisk(LazyFrames):
    """Frames whose decoding is written down, one of which may be damaged."""

    def __init__(self, pixels: np.ndarray, damaged: int | None = None) -> None:
        super().__init__(pixels.shape)
        self.pixels, self.damaged, self.decoded = pixels, damaged, []

    def _decode(self, index: int) -> np.ndarray:
        if index == self.damaged:
            raise ReadError(f"Frame {index} is damaged")
        self.decoded.append((index, threading.current_thread().name))
        return self.pixels[index].copy()


def test_frames_are_decoded_while_those_before_are_tracked(model) -> None:
    frames = OnDisk(discs(6))
    ahead, plain = CineSession(Cine(frames), model), CineSession(Cine(discs(6)), model)
    for session in (ahead, plain):
        session.add_box(1, 2, BOX)
    for _ in zip(ahead.propagate("both"), plain.propagate("both"), strict=True):
        pass
    assert np.array_equal(ahead.masks, plain.masks)
    assert sorted(index for index, _ in frames.decoded) == list(range(6))  # each once
    assert {index for index, reader in frames.decoded if reader == "read ahead"} == {0, 1, 3, 4, 5}


def test_a_device_of_its_own_embeds_the_next_frame_before_results_are_read(model) -> None:
    overlapping, plain = (CineSession(Cine(discs(6)), model) for _ in range(2))
    engine = overlapping._engine
    engine.overlaps = True  # as on CUDA; here the same calls in the same order
    for session in (overlapping, plain):
        session.add_box(1, 2, BOX)
        session.add_box(2, 2, (2, 2, 20, 20))
    frames = []
    for step, expected in zip(overlapping.propagate("backward"), plain.propagate("backward"), strict=True):
        frames.append(step.frame)
        assert all(np.array_equal(step.masks[each], expected.masks[each]) for each in (1, 2))
        if step.frame == 1:  # the first that is tracked
            assert (0, engine.memories.whole) in engine.embeddings
    assert frames == [2, 1, 0]


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_damaged_frame_is_told_when_its_turn_comes(model, overlaps: bool) -> None:
    session = CineSession(Cine(OnDisk(discs(6), damaged=3)), model)
    session._engine.overlaps = overlaps
    session.add_box(1, 0, BOX)
    seen = []
    with pytest.raises(ReadError, match="Frame 3"):
        seen.extend(step.frame for step in session.propagate())
    assert seen[-1] == 2
    assert session.step(2).masks[1].any()
