"""Drawings in napari's layers to prompts and back, against positions worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Points, Shapes

from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import ReadError
from napari_uniultra.plugin.image_layer import transform_of
from napari_uniultra.plugin.layers import (
    Placement,
    affine_of,
    cine_from_layer,
    combined,
    corners_of_box,
    metadata_of,
    points_to_prompts,
    positions_of_points,
    shapes_to_prompts,
    whole_numbers,
)

SHAPE = (10, 40, 60)


def plain(shape: tuple[int, ...] = SHAPE, frame: int = 0) -> Placement:
    """A layer of prompts that lies exactly over its image."""
    eye = np.eye(len(shape) + 1)
    return Placement(eye, eye, shape, frame)


def rectangle(frame: float, top: float, left: float, bottom: float, right: float) -> np.ndarray:
    return np.array([[frame, top, left], [frame, top, right], [frame, bottom, right], [frame, bottom, left]])


def only_box(found) -> tuple[float, ...]:
    ((_, prompt),) = found.prompts.items()
    return prompt.box


def test_a_rectangle_is_the_box_at_pixel_edges() -> None:
    # From the centre of pixel (row 5, column 10) to that of (row 20, column 30), each half a pixel inside its edge.
    found = shapes_to_prompts([rectangle(3, 5, 10, 20, 30)], ["rectangle"], [2], plain())
    assert found.prompts == {(2, 3): Prompt(box=(10.5, 5.5, 30.5, 20.5))}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 0, 1), (1, 0, 3, 2), (3, 2, 1, 0)])
def test_the_corner_where_dragging_began_does_not_matter(order: tuple[int, ...]) -> None:
    corners = rectangle(0, 5, 10, 20, 30)[list(order)]
    assert only_box(shapes_to_prompts([corners], ["rectangle"], [1], plain())) == (10.5, 5.5, 30.5, 20.5)


def test_a_rotated_rectangle_is_the_box_around_its_corners() -> None:
    corners = np.array([[0, 10, 20], [0, 20, 30], [0, 30, 20], [0, 20, 10]])  # a square on its tip
    assert only_box(shapes_to_prompts([corners], ["rectangle"], [1], plain())) == (10.5, 10.5, 30.5, 30.5)


def test_an_ellipse_is_its_own_box_also_when_rotated() -> None:
    angle, half = np.deg2rad(30), np.array([6.0, 15.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = (np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * half) @ turn.T + (20, 30)
    around = np.linspace(0, 2 * np.pi, 10_000)
    outline = np.stack([half[0] * np.sin(around), half[1] * np.cos(around)], axis=1) @ turn.T + (20, 30)
    box = only_box(shapes_to_prompts([corners], ["ellipse"], [1], plain(SHAPE[1:])))
    (top, left), (bottom, right) = outline.min(axis=0) + 0.5, outline.max(axis=0) + 0.5
    assert np.allclose(box, (left, top, right, bottom), atol=1e-3)


def test_outlines_as_masks_hold_the_pixels_whose_centres_they_enclose() -> None:
    triangle = np.array([[0, 5.0, 5.0], [0, 5.0, 25.0], [0, 25.0, 5.0]])
    found = shapes_to_prompts([triangle], ["polygon"], [1], plain(), [True])
    rows, columns = np.indices(SHAPE[1:])
    inside = (rows > 5) & (columns > 5) & (rows + columns < 30)
    on_edge = (rows >= 5) & (columns >= 5) & (rows + columns <= 30)
    mask = found.prompts[1, 0].mask
    assert mask[inside].all()
    assert not mask[~on_edge].any()

    corners = np.array([[9.7, 9.6], [9.7, 40.4], [30.3, 40.4], [30.3, 9.6]])
    found = shapes_to_prompts([corners], ["ellipse"], [1], plain(SHAPE[1:]), [True])
    assert np.array_equal(found.prompts[1, 0].mask, ((rows - 20) / 10.3) ** 2 + ((columns - 25) / 15.4) ** 2 <= 1)
    # A rectangle is a hint for the model all the same.
    found = shapes_to_prompts([corners], ["rectangle"], [1], plain(SHAPE[1:]), [True])
    assert only_box(found) is not None


def test_a_box_beyond_the_image_is_clipped_and_one_beside_it_is_refused() -> None:
    found = shapes_to_prompts(
        [rectangle(0, -10, -10, 15, 15), rectangle(0, 100, 100, 120, 120)], ["rectangle"] * 2, [1, 2], plain()
    )
    assert found.prompts == {(1, 0): Prompt(box=(0, 0, 15.5, 15.5))}
    assert list(found.problems) == [1]
    assert "covers no pixel" in str(found.problems[1])


def test_what_is_no_box_is_named_and_the_rest_still_counts() -> None:
    across = rectangle(0, 5, 5, 9, 9)
    across[2:, 0] = 4
    shapes = [
        np.array([[0, 1, 1], [0, 9, 9]]),
        across,
        rectangle(12, 5, 5, 9, 9),
        rectangle(0, 5, 5, 5.2, 5.2),
        rectangle(1, 5, 5, 9, 9),
    ]
    found = shapes_to_prompts(shapes, ["line", *["rectangle"] * 4], [1] * 5, plain())
    assert list(found.prompts) == [(1, 1)]
    words = {index: str(problem) for index, problem in found.problems.items()}
    assert list(words) == [0, 1, 2, 3]
    assert "line" in words[0]
    assert "several frames" in words[1]
    assert "Frame 12 does not exist" in words[2]
    assert "no size" in words[3]
    assert found.superseded == [3]  # a click with the box tool leaves nothing behind


def test_of_two_boxes_for_an_object_on_a_frame_the_later_counts() -> None:
    shapes = [rectangle(0, 1, 1, 9, 9), rectangle(0, 5, 5, 20, 20), rectangle(0, 2, 2, 8, 8)]
    found = shapes_to_prompts(shapes, ["rectangle"] * 3, [1, 1, 2], plain())
    assert found.prompts[1, 0].box == (5.5, 5.5, 20.5, 20.5)
    assert found.prompts[2, 0].box == (2.5, 2.5, 8.5, 8.5)
    assert found.superseded == [0]


def test_points_are_gathered_by_object_and_nearest_frame() -> None:
    data = [[2.4, 5, 7], [1.6, 6, 8], [2, 9, 9], [9.4, 0, 0]]
    found = points_to_prompts(np.array(data), [1, 0, 1, 1], [1, 1, 3, 1], plain())
    assert found.prompts == {
        (1, 2): Prompt(points=((7.5, 5.5), (8.5, 6.5)), labels=(1, 0)),
        (3, 2): Prompt(points=((9.5, 9.5),), labels=(1,)),
        (1, 9): Prompt(points=((0.5, 0.5),), labels=(1,)),
    }


def test_points_beside_the_image_are_refused_one_by_one() -> None:
    found = points_to_prompts(
        np.array([[0, 5, 5], [0, 5, 90], [0, np.nan, 5], [np.nan, 5, 5]]), [1] * 4, [1] * 4, plain()
    )
    assert found.prompts == {(1, 0): Prompt(points=((5.5, 5.5),), labels=(1,))}
    assert list(found.problems) == [1, 2, 3]


def test_the_edge_of_the_image_belongs_to_it() -> None:
    # Pixel centres on whole numbers: the image reaches from -0.5 to 59.5.
    found = points_to_prompts(np.array([[0, -0.5, -0.5], [0, 39.5, 59.5]]), [1, 1], [1, 1], plain())
    assert found.prompts[1, 0].points == ((0, 0), (60, 40))
    assert not found.problems


def test_boxes_and_clicks_go_together_and_a_mask_stands_alone() -> None:
    box, click = Prompt(box=(1, 1, 5, 5)), Prompt(points=((2, 2),), labels=(1,))
    mask = Prompt(mask=np.ones(SHAPE[1:], bool))
    together = combined({(1, 0): box, (2, 0): mask}, {(1, 0): click, (2, 0): click, (3, 0): click})
    assert together == {(1, 0): Prompt(box=box.box, points=((2, 2),), labels=(1,)), (2, 0): mask, (3, 0): click}


def test_features_that_are_empty_or_not_numbers_take_the_default() -> None:
    assert whole_numbers([2, 3.0, "4", None, float("nan"), "liver", float("inf")], 7) == [2, 3, 4, 7, 7, 7, 7]


# Scale, translation, rotation, flips: real napari layers --------------------------------------------------------------


def random_transform(rng: np.random.Generator) -> dict[str, object]:
    flips = rng.choice([-1.0, 1.0], 2)
    return {
        "scale": (rng.uniform(0.5, 2), *(rng.uniform(0.05, 3, 2) * flips)),
        "translate": rng.uniform(-50, 50, 3),
    }


@pytest.mark.parametrize("seed", range(40))
def test_a_click_in_the_world_lands_on_the_same_pixel_whatever_the_layers_transforms(seed: int) -> None:
    rng = np.random.default_rng(seed)
    of_image, of_points = random_transform(rng), random_transform(rng)
    image = Image(np.zeros(SHAPE, np.uint8), **of_image)
    points = Points(ndim=3, **of_points)
    frame, row, column = rng.integers(0, SHAPE)
    # Where the centre of that pixel is in the world, by hand, and where that is in the layer of points, by hand.
    world = np.array([frame, row, column]) * of_image["scale"] + of_image["translate"]
    points.add((world - of_points["translate"]) / of_points["scale"])
    placement = Placement(affine_of(points), affine_of(image), SHAPE)
    found = points_to_prompts(points.data, [1], [1], placement)
    ((key, prompt),) = found.prompts.items()
    assert key == (1, frame)
    assert np.allclose(prompt.points[0], (column + 0.5, row + 0.5), atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_a_box_in_the_world_is_the_same_box_whatever_the_transforms(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    of_image, of_shapes = random_transform(rng), random_transform(rng)
    image = Image(np.zeros((*SHAPE, 3), np.uint8), rgb=True, **of_image)
    (top, bottom), (left, right) = np.sort(rng.uniform(0, 39, 2)), np.sort(rng.uniform(0, 59, 2))
    corners = rectangle(int(rng.integers(SHAPE[0])), top, left, max(bottom, top + 2), max(right, left + 2))
    world = corners * of_image["scale"] + of_image["translate"]
    shapes = Shapes(ndim=3, **of_shapes)
    shapes.add((world - of_shapes["translate"]) / of_shapes["scale"], shape_type="rectangle")
    placement = Placement(affine_of(shapes), affine_of(image), SHAPE)
    box = only_box(shapes_to_prompts(shapes.data, shapes.shape_type, [1], placement))
    expected = np.array([left, top, max(right, left + 2), max(bottom, top + 2)]) + 0.5
    assert np.allclose(box, np.minimum(expected, (60, 40, 60, 40)), atol=1e-4)


def test_a_rotated_and_sheared_image_passes_its_transform_on() -> None:
    image = Image(np.zeros(SHAPE, np.uint8), scale=(1, 0.3, 0.5), translate=(0, 4, -3), rotate=20, shear=[0, 0, 0.1])
    points = Points(**transform_of(image))
    points.add([4, 12, 34])
    placement = Placement(affine_of(points), affine_of(image), SHAPE)
    assert np.allclose(points_to_prompts(points.data, [1], [1], placement).prompts[1, 4].points, [(34.5, 12.5)])
    loose = Points(ndim=3)
    loose.add(image.data_to_world([4, 12, 34]))
    placement = Placement(affine_of(loose), affine_of(image), SHAPE)
    assert np.allclose(points_to_prompts(loose.data, [1], [1], placement).prompts[1, 4].points, [(34.5, 12.5)])


def test_a_flat_layer_over_a_loop_speaks_of_the_frame_shown() -> None:
    image = Image(np.zeros(SHAPE, np.uint8), scale=(2, 0.5, 0.5), translate=(7, 1, 1))
    points = Points([[6.0, 11.0]], scale=(1, 1))  # world (6, 11): row (6 - 1) / 0.5, column (11 - 1) / 0.5
    placement = Placement(affine_of(points), affine_of(image), SHAPE, frame=6)
    assert points_to_prompts(points.data, [1], [1], placement).prompts == {
        (1, 6): Prompt(points=((20.5, 10.5),), labels=(1,))
    }


def test_a_layer_with_time_over_a_still_uses_its_last_axes() -> None:
    placement = Placement(np.eye(4), np.eye(3), SHAPE[1:])
    found = points_to_prompts(np.array([[5.0, 10, 20]]), [1], [1], placement)
    assert list(found.prompts) == [(1, 0)]


@pytest.mark.parametrize("seed", range(10))
def test_prompts_drawn_into_layers_read_back_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    placement = Placement(
        affine_of(Points(ndim=3, **random_transform(rng))),
        affine_of(Image(np.zeros(SHAPE, np.uint8), **random_transform(rng))),
        SHAPE,
    )
    prompt = Prompt(box=(3.25, 4.5, 30.0, 22.75), points=((5, 5), (20.5, 10.25)), labels=(1, 0))
    boxes = shapes_to_prompts([corners_of_box(prompt, 7, placement)], ["rectangle"], [4], placement)
    clicks = points_to_prompts(positions_of_points(prompt, 7, placement), prompt.labels, [4, 4], placement)
    back = combined(boxes.prompts, clicks.prompts)[4, 7]
    assert np.allclose(back.box, prompt.box)
    assert np.allclose(back.points, prompt.points)
    assert back.labels == prompt.labels


# Loops ----------------------------------------------------------------------------------------------------------------


def test_the_loop_of_a_layer_has_the_spacing_its_reader_found_and_not_the_layers_scale() -> None:
    cine = Cine(np.zeros(SHAPE, np.uint8), spacing_mm=(0.2, 0.3), frame_times_s=np.arange(10) / 25, source="a.dcm")
    image = Image(cine.frames, metadata=metadata_of(cine), scale=(1, 9, 9))
    again = cine_from_layer(image.data, image.rgb, image.metadata)
    assert (again.spacing_mm, again.source) == (cine.spacing_mm, cine.source)
    assert np.array_equal(again.frame_times_s, cine.frame_times_s)
    assert cine_from_layer(image.data, False, {}).spacing_mm is None


def test_times_that_no_longer_fit_a_cropped_layer_are_left_out() -> None:
    cine = Cine(np.zeros(SHAPE, np.uint8), frame_times_s=np.arange(10), sector=np.ones(SHAPE[1:], bool))
    cropped = cine_from_layer(cine.frames[:5, :20], False, metadata_of(cine))
    assert cropped.frame_times_s is None
    assert cropped.sector is None


@pytest.mark.parametrize(
    ("shape", "rgb", "frames_shape"),
    [
        ((40, 60), False, (1, 40, 60)),
        ((40, 60, 3), True, (1, 40, 60, 3)),
        ((5, 40, 60, 4), True, (5, 40, 60, 3)),
        ((5, 40, 60), False, (5, 40, 60)),
    ],
)
def test_stills_and_loops_grey_and_colour(shape, rgb: bool, frames_shape) -> None:
    assert cine_from_layer(np.zeros(shape, np.uint8), rgb).frames.shape == frames_shape


def test_a_volume_over_time_is_refused_with_a_reason() -> None:
    with pytest.raises(ReadError, match="4 dimensions"):
        cine_from_layer(np.zeros((3, 5, 40, 60), np.uint8), False)
