"""Evaluation: exact oracles, baselines worked by hand, failures that stay in the means, and the files it writes."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from napari_uniultra.cli import main
from napari_uniultra.core.prompts import ellipse_in_box
from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import ReadError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import architecture
from napari_uniultra.model.load import load_model, model_at
from napari_uniultra.segment.session import CineSession
from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.manifest import Manifest, write_manifest
from napari_uniultra.training.evaluation.answers import IMAGE, FrameAnswer
from napari_uniultra.training.evaluation.cases import LabelledCase
from napari_uniultra.training.evaluation.others import OtherTool
from napari_uniultra.training.evaluation.prompts import clicks_inside, drawn_prompt, generator, jittered_box
from napari_uniultra.training.evaluation.run import Evaluation, evaluate, select_cases, write_evaluation
from napari_uniultra.training.evaluation.scores import Score, is_layer, scores_of, thickness
from napari_uniultra.training.evaluation.settings import PROMPTS, EvaluationSettings
from napari_uniultra.training.evaluation.summary import drifts, reliability, statistic, table
from napari_uniultra.training.evaluation.tables import markdown, write_csv

HEIGHT, WIDTH, FRAMES = 60, 80, 13
PLAIN = EvaluationSettings(pictures=0, resamples=200)
NAN = float("nan")


def rectangle(top: int, left: int, height: int, width: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)
    return path


def still(folder: Path, name: str, labels: np.ndarray, **more: object) -> Case:
    rng = np.random.default_rng(list(name.encode()))
    image = save(folder / "images" / name, rng.integers(0, 255, labels.shape))
    return Case(f"images/{name}", image, (save(folder / "masks" / name, labels),), source="discs", **more)


def loop(folder: Path, labels: list[np.ndarray], **more: object) -> Case:
    """A loop whose frames and masks are files of one name."""
    for number, own in enumerate(labels):
        save(folder / "loop/frames" / f"{number:03}.png", np.where(own > 0, 60, 160) + number)
        save(folder / "loop/masks" / f"{number:03}.png", own)
    return Case("loop", folder / "loop/frames", (folder / "loop/masks",), source="loops", **more)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = architecture("uniultra-mini", image_size=64)
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(path, network, config, {"licence": "Apache-2.0"})
    return str(path)


@pytest.fixture(scope="module")
def model(checkpoint: str):
    return load_model(checkpoint, "cpu")


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """A still of one object, a still of two, and a loop of one that moves."""
    two = rectangle(5, 5, 20, 20) + 2 * rectangle(30, 40, 24, 30)
    moving = [rectangle(10 + number, 20, 30, 30) for number in range(FRAMES)]
    return [
        still(tmp_path, "one.png", rectangle(10, 20, 30, 40), spacing_mm=(0.5, 0.25)),
        still(tmp_path, "two.png", two),
        loop(tmp_path, moving),
    ]


def copied(cases: list[Case], folder: Path, change=lambda labels: labels) -> OtherTool:
    """Another tool's masks, made of the truth."""
    for case in cases:
        for mask in sorted(case.masks[0].iterdir()) if case.masks[0].is_dir() else case.masks:
            name = f"{case.name}/{mask.name}" if case.masks[0].is_dir() else case.name
            save(folder / name, change(np.asarray(Image.open(mask))))
    return OtherTool(folder)


def only(evaluation: Evaluation, **wanted: object) -> list[Score]:
    return [s for s in evaluation.scores if all(getattr(s, key) == value for key, value in wanted.items())]


# Oracles --------------------------------------------------------------------------------------------------------------


def test_the_truth_scores_perfectly(cases, tmp_path) -> None:
    evaluation = evaluate(cases, PLAIN, others=[copied(cases, tmp_path / "oracle")])
    scores = only(evaluation, method="oracle")
    assert len([score for score in scores if not score.is_image]) == 1 + 2 + FRAMES
    assert len([score for score in scores if score.is_image]) == 2 + FRAMES
    for score in scores:
        assert score.dice == score.iou == score.nsd_px == 1
        assert score.hd_px == score.hd95_px == 0
        assert not score.failure
    (first,) = (score for score in scores if score.case == "images/one.png" and not score.is_image)
    assert first.hd_mm == first.hd95_mm == 0
    assert first.nsd_mm == 1
    assert math.isnan(next(score for score in scores if score.case == "loop").hd_mm), "no spacing, no millimetres"


def test_a_shifted_mask_is_as_far_as_its_shift(cases, tmp_path) -> None:
    tool = copied(cases[:1], tmp_path / "shifted", lambda labels: np.roll(labels, (3, 4), (0, 1)))
    (score,) = (s for s in only(evaluate(cases[:1], PLAIN, others=[tool]), method="shifted") if not s.is_image)
    common = (30 - 3) * (40 - 4)
    assert score.dice == pytest.approx(2 * common / (2 * 30 * 40))
    assert score.iou == pytest.approx(common / (2 * 30 * 40 - common))
    assert score.hd_px == 5
    assert score.hd_mm == pytest.approx(math.hypot(3 * 0.5, 4 * 0.25))
    assert score.diagonal_mm == pytest.approx(math.hypot(HEIGHT * 0.5, WIDTH * 0.25))


