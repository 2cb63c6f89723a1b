"""Masks drawn over the loop, as a video and as a sheet of frames, for a person to look at.

Scanners write the patient's name into the picture, beside the scan area: all but that area is black, unless it is asked
for. Where no scan area is found there is nothing to be seen but the masks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.masks import Masks
from napari_uniultra.core.palette import Colour, colour_of
from napari_uniultra.core.sector import find_sector
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import WriteError

_FILL = 0.25  # opacity inside the contour
_FPS_WHEN_UNKNOWN = 20.0
_CLOCK = 90_000  # ticks per second of a video: the usual one, far finer than any frame time
_SHORTEST_GIF_STEP = 2  # hundredths of a second; viewers show shorter ones far too long
_TILE = 320  # pixels, the longer side of a frame on the contact sheet
_WHITE = (255, 255, 255)


def draw_masks(frame: np.ndarray, labels: np.ndarray, colours: Mapping[int, Colour] | None = None) -> np.ndarray:
    """A frame with the contour and a tint of every object.

    Parameters
    ----------
    frame : ndarray
        (H, W) or (H, W, 3) uint8.
    labels : ndarray
        (H, W) integer labels, 0 for nothing.
    colours : mapping of int to Colour, optional
        Of the objects for which one was chosen.

    Returns
    -------
    ndarray
        (H, W, 3) uint8, a copy.
    """
    picture = np.repeat(frame[..., None], 3, axis=2) if frame.ndim == 2 else frame.copy()
    for object_id in np.unique(labels[labels != 0]):
        mask, colour = labels == object_id, np.array(colour_of(int(object_id), colours))
        picture[mask] = np.rint((1 - _FILL) * picture[mask] + _FILL * colour).astype(np.uint8)
        picture[_contour(mask)] = colour
    return picture


def _contour(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that touch its outside, or the picture's edge, by a side."""
    inside = np.pad(mask, 1)
    surrounded = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return mask & ~surrounded


def write_overlay_video(
    path: str | os.PathLike[str],
    cine: Cine,
    masks: Any,
    names: Mapping[int, str] | None = None,
    fps: float | None = None,
    whole_picture: bool = False,
    colours: Mapping[int, Colour] | None = None,
) -> None:
    """Write the loop with its masks, one frame at a time, at its real speed where that is known.

    As H.264 MP4, or where ``path`` ends in .gif as an animation: its times are rounded to hundredths of a second, and
    frames that come less than two of them after the last one shown are left out.

    Parameters
    ----------
    path : path
    cine : Cine
    masks : array-like
        (T, H, W) integer labels.
    names : mapping of int to str, optional
        Object names, shown in their colours in the upper left corner.
    fps : float, optional
        Frames per second, in place of the loop's own times; 20 when neither is known.
    whole_picture : bool
        Show what lies outside the scan area, too.
    colours : mapping of int to Colour, optional
        Of the objects for which one was chosen.

    Raises
    ------
    WriteError
        When the masks do not fit the loop, or the disk refuses.
    """
    _check(cine, masks)
    ticks, area = _ticks(cine, fps), _shown_area(cine, whole_picture)
    pictures = (
        _labelled(draw_masks(_shown(cine, index, area), np.asarray(masks[index]), colours), names or {}, colours)
        for index in range(len(cine))
    )
    encode = _encode_gif if Path(path).suffix.lower() == ".gif" else _encode_mp4
    with atomic_path(path) as temporary:
        encode(temporary, cine.shape_hw, pictures, ticks)


def write_overlay(path: str | os.PathLike[str], masks: Masks, patient_data: bool = False) -> None:
    """As `write_overlay_video`, of masks that know their loop; names are shown for the objects that have one."""
    write_overlay_video(path, masks.cine, masks.labels, masks.names, whole_picture=patient_data, colours=masks.colours)


def _shown_area(cine: Cine, whole_picture: bool) -> np.ndarray:
    """(H, W) bool, looked for even where the file states a box around it: there may be text in its corners."""
    if whole_picture:
        return np.ones(cine.shape_hw, bool)
    found = find_sector(cine)
    return np.zeros(cine.shape_hw, bool) if found is None else found


def _shown(cine: Cine, index: int, area: np.ndarray) -> np.ndarray:
    """A frame of the loop, black outside an area."""
    frame = cine.frame(index)
    return np.where(area if frame.ndim == 2 else area[..., None], frame, np.uint8(0))


def _encode_gif(path: Path, shape_hw: tuple[int, int], pictures: Iterator[np.ndarray], ticks: np.ndarray) -> None:
    steps = _gif_steps(ticks)
    shown = (picture for frame, picture in enumerate(pictures) if frame in steps)
    first, *rest = (Image.fromarray(picture).quantize(256) for picture in shown)
    options: dict[str, Any] = {"duration": [10 * step for step in steps.values()]} if rest else {}
    first.save(path, format="GIF", save_all=True, append_images=rest, loop=0, optimize=False, **options)


