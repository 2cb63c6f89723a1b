"""Batches by step: determinism, ranks, unreadable cases, loops, and what is simulated on the device."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from napari_uniultra.core.settings import ConfigError
from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.manifest import Case, Manifest, write_manifest
from napari_uniultra.training.data.pace import draw_stride, draw_turned
from napari_uniultra.training.data.samples import Batch, Samples, frames_at
from napari_uniultra.training.data.settings import DataSettings
from napari_uniultra.training.data.store import FrameStore


@pytest.fixture(autouse=True)
def _small_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_uniultra.training.data.pool.STILL_SIDE", 64)
    monkeypatch.setattr("napari_uniultra.training.data.pool.CLIP_SIDE", 64)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Six stills of grey 20, 40, ... and a loop of eight frames in which two squares move, one of which goes."""
    cases = []
    for number in range(6):
        mask = np.zeros((48, 60))
        mask[10:34, 12:40] = 255
        image = save(tmp_path / f"{number}.png", np.full((48, 60), 20 + 20 * number))
        cases.append(Case(f"still {number}", image, (save(tmp_path / f"m/{number}.png", mask),), source="stills"))
    for number in range(8):
        labels = np.zeros((48, 60))
        labels[6:18, 4 + 5 * number : 16 + 5 * number] = 1
        if number < 5:
            labels[26:44, 30:50] = 2
        save(tmp_path / f"loop/{number}.png", 60 + 60 * labels)
        save(tmp_path / f"loop_masks/{number}.png", labels)
    cases.append(Case("loop", tmp_path / "loop", (tmp_path / "loop_masks",), source="loops"))
    cases = [*(Case(**{**vars(case), "part": "train"}) for case in cases)]
    path = tmp_path / "manifest.csv"
    write_manifest(Manifest(tuple(cases)), path)
    return path


def data(manifest: Path | None = None, **settings) -> DataSettings:
    small = {"batch": 4, "clip_frames": (2, 3), "simulated_stills": 3, "simulated_clips": 2, "workers": 0}
    return DataSettings(manifests=(str(manifest),) if manifest else (), **(small | settings))


def equal(first: Batch, second: Batch) -> bool:
    return torch.equal(first.images, second.images) and torch.equal(first.masks, second.masks)


def test_a_step_always_gives_the_same_batch(manifest: Path, tmp_path: Path) -> None:
    settings = data(manifest, clip_share=0.5, simulated_share=0.3, simulated_pool=str(tmp_path / "pool"))
    first, again = (Samples(settings, 64, 8, seed=5) for _ in range(2))
    batches = [first[step] for step in range(8)]
    assert all(equal(again[step], batches[step]) for step in reversed(range(8)))
    assert not equal(batches[0], Samples(settings, 64, 8, seed=6)[0])
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.masks.dtype == torch.bool
        assert batch.images.shape == batch.masks.shape
        assert batch.masks[:, 0].flatten(1).any(dim=1).all()
    assert {batch.is_clip for batch in batches} == {True, False}


def test_ranks_draw_other_samples_of_the_same_shape(manifest: Path) -> None:
    settings = data(manifest, clip_share=0.5, image_sizes=(64, 96))
    one, other = (Samples(settings, 64, 8, rank=rank, world=2) for rank in (0, 1))
    for step in range(8):
        assert one[step].images.shape == other[step].images.shape
        assert not equal(one[step], other[step])
    with pytest.raises(ConfigError, match="process 2"):
        Samples(settings, 64, 8, rank=2, world=2)


def test_workers_give_what_one_process_gives(manifest: Path) -> None:
    samples = Samples(data(manifest, clip_share=0.5), 64, 4)
    loader = DataLoader(samples, batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert all(equal(batch, samples[step]) for step, batch in enumerate(loader))


def test_a_small_input_holds_more_frames_for_the_same_cost() -> None:
    assert [frames_at(8, 256, size) for size in (256, 512, 128)] == [8, 2, 32]


def test_sources_are_drawn_evenly_however_many_cases_they_have(manifest: Path) -> None:
    samples = Samples(data(manifest, batch=50, augmentation=0.0), 64, 4)
    greys = torch.cat([samples[step].images.flatten(1).float().amin(dim=1) for step in range(4)])
    # The loop's background is 60, which is a still's grey as well: one of six.
    assert float((greys == 60).float().mean()) == pytest.approx(0.5 + 0.5 / 6, abs=0.1)


# Cases that cannot be read


def test_an_unreadable_image_in_the_middle_of_an_epoch_is_skipped_and_named(manifest: Path) -> None:
    settings = data(manifest, batch=8, augmentation=0.0)
    samples = Samples(settings, 64, 6)
    before = [samples[step] for step in range(6)]
    assert not any(batch.skipped for batch in before)
    samples, others = (Samples(settings, 64, 6) for _ in range(2))
    (manifest.parent / "2.png").write_bytes(b"damaged while the run goes on")
    (manifest.parent / "m/4.png").unlink()
    batches = [samples[step] for step in range(6)]
    skipped = dict(case for batch in batches for case in batch.skipped)
    assert set(skipped) == {"still 2", "still 4"}
    assert "2.png cannot be read" in skipped["still 2"]
    assert all(batch.images.shape == (8, 1, 64, 64) for batch in batches)
    # The next case of the source takes the place of each, and all others stay as they were.
    taken = {60: 80, 100: 120}  # grey of the skipped one: of the one after it
    for old, new in zip(before, batches, strict=True):
        for was, now in zip(old.images[:, 0, 32, 32].tolist(), new.images[:, 0, 32, 32].tolist(), strict=True):
            assert now == was or now == taken.get(was)
    assert all(equal(others[step], batches[step]) for step in (3, 1))


def test_an_empty_mask_is_skipped_and_named(manifest: Path) -> None:
    save(manifest.parent / "m/0.png", np.zeros((48, 60)))
    samples = Samples(data(manifest, batch=16), 64, 3)
    skipped = dict(case for step in range(3) for case in samples[step].skipped)
    assert list(skipped) == ["still 0"]
    assert "empty" in skipped["still 0"]


def test_nothing_readable_at_all_is_an_error(manifest: Path) -> None:
    samples = Samples(data(manifest, batch=30), 64, 3)
    for number in range(6):
        (manifest.parent / f"{number}.png").write_bytes(b"damaged")
    with pytest.raises(ReadError, match="None of the cases of a source"):
        samples[0]


def test_nothing_to_train_on_is_said_at_once(manifest: Path) -> None:
    with pytest.raises(ConfigError, match="no manifest is named"):
        Samples(data(), 64, 3)
    text = manifest.read_text().replace(",train,", ",val,")
    manifest.write_text(text)
    with pytest.raises(ConfigError, match="no case of the part 'train'"):
        Samples(data(manifest), 64, 3)


def test_validation_cases_are_never_drawn(manifest: Path) -> None:
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(line.replace(",train,", ",val,") if "5.png" in line else line for line in lines))
    samples = Samples(data(manifest, batch=40, augmentation=0.0), 64, 4)
    greys = {int(value) for step in range(4) for value in samples[step].images[:, 0, 32, 2].tolist()}
    assert 100 in greys
    assert 120 not in greys