def test_the_ellipse_of_a_rectangle_covers_pi_quarters(cases) -> None:
    """The box of a rectangle without jitter is the rectangle, so Dice is 2 * pi/4 / (1 + pi/4)."""
    big = rectangle(20, 30, 160, 240, (220, 320))
    case = still(cases[0].frames.parents[1], "big.png", big)
    evaluation = evaluate([case], replace(PLAIN, jitter=0.0, prompts=("box", "box+point", "point")))
    assert {score.prompt for score in evaluation.scores} == {"box", "box+point"}, "no ellipse without a box"
    for score in evaluation.scores:
        assert score.method == "ellipse"
        assert score.dice == pytest.approx(2 * math.pi / (4 + math.pi), rel=0.005)
        assert score.drawn is None or score.drawn.box == (30, 20, 270, 180)
    assert ellipse_in_box((30, 20, 270, 180), (220, 320)).sum() == pytest.approx(math.pi / 4 * 160 * 240, rel=0.005)


def test_several_objects_are_found_by_label_or_by_overlap(cases, tmp_path) -> None:
    two = cases[1]
    named = copied([two], tmp_path / "named", lambda labels: np.where(labels == 2, 2, 0))
    evaluation = evaluate([two], PLAIN, others=[named])
    assert [s.dice for s in only(evaluation, object="2", method="named")] == [1]
    (missed,) = only(evaluation, object="1", method="named")
    assert (missed.dice, missed.failure) == (0, "empty")
    (whole,) = only(evaluation, object=IMAGE, method="named")
    assert whole.dice == pytest.approx(2 * 720 / (720 + 1120))

    surplus = rectangle(50, 2, 5, 5) * 255
    binary = copied([two], tmp_path / "binary", lambda labels: np.where(labels > 0, 255, 0) + surplus)
    evaluation = evaluate([two], PLAIN, others=[binary])
    assert [s.dice for s in only(evaluation, method="binary", object="1")] == [1]
    assert [s.dice for s in only(evaluation, method="binary", object="2")] == [1]
    (whole,) = only(evaluation, method="binary", object=IMAGE)
    assert whole.dice == pytest.approx(2 * 1120 / (2 * 1120 + 25)), "what belongs to no object counts in the image"


def test_a_stack_of_masks_is_taken_frame_by_frame(cases, tmp_path) -> None:
    folder = tmp_path / "stack"
    folder.mkdir()
    masks = np.stack([np.asarray(Image.open(path)) for path in sorted(cases[2].masks[0].iterdir())])
    tifffile.imwrite(folder / "loop.tif", np.roll(masks, 2, axis=1))
    evaluation = evaluate(cases[2:], PLAIN, others=[OtherTool(folder)])
    scores = [score for score in only(evaluation, method="stack") if not score.is_image]
    assert [score.hd_px for score in scores] == [2] * FRAMES


def test_a_tool_that_takes_one_object_for_another_is_told_so_whatever_else_it_marks(tmp_path) -> None:
    artery, vein, rest = rectangle(5, 5, 20, 20), rectangle(30, 40, 24, 30), rectangle(50, 2, 5, 5)
    names = {1: "artery", 2: "vein", 3: "nerve"}
    cases = [
        replace(still(tmp_path, "both.png", artery + 2 * vein), labels=names),
        still(tmp_path, "bare.png", artery + 2 * vein),  # without names
        replace(still(tmp_path, "one.png", 2 * vein), labels=names),
    ]
    swapped = np.array([0, 2, 1, 3])
    tool = copied(cases, tmp_path / "swapped", lambda labels: swapped[labels + 3 * rest])
    scores = only(evaluate(cases, PLAIN, others=[tool]), method="swapped")
    assert [score.dice for score in scores if not score.is_image] == [0] * 5
    assert {round(score.dice, 3) for score in scores if score.is_image} == {
        round(2 * area / (2 * area + 25), 3) for area in (1120, 720)
    }


def test_a_file_with_all_masks_of_a_loop_is_read_once(cases, tmp_path, monkeypatch) -> None:
    folder, read = tmp_path / "stack", []
    folder.mkdir()
    tifffile.imwrite(folder / "loop.tif", np.ones((FRAMES, HEIGHT, WIDTH), np.uint8))
    monkeypatch.setattr(tifffile, "imread", lambda path, own=tifffile.imread: read.append(path) or own(path))
    evaluate(cases[2:], PLAIN, others=[OtherTool(folder)])
    assert read == [folder / "loop.tif"]


# Failures -------------------------------------------------------------------------------------------------------------


