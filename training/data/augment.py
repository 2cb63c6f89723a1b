"""Augmentation of ultrasound loops: what a probe, a patient and a machine's knobs may change, once for a whole loop.

Loops come in batches and stay on their device; what is random is drawn on the host, except for noise in each pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from napari_uniultra.training.data.prompts import tight_boxes
from napari_uniultra.training.data.simulate_anatomy import noise_grid
from napari_uniultra.training.data.simulate_scan import Columns, smoothed, smoothing
from napari_uniultra.training.data.smooth_noise import gaussian, smooth_noise

MIN_PIXELS = 40  # of a structure that is still worth asking for
_SHADOW, _HAZE, _SPECKLE, _MARK = 0.2, 0.1, 0.15, 0.15  # the shares of loops that get them
_BLACK = 0.004  # of white: below it is no tissue, but what surrounds the scanned area
_MOST_SUBSAMPLES = 4
_CLOSE = 1.6, 4.0  # sides of close views, relative to the structure's
_CUT, _CUT_SIDES = 0.35, (0.4, 1.1)  # the share of close views in which a part is seen alone, and their sides


def look(
    rng: Generator, images: Tensor, masks: Tensor, size: int, strength: float = 1.0, close: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Loops as another probe position and other machine settings might show them: one of each for a whole loop.

    Parameters
    ----------
    rng : Generator
    images : (B, T, N, N) uint8
    masks : (B, T, N, N) bool
        One structure a loop, there on the first frame; it stays in view there.
    size : int
        Side of the result, S.
    strength : float
        0 only changes the size.
    close : float
        The share of loops seen as a zoomed tracking sees them: the structure in the middle, with some margin; or a part
        of it, as a view around a click may show a structure that is larger than was thought.

    Returns
    -------
    images : (B, T, S, S) uint8
    masks : (B, T, S, S) bool
    """
    boxes = _boxes(masks[:, 0]).cpu().numpy()
    views = np.stack([draw_view(rng, box, strength, is_close=close > 0 and rng.random() < close) for box in boxes])
    changes = [draw_grey_change(rng, strength) for _ in boxes]
    noise = torch.Generator(images.device).manual_seed(int(rng.integers(1 << 62)))
    seen, found = view(images, masks, views, size)
    lost = (found[:, 0].sum(dim=(1, 2)) < MIN_PIXELS).cpu().numpy()
    if lost.any():  # a small structure, or one at the edge: look at it closely instead
        views[lost] = [_close_view(box) for box in boxes[lost]]
        seen, found = view(images, masks, views, size)
    return to_uint8(change_grey(seen, changes, noise)), found


def draw_view(rng: Generator, box: np.ndarray, strength: float = 1.0, is_close: bool = False) -> np.ndarray:
    """A random view of a frame as a (2, 3) matrix for ``F.affine_grid``, in which a structure stays in sight.

    Parameters
    ----------
    box : (4,) ndarray
        Around the structure: x0, y0, x1, y1 in shares of the frame's side.
    is_close : bool
        With the structure near the middle of a view that is 1.6 to 4 times as large as it, or cut by a smaller one.
    """
    centre = box[:2] + box[2:] - 1
    extent = float(max(box[2:] - box[:2])) + 1e-3
    # The view's side relative to the frame: below 1 zooms in. Large structures are not zoomed out of the view.
    zoom = np.exp(rng.normal(-0.1, 0.35) * strength) if strength else 1.0
    zoom = np.clip(zoom, min(1.0, 0.9 * extent + 0.15), 1.7)
    is_cut = is_close and rng.random() < _CUT
    if is_close:
        zoom = float(np.clip(extent * np.exp(rng.uniform(*np.log(_CUT_SIDES if is_cut else _CLOSE))), 0.1, 1.7))
    aspect = np.exp(rng.normal(0, 0.16) * strength)
    angle = np.deg2rad(rng.normal(0, 12) * strength)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([zoom * aspect**0.5, zoom / aspect**0.5])
    if rng.random() < 0.5 and strength > 0:
        matrix[:, 0] *= -1
    if rng.random() < 0.05 and strength > 0:
        matrix[:, 1] *= -1
    # Zoomed in, look anywhere that keeps the structure in the view; zoomed out, near the middle.
    slack = 0.15 * zoom if is_close else max(zoom - extent, 0.1 * zoom)
    if is_cut:
        slack = 0.6 * (box[2:] - box[:2])
    offset = rng.uniform(-1, 1, 2) * max(1 - zoom, 0.12 * strength)
    if is_close:
        offset = centre + rng.uniform(-1, 1, 2) * slack
    offset = np.clip(offset, centre - slack, centre + slack) if strength or is_close else np.zeros(2)
    return np.concatenate([matrix, offset[:, None]], axis=1)


