"""Compiled parts give what plain ones give; PyTorch's tracing is real, code is generated in one test alone."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from napari_uniultra.benchmarks.loops import SyntheticLoop, boxes
from napari_uniultra.core.types import Cine
from napari_uniultra.model import compiled
from napari_uniultra.model.build import build_network
from napari_uniultra.model.compiled import Compiled
from napari_uniultra.model.config import LIGHT_MEMORY, architecture
from napari_uniultra.model.load import load_model
from napari_uniultra.model.loaded import Model
from napari_uniultra.segment.session import CineSession

SHAPE_HW = 96, 128


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the generation of code, which takes minutes on a CPU."""
    monkeypatch.setattr(compiled, "_BACKEND", "aot_eager")


def track(model: Model) -> tuple[CineSession, list[dict[int, np.ndarray]]]:
    session = CineSession(Cine(SyntheticLoop(4, SHAPE_HW)), model)
    for object_id, box in enumerate(boxes(2, SHAPE_HW), start=1):
        session.add_box(object_id, 0, box)
    return session, [dict(step.masks) for step in session.propagate()]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == compiled.__name__]


@pytest.mark.usefixtures("traced")
def test_a_compiled_model_tracks_as_a_plain_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="napari_uniultra")
    model = load_model("uniultra-mini", "cpu", compiled=True).at(128)
    plain_session, expected = track(replace(model, compiled=False))
    for _ in range(2):  # the second session compiles nothing anew
        session, found = track(model)
        for own, other in zip(found, expected, strict=True):
            assert all(np.array_equal(own[each], other[each]) for each in (1, 2))
        assert np.abs(session.logits(1, 3) - plain_session.logits(1, 3)).max() < 0.01
    parts = [message.split(" was compiled in ")[0] for message in said(caplog)]
    assert parts == ["The image encoder", "The memory encoder", "The mask decoder"]


@pytest.mark.usefixtures("traced")
def test_the_memory_attention_takes_any_length() -> None:
    """As on GPUs, where sam2's own module is compiled."""
    torch.manual_seed(0)
    network = build_network(architecture("uniultra-mini", image_size=64))
    plain = network.memory_attention
    attend = Compiled(plain, "memory attention", graphs=False)
    with torch.inference_mode():
        for frames, pointers in ((1, 4), (2, 8), (5, 16)):
            given = dict(zip(("curr", "curr_pos"), torch.randn(2, 16, 3, 256), strict=True))
            memory = dict(zip(("memory", "memory_pos"), torch.randn(2, 16 * frames + pointers, 3, 64), strict=True))
            torch.testing.assert_close(
                attend(**given, **memory, num_obj_ptr_tokens=pointers),
                plain(**given, **memory, num_obj_ptr_tokens=pointers),
            )


@pytest.mark.usefixtures("traced")
def test_the_light_memory_attention_takes_frames_and_close_views_in_turn() -> None:
    network = build_network(architecture("uniultra-mini", image_size=64, memory=LIGHT_MEMORY))
    plain = network.memory_attention
    attend = Compiled(plain, "memory attention", graphs=False)
    with torch.inference_mode():
        for side in (4, 8, 4, 16, 8):
            given = dict(zip(("curr", "curr_pos"), torch.randn(2, side**2, 1, 256), strict=True))
            memory = dict(zip(("memory", "memory_pos"), torch.randn(2, side**2 // 4 + 4, 1, 64), strict=True))
            torch.testing.assert_close(
                attend(**given, **memory, num_obj_ptr_tokens=4), plain(**given, **memory, num_obj_ptr_tokens=4)
            )
    assert attend.is_compiled


def test_results_are_in_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_BACKEND", "eager")
    twice = Compiled(lambda x: {"same": x, "both": [x, 2 * x]}, "doubling")
    given = torch.ones(2)
    result = twice(given)
    given.zero_()
    assert result["same"].tolist() == result["both"][0].tolist() == [1, 1]
    assert result["both"][1].tolist() == [2, 2]


def test_what_cannot_be_compiled_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise FileNotFoundError("no compiler")

    monkeypatch.setattr(compiled, "_BACKEND", broken)
    doubled = Compiled(lambda x: 2 * x, "doubling")
    assert [doubled(torch.ones(1)).item() for _ in range(2)] == [2, 2]
    assert said(caplog) == ["The doubling could not be compiled (BackendCompilerFailed); it runs as it is"]


def test_generated_code_gives_the_same_and_is_kept(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kept"))
    x = torch.randn(4, 8)
    result = Compiled(lambda x: (x.relu() + 1).cumsum(1), "sum")(x)
    torch.testing.assert_close(result, (x.relu() + 1).cumsum(1))
    assert any((tmp_path / "kept").rglob("*.py"))


def test_what_is_compiled_too_often_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "_BACKEND", "eager")
    longer = Compiled(lambda x, words: x + len(words), "sum")
    assert [longer(torch.zeros(1), "a" * count).item() for count in range(12)] == list(range(12))
    assert not longer.is_compiled
    assert said(caplog)[-1] == "The sum could not be compiled (FailOnRecompileLimitHit); it runs as it is"