def test_failures_are_counted_and_stay_in_the_means(cases, tmp_path) -> None:
    folder = tmp_path / "gaps"
    copied(cases[:2], folder)
    (folder / cases[0].name).unlink()
    evaluation = evaluate(cases[:2], replace(PLAIN, stills=False), others=[OtherTool(folder)])
    (row,) = (row for row in evaluation.table() if row.by == "image")
    assert row.failures == {"missing": 1}
    assert row.scored == 2
    assert row.metrics["dice"].mean == 0.5
    assert row.metrics["hd_px"].mean == pytest.approx(math.hypot(HEIGHT, WIDTH) / 2)
    (failed,) = (own for own in evaluation.summary()["failures"] if own["object"] == IMAGE)
    assert failed == {"case": cases[0].name, "frame": 0, "object": IMAGE, "method": "gaps", "why": "missing"}


def test_masks_of_another_size_and_damaged_ones_are_failures(cases, tmp_path) -> None:
    folder = tmp_path / "odd"
    save(folder / cases[0].name, np.ones((HEIGHT, WIDTH + 1)))
    (folder / cases[1].name).write_bytes(b"no image")
    evaluation = evaluate(cases[:2], replace(PLAIN, stills=False), others=[OtherTool(folder)])
    assert {score.failure for score in evaluation.scores if score.case == cases[0].name} == {"other size"}
    assert {score.failure for score in evaluation.scores if score.case == cases[1].name} == {"unreadable"}
    assert all(score.dice == 0 and math.isinf(score.hd_px) for score in evaluation.scores)


def test_of_two_masks_of_a_frame_none_is_chosen(cases, tmp_path) -> None:
    tool = copied([cases[0], cases[2]], tmp_path / "twice")
    save(tool.folder / Path(cases[0].name).with_suffix(".bmp"), np.ones((HEIGHT, WIDTH)))
    save(tool.folder / "loop/1.png", np.ones((HEIGHT, WIDTH)))  # beside 001.png
    scores = only(evaluate([cases[0], cases[2]], PLAIN, others=[tool]), method="twice", object=IMAGE)
    assert [(own.dice, own.failure) for own in scores[:3]] == [(0, "several files"), (1, ""), (0, "several files")]
    assert {own.failure for own in scores[3:]} == {""}


def test_a_mask_that_fails_is_no_success_where_there_is_nothing(tmp_path) -> None:
    nothing, disc = np.zeros((HEIGHT, WIDTH), int), rectangle(10, 20, 30, 30)
    case = loop(tmp_path, [disc, nothing, nothing, nothing, nothing])
    tool = copied([case], tmp_path / "odd")
    (tool.folder / "loop/001.png").write_bytes(b"no image")
    (tool.folder / "loop/002.png").unlink()
    save(tool.folder / "loop/003.png", np.zeros((HEIGHT, WIDTH + 1)))
    scores = only(evaluate([case], PLAIN, others=[tool]), method="odd", object=IMAGE)
    failures = ["", "unreadable", "missing", "other size", ""]
    assert [(own.dice, own.failure) for own in scores] == [(float(not why), why) for why in failures]


def test_a_structure_called_image_is_refused_by_name(cases, tmp_path) -> None:
    odd = replace(still(tmp_path, "odd.png", rectangle(10, 20, 30, 40)), labels={1: "image"})
    ((name, why),) = evaluate([cases[0], odd], PLAIN).not_scored
    assert name == odd.name
    assert "is called 'image'" in why


def test_a_tools_masks_are_looked_for_in_its_folder_only(cases, tmp_path) -> None:
    folder = tmp_path / "tool"
    folder.mkdir()
    outside = replace(cases[0], name="../images/one.png")
    evaluation = evaluate([outside], replace(PLAIN, stills=False), others=[OtherTool(folder)])
    assert {score.failure for score in evaluation.scores} == {"missing"}
    with pytest.raises(ReadError, match="no folder"):
        OtherTool(tmp_path / "nowhere")


def test_a_damaged_case_is_named_and_the_others_are_scored(cases, model) -> None:
    cases[0].frames.write_bytes(cases[0].frames.read_bytes()[:60])
    evaluation = evaluate(cases[:2], PLAIN, model)
    ((name, why),) = evaluation.not_scored
    assert name == cases[0].name
    assert str(cases[0].frames.parent) not in why
    assert {score.case for score in evaluation.scores} == {cases[1].name}
    with pytest.raises(ReadError, match="Nothing could be scored"):
        evaluate(cases[:1], PLAIN, model)


def test_a_model_that_cannot_answer_fails_the_case_and_not_the_run(cases, model, monkeypatch) -> None:
    def no_memory(*_args, **_kwargs):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model.network.sam_mask_decoder, "forward", no_memory)
    evaluation = evaluate(cases[1:], replace(PLAIN, prompts=("box", "none")), model)
    scores = only(evaluation, method="model")
    assert {score.prompt for score in scores} == {"box", "none", "tracked"}
    assert {score.failure for score in scores} == {"error"}
    assert len([s for s in scores if s.prompt == "tracked" and not s.is_image]) == FRAMES - 1


# Prompts and the model ------------------------------------------------------------------------------------------------