# Loops


def test_a_loop_keeps_to_one_structure(manifest: Path) -> None:
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0], lines[-1]]))
    samples = Samples(data(manifest, batch=4, clip_share=1.0, clip_frames=(4, 4), augmentation=0.0), 64, 30)
    kinds = set()
    for step in range(30):
        batch = samples[step]
        assert batch.masks[0, 0].any()
        # Structure 1 is drawn with grey 120, structure 2 with 180; the border is blurred where a still was moved.
        shown = {
            int(image[mask].median()) for image, mask in zip(batch.images[0], batch.masks[0], strict=True) if mask.any()
        }
        assert len(shown) == 1
        kinds |= shown
    assert kinds == {120, 180}


def test_the_store_keeps_frames_within_its_limit(manifest: Path) -> None:
    cases = Samples(data(manifest), 64, 1).store.cases
    store = FrameStore(cases, 64, limit_bytes=3 * 2 * 64 * 64)
    first = store.get(0, 0)
    assert store.get(0, 0) is first
    for case in range(1, 6):
        store.get(case, 0)
    assert store.get(0, 0) is not first
    assert np.array_equal(store.get(0, 0).image, first.image)


def test_simulated_clips_are_as_long_as_asked(tmp_path: Path) -> None:
    settings = data(simulated_share=1.0, clip_share=1.0, clip_frames=(11, 12), batch=12, simulated_pool=str(tmp_path))
    samples = Samples(settings, 64, 8)
    assert {samples[step].images.shape[1] for step in range(8)} == {11, 12}
    shorter = Samples(data(simulated_share=1.0, clip_frames=(2, 6)), 64, 1)
    assert shorter.pool.clip_frames == 8  # those that pools hold already


def test_clips_run_backwards_where_the_structure_is_still_in_sight() -> None:
    rng, first = np.random.default_rng(0), np.full(4000, 100)
    assert draw_turned(rng, first, np.full(4000, 51)).mean() == pytest.approx(0.5, abs=0.05)
    assert not draw_turned(rng, first, np.full(4000, 50)).any()
    assert draw_turned(rng, first, first).shape == (4000,)


def test_most_clips_take_every_frame_and_others_leave_some_out() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_stride(rng, 3) for _ in range(4000)]
    shares = [drawn.count(stride) / 4000 for stride in (1, 2, 3)]
    assert shares == pytest.approx([0.6 + 0.4 / 3, 0.4 / 3, 0.4 / 3], abs=0.03)
    assert {draw_stride(rng, 0) for _ in range(50)} == {1}  # of a loop that has too few


# Simulated on the device


def test_what_is_simulated_on_the_device_is_added_there(manifest: Path) -> None:
    settings = data(manifest, batch=6, simulated_share=0.5, simulate_on="device", clip_share=0.4)
    samples = Samples(settings, 64, 6)
    for step in range(6):
        lacking = samples[step]
        whole, again = lacking.to("cpu"), pickle.loads(pickle.dumps(samples[step])).to("cpu")
        assert equal(whole, again)
        frames = whole.images.shape[1]
        assert whole.images.shape == (max(6 // frames, 1), frames, 64, 64)
        assert whole.simulated is None
        assert torch.equal(whole.images[: len(lacking.images)], lacking.images)
        assert whole.masks[:, 0].flatten(1).any(dim=1).all()
    assert any(samples[step].simulated for step in range(6))


def test_training_on_simulated_data_alone_needs_no_manifest() -> None:
    batch = Samples(data(simulated_share=1.0, simulate_on="device"), 64, 2)[0]
    assert batch.images.shape == (0, 1, 64, 64)
    assert batch.to("cpu").images.shape == (4, 1, 64, 64)
    assert Samples(data(simulated_share=1.0), 64, 2)[0].images.shape == (4, 1, 64, 64)