def _gif_steps(ticks: np.ndarray) -> dict[int, int]:
    """The frames that an animation shows, and for how many hundredths of a second; all as long as the loop."""
    last_step = ticks[-1] / max(1, len(ticks) - 1)  # the mean one: how long the last frame lasts is not known
    *times, end = np.rint(np.append(ticks, ticks[-1] + last_step) * 100 / _CLOCK).astype(int).tolist()
    shown = [0]
    for frame, time in enumerate(times):
        if time - times[shown[-1]] >= _SHORTEST_GIF_STEP:
            shown.append(frame)
    steps = np.diff([times[frame] for frame in shown], append=end)
    return dict(zip(shown, np.maximum(steps, _SHORTEST_GIF_STEP).tolist(), strict=True))


def _encode_mp4(path: Path, shape_hw: tuple[int, int], pictures: Iterator[np.ndarray], ticks: np.ndarray) -> None:
    height, width = (side + side % 2 for side in shape_hw)  # H.264 in its common form takes even sizes only
    rate = Fraction(_CLOCK * max(1, len(ticks) - 1), int(max(1, ticks[-1]))).limit_denominator(1000)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _CLOCK)
        for picture, tick in zip(pictures, ticks, strict=True):
            padding = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
            frame = av.VideoFrame.from_ndarray(np.pad(picture, padding, mode="edge"), format="rgb24")
            frame.pts, frame.time_base = int(tick), Fraction(1, _CLOCK)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _ticks(cine: Cine, fps: float | None) -> np.ndarray:
    """When each frame is shown, in ticks, strictly increasing."""
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise WriteError("The overlay video was not written", f"{fps} frames per second is not a speed")
    times = cine.frame_times_s
    if fps is not None or times is None or times[-1] <= times[0]:
        times = np.arange(len(cine)) / (fps or _FPS_WHEN_UNKNOWN)
    ticks = np.rint((times - times[0]) * _CLOCK).astype(np.int64)
    counter = np.arange(len(ticks))
    return np.maximum.accumulate(ticks - counter) + counter  # frames of one and the same time follow a tick apart


def write_contact_sheet(
    path: str | os.PathLike[str],
    cine: Cine,
    masks: Any,
    n: int = 12,
    whole_picture: bool = False,
    colours: Mapping[int, Colour] | None = None,
) -> None:
    """Write ``n`` evenly spaced frames (all, if there are fewer) with contours and frame numbers as one PNG.

    Parameters
    ----------
    path : path
    cine : Cine
    masks : array-like
        (T, H, W) integer labels.
    n : int
        Number of frames, the first and the last among them.
    whole_picture : bool
        Show what lies outside the scan area, too.
    colours : mapping of int to Colour, optional
        Of the objects for which one was chosen.

    Raises
    ------
    WriteError
        When the masks do not fit the loop, or the disk refuses.
    """
    _check(cine, masks)
    area = _shown_area(cine, whole_picture)
    picked = np.unique(np.linspace(0, len(cine) - 1, max(1, n)).round().astype(int))
    scale = min(1.0, _TILE / max(cine.shape_hw))
    height, width = (max(1, round(side * scale)) for side in cine.shape_hw)
    columns = math.ceil(math.sqrt(len(picked) * height / width)) if width < 4 * height else 1
    columns = min(len(picked), columns)
    sheet = Image.new("RGB", (columns * width, math.ceil(len(picked) / columns) * height))
    for place, index in enumerate(picked):
        frame, labels = _shrunk(_shown(cine, int(index), area), np.asarray(masks[int(index)]), (width, height))
        tile = Image.fromarray(draw_masks(frame, labels, colours))
        time = "" if cine.frame_times_s is None else f"  {cine.frame_times_s[index]:.2f} s"
        _write_text(tile, f"{index}{time}", (4, 2), _WHITE)
        sheet.paste(tile, (place % columns * width, place // columns * height))
    save_png(path, sheet)


def _shrunk(frame: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A frame and its labels at another (width, height); contours are drawn afterwards, or they vanish."""
    shrunk = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)
    rows = (np.arange(size[1]) + 0.5) * labels.shape[0] / size[1]
    cols = (np.arange(size[0]) + 0.5) * labels.shape[1] / size[0]
    return np.asarray(shrunk), labels[rows.astype(int)[:, None], cols.astype(int)]


def _labelled(picture: np.ndarray, names: Mapping[int, str], colours: Mapping[int, Colour] | None) -> np.ndarray:
    if not names:
        return picture
    image = Image.fromarray(picture)
    for line, (object_id, name) in enumerate(sorted(names.items())):
        _write_text(image, name, (6, 4 + 16 * line), colour_of(object_id, colours))
    return np.asarray(image)


def _write_text(image: Image.Image, text: str, at: tuple[int, int], colour: Iterable[int]) -> None:
    ImageDraw.Draw(image).text(
        at, text, fill=tuple(colour), font=ImageFont.load_default(13), stroke_width=2, stroke_fill=(0, 0, 0)
    )


def save_png(path: str | os.PathLike[str], image: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    with atomic_path(Path(path)) as temporary:
        image.save(temporary, format="PNG")


def _check(cine: Cine, masks: Any) -> None:
    shape = (len(cine), *cine.shape_hw)
    if tuple(np.shape(masks)) != shape:
        raise WriteError(f"Masks of shape {np.shape(masks)} do not fit the loop", f"it has shape {shape}")