def test_box_sides_move_outwards_by_at_most_the_jitter() -> None:
    mask = rectangle(40, 80, 20, 40, (100, 200))
    boxes = np.array([jittered_box(mask, np.random.default_rng(seed), 20) for seed in range(100)])
    outwards = np.array([80, 40, -120, -60]) - boxes * [1, 1, -1, -1]
    assert outwards.min() >= 0
    assert (outwards.max(axis=0) <= np.array([200, 100, 200, 100]) * 20 / 1024).all()
    assert (outwards.max(axis=0) >= np.array([200, 100, 200, 100]) * 19 / 1024).all()


def test_clicks_keep_off_the_edge() -> None:
    mask = rectangle(40, 80, 20, 40, (100, 200))
    for x, y in clicks_inside(mask, np.random.default_rng(0), 50):
        assert 84 <= x <= 116
        assert 44 <= y <= 56


def test_prompts_depend_on_the_seed_and_the_names_alone() -> None:
    mask = rectangle(10, 20, 30, 40)
    one = drawn_prompt("box+point", mask, 20, 0, ("case", 3, "1"))
    assert one == drawn_prompt("box+point", mask, 20, 0, ("case", 3, "1"))
    assert one.box == drawn_prompt("box", mask, 20, 0, ("case", 3, "1")).box
    assert one.box != drawn_prompt("box", mask, 20, 1, ("case", 3, "1")).box
    assert one.box != drawn_prompt("box", mask, 20, 0, ("case", 4, "1")).box
    assert generator(0, "a", "b").random() != generator(0, "ab").random()
    assert len(drawn_prompt("3points", mask, 20, 0, ("case",)).points) == 3
    assert drawn_prompt("none", mask, 20, 0, ("case",)) == Prompt()


def test_scores_do_not_depend_on_the_order_of_the_cases(cases, model) -> None:
    forwards = evaluate(cases[:2], PLAIN, model)
    backwards = evaluate(cases[1::-1], PLAIN, model)
    key = lambda score: (score.case, score.method, score.object)  # noqa: E731
    pairs = zip(sorted(forwards.scores, key=key), sorted(backwards.scores, key=key), strict=True)
    for one, two in pairs:
        assert one.dice == two.dice
        assert one.drawn == two.drawn
    assert evaluate(cases[1:2], PLAIN, model).scores[0].dice == only(forwards, case=cases[1].name)[0].dice
    for one, two in zip(forwards.table(), backwards.table(), strict=True):
        assert one.metrics["dice"].low == pytest.approx(two.metrics["dice"].low)


def test_every_kind_of_prompt_is_scored_as_the_viewer_answers_it(cases, model) -> None:
    evaluation = evaluate(cases[1:2], replace(PLAIN, prompts=PROMPTS), model)
    for kind in PROMPTS:
        scores = only(evaluation, prompt=kind, method="model")
        assert [s.object for s in scores] == ([IMAGE] if kind == "none" else ["1", "2", IMAGE])
        assert all(0 <= s.predicted_iou <= 1 for s in scores if kind == "none" or not s.is_image)
    labelled = LabelledCase(cases[1])
    for score in only(evaluation, prompt="box+point", method="model")[:2]:
        session = CineSession(Cine(np.asarray(Image.open(cases[1].frames))), model)
        mask = session.set_prompt(1, 0, score.drawn).masks[1]
        answer = FrameAnswer("model", "box+point", 0, {score.object: mask})
        assert next(scores_of(labelled, answer, PLAIN)).dice == score.dice


def test_a_prompt_that_is_asked_for_twice_counts_once(cases) -> None:
    once, twice = (evaluate(cases[:1], replace(PLAIN, prompts=kinds)) for kinds in (("box",), ("box", "point", "box")))
    assert twice.scores == once.scores


def test_a_jitter_sweep_has_the_ellipse_beside_every_box(cases, model) -> None:
    evaluation = evaluate(cases[:1], replace(PLAIN, jitter_sweep=(0.0, 20.0, 80.0)), model)
    rows = [row for row in evaluation.table() if row.by == "object"]
    assert [(row.jitter, row.method) for row in rows] == [
        (jitter, method) for jitter in (0, 20, 80) for method in ("model", "ellipse")
    ]
    for ours, ellipse in zip(rows[::2], rows[1::2], strict=True):
        gain = ours.metrics["dice"].mean - ellipse.metrics["dice"].mean
        assert ours.over_ellipse.mean == pytest.approx(gain)
        assert ellipse.over_ellipse is None
    exact = rows[1].metrics["dice"].mean  # the truth is a rectangle
    assert exact == pytest.approx(2 * math.pi / (4 + math.pi), rel=0.005)


def test_another_input_size_keeps_the_weights(checkpoint: str) -> None:
    small, large = model_at(checkpoint, "cpu"), model_at(checkpoint, "cpu", 96)
    assert (small.image_size, large.image_size) == (64, 96)
    for name, value in small.network.state_dict().items():
        assert torch.equal(value, large.network.state_dict()[name])


