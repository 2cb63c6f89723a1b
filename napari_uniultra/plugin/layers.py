"""What is drawn in napari's layers, as prompts; an image layer, as a loop. Arrays in, plain data out: no viewer.

napari gives positions as (row, column) or (frame, row, column) with pixel centres on whole numbers, each layer with a
scale, translation, rotation of its own. Prompts are in pixels of the frame, measured at pixel edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from skimage.draw import polygon2mask

from napari_uniultra.core.measure import Markers
from napari_uniultra.core.palette import Colour
from napari_uniultra.core.prompts import (
    checked_mask,
    checked_points,
    normalise_box,
    rowcol_from_xy,
    xy_from_rowcol,
)
from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import PromptError, ReadError

Key = tuple[int, int]  # (object id, frame)

METADATA_KEY = "uniultra"  # where our reader leaves in `layer.metadata` what a napari layer has no field for
_MARKERS, _COLOURS, _IMAGE, _SOURCE = "markers", "colours", "image", "source"
_INDEX, _NAME = "index", "name"  # columns of a Labels layer's features; napari looks labels up by the first
_CLICK_PX = 1.0  # a rectangle smaller than this both ways is a click that was not dragged


@dataclass(frozen=True)
class Placement:
    """Where a layer of prompts lies over the frames of an image.

    Parameters
    ----------
    layer_to_world, image_to_world : ndarray
        Homogeneous matrices (ndim + 1, ndim + 1), as `affine_of` gives them.
    shape : tuple of int
        The image's (T, H, W) or (H, W), without colour.
    frame : int
        The frame that is shown. It stands in where the prompts have no frame of their own: a 2-D layer over a loop.
    """

    layer_to_world: np.ndarray
    image_to_world: np.ndarray
    shape: tuple[int, ...]
    frame: int = 0

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.shape[-2], self.shape[-1]

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions (N, ndim) in the layer's data as frames (N,) float and (row, column) (N, 2) in the image's data."""
        positions = np.asarray(positions, dtype=float)
        world = _apply(self.layer_to_world, positions)
        ndim = len(self.shape)
        if world.shape[1] < ndim:
            # napari aligns layers at their last axes: the missing first one is time, at the frame shown.
            shown = _apply(self.image_to_world, np.array([[self.frame, *[0.0] * (ndim - 1)]]))[0]
            missing = ndim - world.shape[1]
            world = np.hstack([np.tile(shown[:missing], (len(world), 1)), world])
        data = _apply(np.linalg.inv(self.image_to_world), world[:, -ndim:])
        frames = data[:, 0] if ndim == 3 else np.zeros(len(data))
        return frames, data[:, -2:]

    def place(self, frame: int, rowcol: np.ndarray) -> np.ndarray:
        """The inverse of `locate`: (row, column) (N, 2) on ``frame`` as positions (N, ndim) in the layer's data."""
        data = np.asarray(rowcol, dtype=float)
        if len(self.shape) == 3:
            data = np.hstack([np.full((len(data), 1), float(frame)), data])
        world = _apply(self.image_to_world, data)
        ndim = self.layer_to_world.shape[0] - 1
        return _apply(np.linalg.inv(self.layer_to_world), world[:, -ndim:])


def _apply(matrix: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return positions @ matrix[:-1, :-1].T + matrix[:-1, -1]


def affine_of(layer: Any) -> np.ndarray:
    """The matrix (ndim + 1, ndim + 1) from a layer's data to the world: its scale, translation, rotation and shear."""
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)), dtype=float)
    matrix = np.eye(layer.ndim + 1)
    matrix[:-1, -1] = origin
    for axis, unit in enumerate(np.eye(layer.ndim)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(unit), dtype=float) - origin
    return matrix


class _NotDragged(PromptError):
    """A click with a tool that wants to be dragged."""


@dataclass
class Found:
    """What one layer asks for.

    Attributes
    ----------
    prompts : dict
        (object id, frame) to `Prompt`.
    elements : dict
        (object id, frame) to the indices of the layer's elements it was made of.
    superseded : list of int
        Elements to take away: of two boxes for an object on a frame the earlier one, and boxes without a size.
    problems : dict
        Index of an element that cannot be used, to why.
    """

    prompts: dict[Key, Prompt] = field(default_factory=dict)
    elements: dict[Key, list[int]] = field(default_factory=dict)
    superseded: list[int] = field(default_factory=list)
    problems: dict[int, PromptError] = field(default_factory=dict)


