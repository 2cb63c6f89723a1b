"""CineSession against the official SAM2VideoPredictor: same random weights, same frames, same prompts, same logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sam2 import sam2_video_predictor as official_module

from napari_uniultra.core.types import Cine
from napari_uniultra.model.build import build_network, network_arguments
from napari_uniultra.model.config import LIGHT_MEMORY, MemoryConfig, architecture
from napari_uniultra.model.loaded import Model
from napari_uniultra.model.preprocess import prepare_images
from napari_uniultra.segment.session import CineSession

SIZE, HEIGHT, WIDTH, FRAMES = 128, 90, 120, 7
TOLERANCE = 1e-3


def moving_discs() -> np.ndarray:
    """Two discs that drift over speckle, (T, H, W) uint8."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = rng.gamma(2.0, 25.0, (FRAMES, HEIGHT, WIDTH))
    for t, frame in enumerate(frames):
        frame[(y - 40 - t) ** 2 + (x - 40 - 2 * t) ** 2 < 300] *= 0.2
        frame[(y - 60) ** 2 + (x - 95 + t) ** 2 < 150] *= 2.5
    return frames.clip(0, 255).astype(np.uint8)


def randomise(network: torch.nn.Module) -> None:
    """Random weights under which masks are neither empty nor full, and which reach every part of the network."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "adapter" in name or name.endswith(("gamma", "pos_embed", "no_obj_ptr")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        # Random heads would mostly say that nothing is there, and a blank mask proves nothing.
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)


@pytest.fixture(
    scope="module", params=["uniultra-mini 2.1", "uniultra-mini 2.0", "sam2.1-tiny 2.1", "uniultra-mini 2.1 light"]
)
def pair(request: pytest.FixtureRequest):
    name, version, *light = request.param.split()
    torch.manual_seed(1)
    # The official predictor's steps hold for a light memory too: it is made of modules in the same places.
    memory, rotary_grid = (LIGHT_MEMORY, 16) if light else (MemoryConfig(), None)
    config = architecture(name, image_size=SIZE, version=version, memory=memory, rotary_grid=rotary_grid)
    network = build_network(config)
    randomise(network)
    official = official_module.SAM2VideoPredictor(
        **network_arguments(config), add_all_frames_to_correct_as_cond=True
    ).eval()
    official.load_state_dict(network.state_dict())
    model = Model(network, config, torch.device("cpu"), "random", "0" * 64, {})
    return model, official


class Official:
    """The official predictor on frames in memory; collects its logits at the frames' size."""

    def __init__(self, predictor, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
        images = prepare_images(torch.from_numpy(frames), SIZE)
        # The official code reads JPEG folders and MP4 only; give it the very tensors that ours computes.
        monkeypatch.setattr(official_module, "load_video_frames", lambda **_: (images, HEIGHT, WIDTH))
        self.predictor = predictor
        self.state = predictor.init_state(video_path="unused")

    def prompt(self, object_id: int, frame: int, *, mask=None, **prompts) -> torch.Tensor:
        if mask is not None:
            _, ids, masks = self.predictor.add_new_mask(self.state, frame, object_id, mask)
        else:
            _, ids, masks = self.predictor.add_new_points_or_box(self.state, frame, object_id, **prompts)
        return masks[ids.index(object_id), 0]

    def propagate(self, reverse: bool = False, start: int | None = None) -> dict[tuple[int, int], torch.Tensor]:
        return {
            (object_id, frame): masks[index, 0]
            for frame, ids, masks in self.predictor.propagate_in_video(self.state, start, reverse=reverse)
            for index, object_id in enumerate(ids)
        }


@pytest.fixture
def both(pair, monkeypatch: pytest.MonkeyPatch):
    model, predictor = pair
    frames = moving_discs()
    return CineSession(Cine(frames), model), Official(predictor, frames, monkeypatch)


def ours_at_frame_size(session: CineSession, object_id: int, frame: int) -> torch.Tensor:
    logits = torch.from_numpy(session.logits(object_id, frame))[None, None]
    return torch.nn.functional.interpolate(logits, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)[0, 0]


def assert_same(session: CineSession, object_id: int, frame: int, expected: torch.Tensor) -> None:
    ours = ours_at_frame_size(session, object_id, frame)
    assert expected.std() > 1e-3, "blank logits prove nothing"
    torch.testing.assert_close(ours, expected.cpu(), atol=TOLERANCE, rtol=0)


def assert_propagates_alike(session: CineSession, official: Official, *, reverse: bool = False, start=None) -> None:
    expected = official.propagate(reverse=reverse, start=start)
    assert expected
    for step in session.propagate("backward" if reverse else "forward", start=start):
        for object_id, mask in step.masks.items():
            logits = expected[object_id, step.frame]
            assert_same(session, object_id, step.frame, logits)
            sure = logits.abs().numpy() > TOLERANCE
            assert np.array_equal(mask[sure], (logits > 0).numpy()[sure])


def test_box(both) -> None:
    session, official = both
    box = (20, 18, 62, 64)
    session.add_box(1, 0, box)
    assert_same(session, 1, 0, official.prompt(1, 0, box=box))
    assert_propagates_alike(session, official)


def test_one_point(both) -> None:
    session, official = both
    session.add_points(1, 0, [(40, 40)], [1])
    assert_same(session, 1, 0, official.prompt(1, 0, points=[(40, 40)], labels=[1]))
    assert_propagates_alike(session, official)


def test_positive_and_negative_points_at_once(both) -> None:
    session, official = both
    points, labels = [(40, 40), (95, 60), (44, 35)], [1, 0, 1]
    session.add_points(1, 0, points, labels)
    assert_same(session, 1, 0, official.prompt(1, 0, points=points, labels=labels))
    assert_propagates_alike(session, official)


def test_clicks_that_refine_a_box(both) -> None:
    session, official = both
    session.add_box(1, 0, (20, 18, 62, 64))
    official.prompt(1, 0, box=(20, 18, 62, 64))
    for point, label in [((60, 60), 0), ((40, 44), 1)]:
        session.add_points(1, 0, [point], [label])
        refined = official.prompt(1, 0, points=[point], labels=[label], clear_old_points=False)
        assert_same(session, 1, 0, refined)
    assert_propagates_alike(session, official)


def test_mask(both) -> None:
    session, official = both
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask = (y - 40) ** 2 + (x - 40) ** 2 < 300
    session.add_mask(1, 0, mask)
    assert_same(session, 1, 0, official.prompt(1, 0, mask=mask))
    assert np.array_equal(session.step(0).masks[1], mask)
    expected = official.propagate()
    for step in session.propagate():
        assert_same(session, 1, step.frame, expected[1, step.frame])


def test_a_frame_where_the_object_is_absent(both) -> None:
    session, official = both
    session.add_box(1, 0, (20, 18, 62, 64))
    official.prompt(1, 0, box=(20, 18, 62, 64))
    assert_propagates_alike(session, official)
    session.mark_absent(1, 3)
    official.prompt(1, 3, mask=np.zeros((HEIGHT, WIDTH), bool))
    assert session.step(3).object_score[1] < 0
    assert_propagates_alike(session, official, start=4)


def test_a_click_that_refines_a_mask(both) -> None:
    session, official = both
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask = (y - 40) ** 2 + (x - 40) ** 2 < 300
    session.add_mask(1, 0, mask)
    official.prompt(1, 0, mask=mask)
    session.add_points(1, 0, [(60, 60)], [0])
    assert_same(session, 1, 0, official.prompt(1, 0, points=[(60, 60)], labels=[0]))
    assert_propagates_alike(session, official)


def test_two_objects(both) -> None:
    session, official = both
    session.add_box(1, 0, (20, 18, 62, 64))
    official.prompt(1, 0, box=(20, 18, 62, 64))
    session.add_points(2, 0, [(95, 60)], [1])
    official.prompt(2, 0, points=[(95, 60)], labels=[1])
    assert_propagates_alike(session, official)


def test_an_object_that_starts_later(both) -> None:
    session, official = both
    session.add_box(1, 0, (20, 18, 62, 64))
    official.prompt(1, 0, box=(20, 18, 62, 64))
    session.add_box(2, 4, (80, 45, 105, 75))
    official.prompt(2, 4, box=(80, 45, 105, 75))
    # Before frame 4 the second object has no pointer in its past, and there the official code mixes dtypes and fails.
    assert_propagates_alike(session, official, start=4)


def test_a_correction_on_a_later_frame(both) -> None:
    session, official = both
    session.add_box(1, 0, (20, 18, 62, 64))
    official.prompt(1, 0, box=(20, 18, 62, 64))
    assert_propagates_alike(session, official)
    session.add_points(1, 5, [(50, 45)], [1])
    assert_same(session, 1, 5, official.prompt(1, 5, points=[(50, 45)], labels=[1]))
    session.add_points(1, 5, [(70, 70)], [0])
    corrected = official.prompt(1, 5, points=[(70, 70)], labels=[0], clear_old_points=False)
    assert_same(session, 1, 5, corrected)
    assert_propagates_alike(session, official)


def test_backward(both) -> None:
    session, official = both
    session.add_box(1, FRAMES - 1, (35, 25, 80, 75))
    official.prompt(1, FRAMES - 1, box=(35, 25, 80, 75))
    assert_propagates_alike(session, official, reverse=True)


def test_forward_and_then_backward_from_the_middle(both) -> None:
    session, official = both
    session.add_box(1, 4, (28, 22, 70, 68))
    official.prompt(1, 4, box=(28, 22, 70, 68))
    assert_propagates_alike(session, official)
    assert_propagates_alike(session, official, reverse=True, start=4)