# Loops ----------------------------------------------------------------------------------------------------------------


def test_tracking_is_the_sessions(cases, model) -> None:
    evaluation = evaluate(cases[2:], replace(PLAIN, stills=False), model)
    scores = [score for score in evaluation.scores if not score.is_image]
    assert [(s.frame, s.since_prompt, s.prompt) for s in scores] == [(t, t, "tracked") for t in range(1, FRAMES)]
    labelled = LabelledCase(cases[2])
    session = CineSession(labelled.cine, model)
    box = drawn_prompt("box", labelled.truth(0)["1"], 20, 0, ("loop", 0, "1")).box
    session.add_box(1, 0, box)
    steps = {step.frame: step for step in session.propagate("forward")}
    for score in scores:
        answer = FrameAnswer("model", "tracked", score.frame, {"1": steps[score.frame].masks[1]}, since_prompt=1)
        assert next(scores_of(labelled, answer, PLAIN)).dice == score.dice
        assert steps[score.frame].predicted_iou[1] == score.predicted_iou


def test_objects_are_tracked_from_the_first_frame_that_shows_them(tmp_path, model) -> None:
    nothing = np.zeros((HEIGHT, WIDTH), int)
    one, two = rectangle(10, 10, 24, 24), 2 * rectangle(30, 44, 20, 24)
    case = loop(tmp_path, [nothing, nothing, one, one, one + two, two, one + two])
    scores = only(evaluate([case], replace(PLAIN, stills=False), model), prompt="tracked")
    assert [(s.frame, s.object) for s in scores if not s.is_image] == [
        (3, "1"), (4, "1"), (5, "1"), (5, "2"), (6, "1"), (6, "2")
    ]  # fmt: skip
    assert {(own.object, own.frames) for own in drifts(scores)} == {("1", (1, 2, 3, 4)), ("2", (1, 2))}
    labelled = LabelledCase(case)
    session = CineSession(labelled.cine, model)
    for number, frame, stop in ((1, 2, 3), (2, 4, 6)):
        truth = labelled.truth(frame)[str(number)]
        session.set_prompt(number, frame, drawn_prompt("box", truth, 20, 0, ("loop", frame, str(number))))
        list(session.propagate("forward", start=frame, stop=stop))
    for own in (score for score in scores if not score.is_image):
        mask = session.step(own.frame).masks[int(own.object)]
        answer = FrameAnswer("model", "tracked", own.frame, {own.object: mask})
        assert next(scores_of(labelled, answer, PLAIN)).dice == own.dice


def test_one_frame_in_ten_is_corrected_and_not_scored(cases, model) -> None:
    evaluation = evaluate(cases[2:], replace(PLAIN, stills=False, corrections=True), model)
    corrected = [s for s in evaluation.scores if s.prompt.startswith("tracked, 1 in 10") and not s.is_image]
    assert [(s.frame, s.since_prompt) for s in corrected] == [*((t, t) for t in range(1, 10)), (11, 1), (12, 2)]
    plain = [s for s in evaluation.scores if s.prompt == "tracked" and not s.is_image]
    assert [s.dice for s in corrected[:9]] == [s.dice for s in plain[:9]], "earlier frames know nothing of it"
    (without, with_correction) = drifts(evaluation.scores)
    assert without.frames == tuple(range(1, FRAMES))
    assert with_correction.frames == (*range(1, 10), 11, 12)


def test_thinned_loops_keep_their_annotated_frames(tmp_path, model) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (20, HEIGHT, WIDTH), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "video.tif", frames)
    for number in (3, 7, 18):
        save(tmp_path / "masks" / f"{number:04}.png", rectangle(10, 10, 30, 30))
    case = Case("video", tmp_path / "video.tif", (tmp_path / "masks",))
    labelled = LabelledCase(case, every=8)
    assert labelled.numbers == (3, 7, 8, 16, 18)
    assert np.array_equal(labelled.cine.frame(3), frames[16])
    evaluation = evaluate([case], replace(PLAIN, every=8, stills=False, corrections=True), model)
    assert {s.prompt for s in evaluation.scores} == {"tracked"}, "too short for a correction"
    assert [(s.frame, s.since_prompt) for s in evaluation.scores if not s.is_image] == [(7, 4), (18, 15)]


def test_thickness_of_a_muscle_in_mm(tmp_path) -> None:
    layers = [rectangle(10, 5, 20, 70), rectangle(12, 5, 24, 70)]
    case = loop(tmp_path, layers, spacing_mm=(0.1, 0.1))
    tool = copied([case], tmp_path / "thick", lambda labels: labels | np.roll(labels, 3, axis=0))
    evaluation = evaluate([case], PLAIN, others=[tool])
    scores = [s for s in evaluation.scores if s.method == "thick" and not s.is_image]
    assert [s.thickness_error_mm for s in scores] == pytest.approx([0.3, 0.3])
    (drift,) = evaluation.drifts()
    assert drift.mean_thickness_error_mm == pytest.approx(0.3)