def shapes_to_prompts(
    vertices: Sequence[np.ndarray],
    shape_types: Sequence[str],
    object_ids: Sequence[int],
    placement: Placement,
    exact: Sequence[bool] | None = None,
) -> Found:
    """Boxes, and masks where asked for, from the shapes of a Shapes layer.

    Parameters
    ----------
    vertices : sequence of ndarray
        One (N, ndim) array per shape, as ``layer.data``.
    shape_types : sequence of str
        ``layer.shape_type``. A rectangle, moved and rotated as it may be, is the box around its corners.
    object_ids : sequence of int
    placement : Placement
    exact : sequence of bool, optional
        One per shape: take an ellipse, polygon or path as the filled outline it is, instead of the box around it.
    """
    found = Found()
    exact = [False] * len(vertices) if exact is None else exact
    for index, (shape, kind, object_id) in enumerate(zip(vertices, shape_types, object_ids, strict=True)):
        try:
            frames, rowcol = placement.locate(shape)
            key = int(object_id), _single_frame(frames, placement)
            prompt = _prompt_of_shape(rowcol, str(kind), placement.shape_hw, exact[index])
        except PromptError as error:
            found.problems[index] = error
            if isinstance(error, _NotDragged):
                found.superseded.append(index)
            continue
        found.superseded += found.elements.get(key, [])
        found.prompts[key], found.elements[key] = prompt, [index]
    return found


def _prompt_of_shape(rowcol: np.ndarray, kind: str, shape_hw: tuple[int, int], exact: bool) -> Prompt:
    if kind == "line" or len(rowcol) < 3:
        raise PromptError("A line does not enclose anything", fix="Draw a box, an ellipse or a polygon")
    extent = _ellipse_extent(rowcol) if kind == "ellipse" else np.array([rowcol.min(axis=0), rowcol.max(axis=0)])
    if kind != "rectangle" and exact:
        mask = _filled_ellipse(rowcol, shape_hw) if kind == "ellipse" else polygon2mask(shape_hw, rowcol)
        return Prompt(mask=checked_mask(mask, shape_hw))
    if np.ptp(extent, axis=0).max() < _CLICK_PX:
        raise _NotDragged("The box has no size", fix="Press at one corner, drag to the other and let go")
    return Prompt(box=normalise_box(xy_from_rowcol(extent).ravel(), shape_hw))