def _close_view(box: np.ndarray) -> np.ndarray:
    """A view (2, 3) of a structure with as much again around it."""
    zoom = float(np.clip(3 * max(box[2:] - box[:2]), 0.1, 1))
    return np.concatenate([np.eye(2) * zoom, np.clip(box[:2] + box[2:] - 1, zoom - 1, 1 - zoom)[:, None]], axis=1)


def view(images: Tensor, masks: Tensor, views: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """Look at loops through matrices (B, 2, 3).

    Returns
    -------
    images : (B, T, S, S) float32 of 0 to 1, black outside the frame
    masks : (B, T, S, S) bool
    """
    frames = images.shape[1]
    side = np.sqrt(np.abs(np.linalg.det(views[:, :, :2]))).max()
    # Shrinking by single samples would turn speckle into noise: take the mean of several in a pixel.
    several = min(max(math.ceil(side * images.shape[-1] / size - 0.25), 1), _MOST_SUBSAMPLES)
    matrices = torch.from_numpy(views.astype(np.float32)).to(images.device)
    grid = F.affine_grid(matrices, [len(images), 1, size * several, size * several], align_corners=False)
    stack = torch.cat([images / 255, masks.float()], dim=1)
    seen = F.avg_pool2d(F.grid_sample(stack, grid, align_corners=False), several)
    return seen[:, :frames], seen[:, frames:] >= 0.5


@dataclass(frozen=True)
class GreyChange:
    """One draw of the machine's knobs and of what disturbs an image.

    Attributes
    ----------
    gamma, gain, offset : float
    side_gain : float
        Brighter to one side.
    tgc : (G, 1) ndarray
        Control points of the gain over depth, natural logarithm.
    blur : float
        In pixels.
    noise : float
        Of the electronics, relative to white.
    speckle, speckle_size : float
        Multiplied onto the image; the size is in pixels.
    shadow : (float, float, float)
        Where across, how wide, how deep.
    haze : float
        A bright veil, relative to white, strongest near the probe.
    haze_grid : (G, G) ndarray
    mark : (float, float, float, float, float)
        A burnt-in bar: left, top, width, height, grey; of height 0 for none.
    """

    gamma: float
    gain: float
    offset: float
    side_gain: float
    tgc: np.ndarray
    blur: float
    noise: float
    speckle: float
    speckle_size: float
    shadow: tuple[float, float, float]
    haze: float
    haze_grid: np.ndarray
    mark: tuple[float, float, float, float, float]


def draw_grey_change(rng: Generator, strength: float = 1.0) -> GreyChange:
    """The settings of one loop."""
    blur = rng.uniform(-1.0, 1.2) * strength
    return GreyChange(
        gamma=float(np.exp(rng.normal(0, 0.3) * strength)),
        gain=float(np.exp(rng.normal(0, 0.25) * strength)),
        offset=float(rng.normal(0, 0.03) * strength),
        side_gain=float(rng.normal(0, 0.2) * strength),
        tgc=rng.normal(0, 0.3, (6, 1)).astype(np.float32) * strength,
        blur=float(blur) if blur > 0.2 else 0.0,
        noise=float(max(rng.uniform(-0.04, 0.05), 0) * strength),
        speckle=float(rng.uniform(0.1, 0.5) * strength) if rng.random() < _SPECKLE else 0.0,
        speckle_size=float(rng.uniform(0.5, 2)),
        shadow=(float(rng.uniform(0, 1)), float(rng.uniform(0.02, 0.12)), float(rng.uniform(0.3, 1)) * strength)
        if rng.random() < _SHADOW
        else (0.5, 1.0, 0.0),
        haze=float(rng.uniform(0.05, 0.3) * strength) if rng.random() < _HAZE else 0.0,
        haze_grid=noise_grid(rng, 3),
        mark=tuple(rng.uniform(0, 1, 5)) if rng.random() < _MARK * strength else (0.0,) * 5,
    )


def change_grey(images: Tensor, changes: list[GreyChange], noise: torch.Generator) -> Tensor:
    """Apply the settings of each loop to images (B, T, S, S) float32 of 0 to 1; what is black around the scan stays so.

    Parameters
    ----------
    noise : torch.Generator
        On the images' device; noise differs from frame to frame.
    """
    count, _, size, _ = images.shape
    device = images.device
    names = ("gamma", "gain", "offset", "side_gain", "noise", "speckle", "haze")
    columns = Columns(changes, names, device)
    of = {name: getattr(columns, name)[:, None] for name in names}
    place = (torch.arange(size, device=device) + 0.5) / size
    changed = images.clamp(0, 1) ** of["gamma"] * of["gain"]
    across = of["side_gain"] * (2 * place - 1)
    changed = changed * torch.exp(_curve(changes, size, device) + across)
    if any(change.shadow[2] for change in changes):
        centre, width, depth = _numbers([change.shadow for change in changes], device)
        changed = changed * (1 - depth * gaussian((place - centre) / width))
    if any(change.haze for change in changes):
        veil = torch.sigmoid(smooth_noise([change.haze_grid for change in changes], size, device))
        changed = changed + of["haze"] * (veil * torch.exp(-2 * place)[:, None])[:, None]
    if any(change.speckle for change in changes):
        grain = torch.randn(images.shape, generator=noise, device=device)
        spread = smoothing([change.speckle_size for change in changes], size, device, unit_power=True)
        changed = changed * (1 + of["speckle"] * smoothed(grain, spread, spread))
    spread = smoothing([change.blur for change in changes], size, device)
    changed = smoothed(changed, spread, spread) + of["offset"]
    if any(change.noise for change in changes):
        changed = changed + of["noise"] * torch.randn(images.shape, generator=noise, device=device)
    changed = torch.where(images > _BLACK, changed, images)
    for index in range(count):
        _burn_in(changed[index], changes[index].mark)
    return changed.clamp(0, 1)


def to_uint8(images: Tensor) -> Tensor:
    """Grey of 0 to 1 as frames."""
    return (images.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _curve(changes: list[GreyChange], size: int, device: torch.device) -> Tensor:
    """The time-gain compensation of each loop, (B, 1, S, 1)."""
    points = torch.from_numpy(np.stack([change.tgc for change in changes]))[:, None].to(device)
    return F.interpolate(points, (size, 1), mode="bicubic", align_corners=True)


def _numbers(rows: list[tuple[float, ...]], device: torch.device) -> list[Tensor]:
    """Each item of the rows as (B, 1, 1, 1)."""
    return [column[:, None, None, None] for column in torch.tensor(rows, dtype=torch.float32, device=device).unbind(1)]


def _burn_in(frames: Tensor, mark: tuple[float, float, float, float, float]) -> None:
    """Draw a bar, as of text or a scale, on all frames (T, S, S) of a loop."""
    left, top, width, height, grey = mark
    if height > 0:
        size = frames.shape[-1]
        row, column = int(top * size), int(left * size)
        frames[:, row : row + int(height * size * 0.1) + 1, column : column + int(width * size * 0.15) + 1] = grey


def _boxes(masks: Tensor) -> Tensor:
    """Around masks (B, N, N), (B, 4) x0, y0, x1, y1 in shares of the side."""
    return tight_boxes(masks) / masks.shape[-1]