def test_a_layer_lies_across_the_image() -> None:
    layer = rectangle(20, 10, 15, 65)
    assert is_layer(layer)
    assert thickness(layer) == 15
    assert not is_layer(rectangle(5, 10, 40, 65)), "too thick"
    assert not is_layer(rectangle(20, 30, 5, 30)), "too short"
    assert not is_layer(np.zeros((HEIGHT, WIDTH), bool))
    assert thickness(np.zeros((HEIGHT, WIDTH), bool)) == 0


# Summaries ------------------------------------------------------------------------------------------------------------


def score(case: str = "a", dice: float = 1.0, group: str | None = None, **more: object) -> Score:
    values = {"hd_px": 1.0, "hd95_px": 1.0, "nsd_px": 1.0, "diagonal_px": 100.0, "jitter": NAN, "since_prompt": None}
    values |= {"iou": dice, "object": "1", "method": "model", "prompt": "point", "frame": 0, "data_set": "set"} | more
    return Score(case=case, group=group or case, dice=dice, **values)


def test_mean_and_spread_by_hand() -> None:
    (row,) = table([score("a", 0.8), score("b", 0.6), score("c", 0.4)], PLAIN)
    dice = row.metrics["dice"]
    assert dice.mean == pytest.approx(0.6)
    assert dice.sd == pytest.approx(0.2)
    assert (dice.low, dice.high) == pytest.approx((0.4, 0.8))
    assert "hd_mm" not in row.metrics


def test_infinite_distances_are_the_diagonal_or_dropped_and_counted() -> None:
    scores = [score("a", hd_px=4.0), score("b", 0.0, hd_px=math.inf, failure="empty")]
    (row,) = table(scores, PLAIN)
    assert row.metrics["hd_px"].mean == 52
    (row,) = table(scores, replace(PLAIN, drop_infinite=True))
    assert (row.metrics["hd_px"].mean, row.metrics["hd_px"].dropped) == (4, 1)
    assert row.metrics["dice"].mean == 0.5
    assert row.failures == {"empty": 1}


def test_the_bootstrap_resamples_whole_subjects() -> None:
    own = statistic([0.0] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50, PLAIN)
    assert (own.low, own.high) == (0, 1), "two subjects: a quarter of the resamples has only one of them"
    alone = statistic([0.0, 1.0], ["a", "a"], PLAIN)
    assert (alone.low, alone.high) == (None, None)
    single = statistic([0.3], ["a"], PLAIN)
    assert (single.mean, single.sd) == (0.3, None)


def test_the_bootstrap_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    own = statistic(values, [str(i) for i in range(400)], replace(PLAIN, resamples=4000))
    half = 1.96 * values.std(ddof=1) / 20
    assert own.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert own.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_reliability_by_hand() -> None:
    scores = [
        score("a", 0.5, predicted_iou=0.95),
        score("b", 0.9, predicted_iou=0.93),
        score("c", 0.2, predicted_iou=0.1),
    ]
    swept = score("a", 0.1, predicted_iou=0.9, prompt="box", jitter=80.0)
    per_set, everything = reliability([*scores, score("d", 0.4), swept], PLAIN)
    assert per_set.count == 3, "what nobody predicted does not count, nor other boxes than the usual"
    assert per_set.mean_absolute_error == pytest.approx((0.45 + 0.03 + 0.1) / 3)
    assert per_set.bias == pytest.approx((0.45 + 0.03 - 0.1) / 3)
    assert [bin[:3] for bin in per_set.bins] == [(0.1, 0.2, 1), (0.9, 1.0, 2)]
    assert per_set.bins[1][3:] == pytest.approx((0.94, 0.7))
    assert (everything.data_set, everything.count) == ("all", 3)


def test_drift_tells_when_a_structure_was_lost() -> None:
    dices = (0.9, 0.7, 0.4, 0.6)
    scores = [score(dice=own, frame=10 + 2 * t, since_prompt=2 * t, prompt="tracked") for t, own in enumerate(dices, 1)]
    (drift,) = drifts(scores[::-1])
    assert drift.frames == (2, 4, 6, 8)
    assert drift.dice == dices
    assert drift.lost_at == 6


