"""Arrays of all kinds as frames: uint8 is left alone, everything else is mapped by its range."""

from __future__ import annotations

import numpy as np
import pytest

from napari_uniultra.core.frames import as_frames
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(4, 20, 30), (4, 20, 30, 3)])
def test_uint8_is_passed_through(shape: tuple[int, ...]) -> None:
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    assert as_frames(pixels) is pixels


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((20, 30), (1, 20, 30)),
        ((20, 30, 3), (1, 20, 30, 3)),
        ((20, 30, 4), (1, 20, 30, 3)),
        ((4, 20, 30, 1), (4, 20, 30)),
        ((4, 20, 30, 4), (4, 20, 30, 3)),
        ((1500, 64), (1, 1500, 64)),
        ((2, 37, 1500), (2, 37, 1500)),
    ],
)
def test_shapes(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    cine = Cine(pixels)
    assert cine.frames.shape == expected
    without_alpha = pixels[..., :3] if shape[-1] == 4 else pixels
    np.testing.assert_array_equal(np.asarray(cine.frames), without_alpha.reshape(expected))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_other_types_are_mapped_by_the_range_of_the_loop(dtype: type) -> None:
    pixels = RNG.integers(-100 if dtype != np.uint16 else 0, 4000, (5, 20, 30)).astype(dtype)
    low, high = float(pixels.min()), float(pixels.max())
    exact = (pixels.astype(float) - low) * 255 / (high - low)
    np.testing.assert_allclose(np.asarray(as_frames(pixels)), exact, atol=0.5 + 1e-9)


def test_nan_and_infinity_are_black() -> None:
    pixels = RNG.uniform(5, 9, (3, 20, 30))
    pixels[0, 0, :4] = [np.nan, np.inf, -np.inf, 9.0]
    pixels[1] = np.nan
    frames = as_frames(pixels)
    assert frames[0][0, :4].tolist() == [0, 0, 0, 255]
    assert not frames[1].any()


@pytest.mark.parametrize("value", [7.5, np.nan, np.uint16(9)])
def test_a_constant_loop_is_black(value: float) -> None:
    assert not np.asarray(as_frames(np.full((2, 9, 9), value))).any()


def test_booleans_and_lists() -> None:
    np.testing.assert_array_equal(np.asarray(as_frames([[[False, True], [True, False]]])), [[[0, 255], [255, 0]]])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 9, 9), np.uint8),
        np.zeros((3, 0, 9), np.uint8),
        np.zeros(9, np.uint8),
        np.zeros((2, 3, 9, 9, 3), np.uint8),
        np.zeros((2, 9, 9, 2), np.uint8),
        np.zeros((2, 9, 9), complex),
        np.array([[["a", "b"]]]),
    ],
)
def test_what_is_no_loop_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ReadError):
        as_frames(pixels)


@pytest.mark.parametrize(
    "changes",
    [
        {"spacing_mm": (0, 1)},
        {"spacing_mm": (1, float("nan"))},
        {"spacing_mm": 0.2},
        {"spacing_mm": (0.2,)},
        {"spacing_mm": "mm"},
        {"frame_times_s": [0, 1]},
        {"frame_times_s": [0, 2, 1]},
        {"frame_times_s": [0, 1, float("inf")]},
        {"sector": np.ones((9, 8), bool)},
    ],
)
def test_what_does_not_describe_the_loop_is_refused(changes: dict) -> None:
    with pytest.raises(ReadError):
        Cine(np.zeros((3, 9, 9), np.uint8), **changes)


def test_key_follows_the_content() -> None:
    pixels = RNG.integers(0, 256, (20, 20, 30), dtype=np.uint8)
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    assert Cine(pixels, source="a").key == Cine(pixels.copy(), source="b").key
    assert Cine(pixels).key != Cine(other).key