def _ellipse_axes(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and the two half axes of the ellipse that napari describes by the corners (4, 2) of the box around it."""
    return corners.mean(axis=0), (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2


def _ellipse_extent(corners: np.ndarray) -> np.ndarray:
    centre, first, second = _ellipse_axes(corners)
    half = np.hypot(first, second)
    return np.array([centre - half, centre + half])


def _filled_ellipse(corners: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
    centre, first, second = _ellipse_axes(corners)
    axes = np.column_stack([first, second])
    if abs(np.linalg.det(axes)) < 1e-9:
        raise _NotDragged("The ellipse has no size", fix="Press at one corner, drag to the other and let go")
    pixels = np.moveaxis(np.indices(shape_hw), 0, -1) - centre
    return (np.square(pixels @ np.linalg.inv(axes).T).sum(axis=-1)) <= 1


def points_to_prompts(
    data: np.ndarray, labels: Sequence[int], object_ids: Sequence[int], placement: Placement
) -> Found:
    """Clicks from the points of a Points layer.

    Parameters
    ----------
    data : ndarray
        (N, ndim), as ``layer.data``. Frame coordinates may be fractions: they go to the nearest frame.
    labels : sequence of int
        1 to add, 0 to remove.
    object_ids : sequence of int
    placement : Placement
    """
    found = Found()
    data = np.asarray(data, dtype=float)
    if not len(data):
        return found
    frames, rowcol = placement.locate(data)
    gathered: dict[Key, list[tuple[tuple[float, float], int]]] = {}
    for index, (label, object_id) in enumerate(zip(labels, object_ids, strict=True)):
        try:
            key = int(object_id), _single_frame(frames[index : index + 1], placement)
            (point,) = checked_points([xy_from_rowcol(rowcol[index])], placement.shape_hw)
        except PromptError as error:
            found.problems[index] = error
            continue
        gathered.setdefault(key, []).append((point, int(label)))
        found.elements.setdefault(key, []).append(index)
    for key, clicks in gathered.items():
        points, signs = zip(*clicks, strict=True)
        found.prompts[key] = Prompt(points=points, labels=signs)
    return found


def _single_frame(frames: np.ndarray, placement: Placement) -> int:
    rounded = np.unique(np.floor(np.asarray(frames, dtype=float) + 0.5))
    if len(rounded) != 1 or not np.isfinite(rounded[0]):
        raise PromptError("The shape lies across several frames", fix="Show whole frames, then draw it on one of them")
    frame, count = int(rounded[0]), placement.shape[0] if len(placement.shape) == 3 else 1
    if not 0 <= frame < count:
        raise PromptError(f"Frame {frame} does not exist", f"the loop has frames 0 to {count - 1}")
    return frame


def combined(boxes: Mapping[Key, Prompt], clicks: Mapping[Key, Prompt]) -> dict[Key, Prompt]:
    """One prompt per object and frame from those of the two layers; a mask is the answer, and clicks yield to it."""
    result = dict(clicks)
    for key, prompt in boxes.items():
        click = clicks.get(key)
        if click is None or prompt.mask is not None:
            result[key] = prompt
        else:
            result[key] = Prompt(box=prompt.box, points=click.points, labels=click.labels)
    return result


def corners_of_box(prompt: Prompt, frame: int, placement: Placement) -> np.ndarray:
    """The rectangle (4, ndim) that shows a prompt's box in a Shapes layer."""
    x0, y0, x1, y1 = prompt.box
    return placement.place(frame, rowcol_from_xy([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]))


def positions_of_points(prompt: Prompt, frame: int, placement: Placement) -> np.ndarray:
    """The positions (N, ndim) that show a prompt's clicks in a Points layer."""
    return placement.place(frame, rowcol_from_xy(prompt.points))


def whole_numbers(values: Iterable[Any], default: int) -> list[int]:
    """A column of a layer's features as integers; ``default`` where it is empty or not a number."""
    result = []
    for value in values:
        try:
            result.append(int(float(value)))
        except (TypeError, ValueError, OverflowError):
            result.append(default)
    return result


def names_of_objects(features: Any) -> dict[int, str]:
    """Object id to name, from the features of a Labels layer, as `features_of_names` has them."""
    if features is None or not {_INDEX, _NAME} <= set(features):
        return {}
    ids = whole_numbers(features[_INDEX], default=0)
    return {object_id: str(name) for object_id, name in zip(ids, features[_NAME], strict=True) if object_id > 0}


def features_of_names(names: Mapping[int, str], others: Any = None) -> dict[str, Any]:
    """The features of a Labels layer that hold the names of its objects; napari shows them under the pointer.

    Of ``others``, features that the layer had before, other columns stay, for the same objects.
    """
    ids = [0, *sorted(names)]
    features = {_INDEX: ids, _NAME: ["", *(names[object_id] for object_id in ids[1:])]}
    if others is not None and _INDEX in others:
        by_id = others.drop_duplicates(_INDEX).set_index(_INDEX).reindex(ids)
        features |= {name: by_id[name].to_numpy() for name in by_id if name != _NAME}
    return features


def colours_in(metadata: Mapping[str, Any] | None) -> dict[int, Colour]:
    """Object id to colour, from the metadata of a layer of masks."""
    return dict((metadata or {}).get(METADATA_KEY, {}).get(_COLOURS, {}))


def set_colours(layer: Any, colours: Mapping[int, Colour]) -> None:
    """Keep the objects' colours with a layer of masks: what is saved has them."""
    if dict(colours) != colours_in(layer.metadata):
        known = {**layer.metadata.get(METADATA_KEY, {}), _COLOURS: dict(colours)}
        layer.metadata = {**layer.metadata, METADATA_KEY: known}


def cine_of_layer(layer: Any) -> Cine:
    """The loop of an image layer, as it is now.

    Raises
    ------
    ReadError
        When the layer is not a loop or a still.
    """
    return cine_from_layer(layer.data[0] if layer.multiscale else layer.data, layer.rgb, layer.metadata)


def cine_from_layer(data: Any, rgb: bool, metadata: Mapping[str, Any] | None = None) -> Cine:
    """The loop of an image layer.

    Parameters
    ----------
    data : array-like
        ``layer.data``: (T, H, W[, 3 or 4]) or (H, W[, 3 or 4]); of a multiscale layer, the finest level.
    rgb : bool
        ``layer.rgb``.
    metadata : mapping, optional
        ``layer.metadata``. Spacing, times and scan area come from what our reader left there and fit the data;
        a layer's scale may be anything, and is not taken for millimetres.

    Raises
    ------
    ReadError
        When the layer is not a loop or a still.
    """
    ndim = len(data.shape) - (1 if rgb else 0)
    if ndim not in (2, 3):
        raise ReadError(
            f"The image has {ndim} dimensions, but a loop has three (time, row, column)",
            fix="Split its channels or volumes into layers of their own first",
        )
    frames = np.asarray(data)[None] if ndim == 2 else data
    known = (metadata or {}).get(METADATA_KEY, {})
    times, sector = known.get("frame_times_s"), known.get("sector")
    return Cine(
        frames,
        spacing_mm=known.get("spacing_mm"),
        frame_times_s=times if times is not None and len(times) == frames.shape[0] else None,
        sector=sector if sector is not None and np.shape(sector) == tuple(frames.shape[1:3]) else None,
        source=known.get(_SOURCE, ""),
        details=known.get("details", {}),
    )


def metadata_for_masks(image: Any) -> dict[str, Any]:
    """The metadata of a new layer of masks of an image: what is known of the loop, and which layer it is."""
    return {METADATA_KEY: {**image.metadata.get(METADATA_KEY, {}), _IMAGE: image.unique_id}}


def metadata_for_marks(image: Any) -> dict[str, Any]:
    """The metadata of a new layer of boxes or clicks on an image: which layer that is."""
    return {METADATA_KEY: {_IMAGE: image.unique_id}}


def disown(layer: Any) -> None:
    """Let a layer of masks or marks say no more of which image it is."""
    known = {name: value for name, value in layer.metadata.get(METADATA_KEY, {}).items() if name != _IMAGE}
    layer.metadata = {**layer.metadata, METADATA_KEY: known}


def names_image(layer: Any, image: Any) -> bool | None:
    """Whether a layer of masks or marks says that it is of an image; None where it does not say of which."""
    named = layer.metadata.get(METADATA_KEY, {}).get(_IMAGE)
    return None if named is None else bool(named == image.unique_id)


def same_source(layer: Any, image: Any) -> bool:
    """Whether what two layers show is of the same file, as far as both know."""
    known, other = (own.metadata.get(METADATA_KEY, {}) for own in (layer, image))
    return _SOURCE in known and known[_SOURCE] == other.get(_SOURCE)


def markers_of(layer: Any) -> Markers:
    """The heart cycles and long axes that were set by hand on a layer of masks."""
    return layer.metadata.get(METADATA_KEY, {}).get(_MARKERS) or Markers()


def set_markers(layer: Any, markers: Markers) -> None:
    """Keep the markers with a layer of masks; its ``events.metadata`` tells those who listen."""
    if markers != markers_of(layer):
        known = {**layer.metadata.get(METADATA_KEY, {}), _MARKERS: markers}
        layer.metadata = {**layer.metadata, METADATA_KEY: known}


def metadata_of(cine: Cine) -> dict[str, Any]:
    """What `cine_from_layer` needs to find a loop again from its image layer."""
    known = {
        "spacing_mm": cine.spacing_mm,
        "frame_times_s": cine.frame_times_s,
        "sector": cine.sector,
        _SOURCE: cine.source,
        "details": dict(cine.details),
    }
    return {METADATA_KEY: known}