def test_the_papers_conventions(cases, tmp_path) -> None:
    """At 1024 px with smooth 1, an empty mask has 1 / (T + 1), and its infinite HD is dropped."""
    settings = PLAIN.as_paper()
    assert (settings.canvas, settings.image_size, settings.smooth, settings.tracking) == (1024, 1024, 1, False)
    settings = replace(settings, canvas=120)
    tool = copied(cases[:1], tmp_path / "nothing", lambda labels: 0 * labels)
    evaluation = evaluate(cases[:1], settings, others=[tool])
    (whole,) = only(evaluation, method="nothing", object=IMAGE)
    area = (30 * 120 // HEIGHT) * (40 * 120 // WIDTH)
    assert whole.dice == pytest.approx(1 / (area + 1))
    assert math.isnan(whole.hd_mm), "stretched pixels have no one size"
    (row,) = (row for row in evaluation.table() if row.method == "nothing" and row.by == "image")
    assert row.metrics["hd_px"].count == 0
    assert row.metrics["hd_px"].dropped == 1
    shifted = copied(cases[:1], tmp_path / "shifted", lambda labels: np.roll(labels, 4, axis=1))
    (whole,) = only(evaluate(cases[:1], settings, others=[shifted]), method="shifted", object=IMAGE)
    assert whole.hd_px == pytest.approx(4 * 120 / WIDTH, abs=1), "in stretched pixels"


def test_markdown() -> None:
    assert markdown(["a", "b"], [["1|2", "x"]]).splitlines() == ["| a    | b   |", "| ---- | --- |", "| 1\\|2 | x   |"]


# Files and the command ------------------------------------------------------------------------------------------------


def test_the_files_stand_alone(cases, model, tmp_path) -> None:
    settings = replace(PLAIN, pictures=2, prompts=("box", "none"), jitter_sweep=(0.0, 40.0))
    tool = copied(cases, tmp_path / "oracle & <co>")
    evaluation = evaluate(cases, settings, model, [tool])
    paths = write_evaluation(evaluation, tmp_path / "out")
    assert [path.name for path in paths] == ["scores.csv", "summary.json", "report.html"]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    assert not any(str(tmp_path) in text for text in texts), "no paths of this machine"

    rows = list(csv.DictReader(io.StringIO(texts[0])))
    assert len(rows) == len(evaluation.scores)
    for row, own in zip(rows, evaluation.scores, strict=True):
        assert float(row["dice"]) == pytest.approx(own.dice, rel=1e-5)
        assert (row["box"] == "") == (own.drawn is None or own.drawn.box is None)

    summary = json.loads(texts[1])
    assert summary["model"]["sha256"] == model.sha256
    assert len(summary["table"]) == len(evaluation.table())

    html = texts[2]
    assert "oracle &amp; &lt;co&gt;" in html
    assert "<co>" not in html
    assert not re.search(r"https?://|<script|<link|@import|url\(", html)
    sources = re.findall(r'src="([^"]*)"', html)
    assert sources
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).width == 300
    for heading in ("Scores", "How much of the score is the box", "Over time", "Worst and best"):
        assert f"<h2>{heading}</h2>" in html
    assert html.count("<svg") >= 3


def test_pictures_show_the_worst_first_and_depend_on_no_order(cases, tmp_path) -> None:
    settings = replace(PLAIN, pictures=2, stills=False)
    loops, tool = cases[2:], copied(cases[2:], tmp_path / "tool")
    for number, width in ((2, 3), (7, 9), (9, 6)):
        path = tmp_path / "tool/loop" / f"{number:03}.png"
        save(path, np.asarray(Image.open(path)) * rectangle(0, 20, HEIGHT, width))
    ((worst, best),) = evaluate(loops, settings, others=[tool]).pictures.values()
    assert [picture.score.frame for picture in worst] == [2, 9]
    assert [picture.score.dice for picture in best] == [1, 1]


def test_the_command(cases, checkpoint, tmp_path, capsys) -> None:
    parts = [replace(case, part=part) for case, part in zip(cases, ("val", "test", "val"), strict=True)]
    write_manifest(Manifest(tuple(parts)), tmp_path / "cases.csv")
    copied(cases, tmp_path / "oracle")
    common = ["evaluate", checkpoint, "--data", str(tmp_path / "cases.csv"), "--device", "cpu"]
    assert main([*common, "--predictions", str(tmp_path / "oracle"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    methods = [line.split("|")[4].strip() for line in printed.splitlines() if line.startswith("| discs")]
    assert methods[:3] == ["model", "ellipse", "oracle"]
    assert (tmp_path / "out/report.html").is_file()

    assert main([*common, "--part", "test", "--preset", "paper", "--image-size", "64", "--prompts", "all"]) == 0
    printed = capsys.readouterr().out
    assert [line.split("|")[2].strip() for line in printed.splitlines() if "| model " in line] == list(PROMPTS)
    assert main([*common, "--no-tracking", "--prompts", "point", "--prompts", "none,3points"]) == 0
    printed = capsys.readouterr().out
    assert {line.split("|")[2].strip() for line in printed.splitlines() if "| model " in line} == set(PROMPTS[:3])


@pytest.mark.parametrize("name", ["scores.csv", "summary.json", "report.html"])
def test_the_command_replaces_only_what_an_evaluation_left(cases, name, tmp_path, capsys) -> None:
    write_manifest(Manifest((replace(cases[0], part="val"),)), tmp_path / "cases.csv")
    copied(cases[:1], tmp_path / "oracle")
    out = tmp_path / "out"
    command = ["evaluate", "--data", str(tmp_path / "cases.csv"), "--predictions", str(tmp_path / "oracle")]
    command += ["--out", str(out), "--pictures", "0"]
    out.mkdir()
    (out / name).write_text("somebody's")
    assert main(command) == 7
    assert f"{name} exists already" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "somebody's")]
    assert main([*command, "--force"]) == main(command) == 0  # our own are replaced
    (out / name).write_text("changed by hand")
    assert main(command) == 7
    assert (out / name).read_text() == "changed by hand"


def test_the_command_tells_of_what_an_earlier_version_left(cases, tmp_path, capsys) -> None:
    write_manifest(Manifest((replace(cases[0], part="val"),)), tmp_path / "cases.csv")
    copied(cases[:1], tmp_path / "oracle")
    summary = tmp_path / "out/summary.json"
    command = ["evaluate", "--data", str(tmp_path / "cases.csv"), "--predictions", str(tmp_path / "oracle")]
    command += ["--out", str(tmp_path / "out"), "--pictures", "0"]
    assert main(command) == 0
    about = json.loads(summary.read_text())
    assert set(about.pop("files")) == {"scores.csv", "report.html"}
    summary.write_text(json.dumps(about))  # as an earlier version wrote it
    assert main(command) == 7
    assert "one of an earlier version did" in capsys.readouterr().err
    assert main([*command, "--force"]) == main(command) == 0


def test_scores_that_were_written_last_before_a_stop_are_our_own(cases, tmp_path, monkeypatch) -> None:
    write_manifest(Manifest((replace(cases[0], part="val"),)), tmp_path / "cases.csv")
    copied(cases[:1], tmp_path / "oracle")
    command = ["evaluate", "--data", str(tmp_path / "cases.csv"), "--predictions", str(tmp_path / "oracle")]
    command += ["--out", str(tmp_path / "out"), "--pictures", "0"]

    def write_and_stop(path: Path, scores: object) -> None:
        write_csv(path, scores)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("napari_uniultra.training.evaluation.run.write_csv", write_and_stop)
        assert main(command) == 130
    assert (tmp_path / "out/scores.csv").is_file()
    assert main(command) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no output that takes nothing")
def test_scores_are_written_also_where_the_table_cannot_be_shown(cases, tmp_path, monkeypatch) -> None:
    write_manifest(Manifest((replace(cases[0], part="val"),)), tmp_path / "cases.csv")
    copied(cases[:1], tmp_path / "oracle")
    command = ["evaluate", "--data", str(tmp_path / "cases.csv"), "--predictions", str(tmp_path / "oracle")]
    with suppress(OSError), Path("/dev/full").open("w", buffering=1) as full:  # closing it tries once more
        monkeypatch.setattr(sys, "stdout", full)
        assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"scores.csv", "summary.json", "report.html"}


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C alone")
def test_what_was_finished_before_the_command_was_stopped_is_kept(checkpoint, tmp_path) -> None:
    cases = [still(tmp_path, f"{number}.png", rectangle(10, 20, 30, 40), part="val") for number in range(200)]
    write_manifest(Manifest(tuple(cases)), tmp_path / "cases.csv")
    command = [sys.executable, "-m", "napari_uniultra.cli", "evaluate", checkpoint, "--prompts", "all"]
    options = ["--data", str(tmp_path / "cases.csv"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    shown = b""
    while b" 2/200" not in shown and (more := process.stderr.read(1)):
        shown += more
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    scored = {row["case"] for row in csv.DictReader((tmp_path / "out/scores.csv").open())}
    assert 2 <= len(scored) == 200 - summary["left"] < 200
    assert f"Stopped before its end: {summary['left']} cases missing" in (tmp_path / "out/report.html").read_text()
    assert f"{summary['left']} cases not reached" in error.decode()


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "nothing to score"),
        (["--predictions", "empty"], "holds no mask of any case"),
        (["uniultra-mini", "--prompts", "boxx"], "boxx"),
        (["uniultra-mini", "--part", "train"], "holds no case"),
        (["--predictions", "nowhere"], "no folder"),
        (["no-such-model"], "no-such-model"),
    ],
)
def test_what_cannot_be_scored_is_said(cases, arguments, words, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_manifest(Manifest((replace(cases[0], part="val"),)), tmp_path / "cases.csv")
    assert main(["evaluate", *arguments, "--data", str(tmp_path / "cases.csv")]) != 0
    error = capsys.readouterr().err
    assert words in error
    assert "unexpected" not in error


def test_real_cases_with_the_bundled_model(shared_data: Path) -> None:
    names = ("still/hc18/images/060_HC.png", "still/usgra/images/0008.png")
    cases = [case for case in select_cases(shared_data, "val") if case.name in names]
    evaluation = evaluate(cases, PLAIN, load_model(device="cpu"))
    head, vessel = ([row for row in evaluation.table() if row.data_set == name] for name in ("hc18", "usgra"))
    assert head[0].metrics["dice"].mean > 0.95
    assert head[0].over_ellipse.mean > 0
    assert 0 < head[0].metrics["hd95_mm"].mean < 5
    assert "hd_mm" not in vessel[0].metrics
