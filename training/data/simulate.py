"""A simulator of ultrasound: layered tissue with structures in it, speckle, shadows and sectors, with exact masks.

It is statistical rather than physical: complex Gaussian scatterers scaled by the tissue's echogenicity, seen through an
anisotropic point-spread function, log-compressed. Everything follows from the seed. What it makes is varied on purpose,
so that a model trained on it also works on organs that no training set holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from scipy import ndimage

_MIN_AREA = 0.001  # of the image; smaller remains of a structure are no target


@dataclass(frozen=True)
class Scene:
    """Tissue before it is scanned.

    Attributes
    ----------
    echo : (N, N) float32
        Natural logarithm of the scatterers' amplitude.
    masks : (K, N, N) bool
        The structures, which may lie inside one another.
    """

    echo: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class Scanner:
    """How a scene is seen; one for all frames of a clip.

    Attributes
    ----------
    psf : tuple of float
        Standard deviations of the point-spread function in pixels, axial and lateral.
    dynamic_range_db, gamma, gain, offset, blur : float
        Log compression and the grey curve after it; ``blur`` in pixels.
    field : (N, N) bool
        The part of the image that is scanned.
    """

    psf: tuple[float, float]
    dynamic_range_db: float
    gamma: float
    gain: float
    offset: float
    blur: float
    field: np.ndarray


def simulate_still(seed: int, size: int = 384) -> tuple[np.ndarray, np.ndarray]:
    """One image and its structures.

    Returns
    -------
    image : (size, size) uint8
    masks : (K, size, size) bool, K >= 1
    """
    images, masks = simulate_clip(seed, frames=1, size=size)
    return images[0], masks[0]


def simulate_clip(seed: int, frames: int, size: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """A loop in which tissue moves, structures pulse and speckle slowly decorrelates.

    Returns
    -------
    images : (frames, size, size) uint8
    masks : (frames, K, size, size) bool
        A structure may leave the image: its mask is then empty. On the first frame every one is there.
    """
    rng = np.random.default_rng(seed)
    scanner = _scanner(rng, size)
    scene = _scene(rng, size)
    kept = [mask for mask in scene.masks if (mask & scanner.field).mean() > _MIN_AREA]
    while not kept:  # every structure fell outside the sector
        scene = _scene(rng, size)
        kept = [mask for mask in scene.masks if (mask & scanner.field).mean() > _MIN_AREA]
    scene = Scene(scene.echo, np.stack(kept))
    displacements = motion(rng, size, frames)
    tissue = _scatterers(rng, size)
    decorrelation = rng.uniform(0.05, 0.6)
    images, masks = [], []
    level = None
    for frame in range(frames):
        if frame == 0:
            echo, truth, scatterers = scene.echo, scene.masks, tissue
        else:
            moved = warp(
                np.concatenate([scene.echo[None], scene.masks, tissue.real[None], tissue.imag[None]]),
                displacements[frame],
            )
            echo, truth = moved[0], moved[1:-2] > 0.5
            share = min(1.0, decorrelation * frame**0.5)
            scatterers = np.sqrt(1 - share**2) * (moved[-2] + 1j * moved[-1]) + share * _scatterers(rng, size)
        image, level = _scan(echo, scatterers, scanner, level)
        images.append(image)
        masks.append(truth & scanner.field)
    return np.stack(images), np.stack(masks)


def _scan(echo: np.ndarray, scatterers: np.ndarray, scanner: Scanner, level: float | None) -> tuple[np.ndarray, float]:
    field = scatterers * np.exp(echo)
    real = ndimage.gaussian_filter(field.real, scanner.psf, truncate=3)
    imag = ndimage.gaussian_filter(field.imag, scanner.psf, truncate=3)
    envelope = np.hypot(real, imag)
    if level is None:
        level = float(np.percentile(envelope[scanner.field], 99.3)) + 1e-9
    image = np.clip(20 * np.log10(envelope / level + 1e-6) / scanner.dynamic_range_db + 1, 0, 1) ** scanner.gamma
    if scanner.blur > 0.3:
        image = ndimage.gaussian_filter(image, scanner.blur, truncate=3)
    image = np.clip(image * scanner.gain + scanner.offset, 0, 1) * scanner.field
    return (image * 255).astype(np.uint8), level


def _scatterers(rng: Generator, size: int) -> np.ndarray:
    noise = rng.standard_normal((2, size, size), dtype=np.float32)
    return noise[0] + 1j * noise[1]


def _scanner(rng: Generator, size: int) -> Scanner:
    scale = size / 256
    return Scanner(
        psf=(scale * rng.uniform(0.5, 1.5), scale * rng.uniform(0.7, 3.6)),
        dynamic_range_db=rng.uniform(35, 75),
        gamma=rng.uniform(0.8, 2.2),
        gain=rng.uniform(0.6, 1.15),
        offset=rng.uniform(-0.06, 0.06),
        blur=scale * rng.uniform(-0.4, 1.2),
        field=_field(rng, size),
    )


def _field(rng: Generator, size: int) -> np.ndarray:
    """The scanned area: the whole image, a rectangle or a sector."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    kind = rng.random()
    if kind < 0.3:
        return np.ones((size, size), bool)
    if kind < 0.55:
        top, bottom = rng.uniform(0, 0.12), rng.uniform(0.7, 1.0)
        left, right = rng.uniform(0, 0.12), rng.uniform(0.85, 1.0)
        return (y >= top) & (y < bottom) & (x >= left) & (x < right)
    apex_x, apex_y = rng.uniform(0.4, 0.6), -rng.uniform(0.02, 0.8)
    half_angle = rng.uniform(0.45, 0.9)
    angle, radius = np.abs(np.arctan2(x - apex_x, y - apex_y)), np.hypot(x - apex_x, y - apex_y)
    return (angle < half_angle) & (radius > rng.uniform(0.6, 1.0) * -apex_y) & (radius < rng.uniform(0.9, 1.1) - apex_y)


# Tissue


def _scene(rng: Generator, size: int) -> Scene:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    echo = _layers(rng, x, y)
    count = rng.choice([1, 2, 3, 4], p=[0.3, 0.35, 0.25, 0.1])
    kinds = rng.choice(len(_KINDS), size=count, p=_KIND_WEIGHTS)
    masks: list[np.ndarray] = []
    # Bands first: they are the layers in which the other structures lie.
    for kind in sorted(kinds, key=lambda k: _KINDS[k] is not _band):
        echo, mask = _KINDS[kind](rng, x, y, echo)
        if _KINDS[kind] is not _band and rng.random() < 0.7:  # most structures hide what lay there before
            masks = [other & ~mask for other in masks if (other & mask).sum() < 0.6 * other.sum()]
        masks.append(mask)
    for _ in range(rng.integers(0, 3)):  # shadow columns: bone, gas, poor contact
        centre, width, start = rng.uniform(0, 1), rng.uniform(0.01, 0.09), rng.uniform(-0.2, 0.8)
        echo = echo - rng.uniform(0.5, 3) * np.exp(-(((x - centre) / width) ** 2)) * (y > start)
    echo = echo - y * rng.uniform(-0.5, 2.5) + _noise(rng, size, 3) * rng.uniform(0, 0.4)
    return Scene(echo.astype(np.float32), np.stack(masks))


def _noise(rng: Generator, size: int, cells: float) -> np.ndarray:
    """Smooth noise of unit variance, about ``cells`` cells across."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, int(cells) + 3, int(cells) + 3)).astype(np.float32))
    noise = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[0, 0].numpy()
    return noise / (noise.std() + 1e-6)


def _layers(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Skin, fat, fascia, muscle: bands of echogenicity with bright lines between them, and fibres."""
    size = len(x)
    depth = y + rng.uniform(0.02, 0.12) * _noise(rng, size, rng.integers(1, 6)) + rng.normal(0, 0.15) * x
    edges = np.sort(rng.uniform(0, 1, rng.integers(2, 9)))
    values = rng.normal(0, rng.uniform(0.3, 0.8), len(edges) + 1)
    echo = values[np.digitize(depth, edges)].astype(np.float32)
    for edge in edges:
        if rng.random() < 0.5:
            echo += rng.uniform(0.5, 2.2) * np.exp(-(((depth - edge) / rng.uniform(0.003, 0.014)) ** 2))
    if rng.random() < 0.5:
        echo += _fibres(rng, depth, x) * rng.uniform(0.2, 1.2)
    echo += _noise(rng, size, rng.integers(6, 30)) * rng.uniform(0, 0.5)
    return echo


def _fibres(rng: Generator, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Broken bright streaks, as of muscle or fascia."""
    size = len(across)
    phase = across * rng.uniform(15, 60) + along * rng.normal(0, 6) + 0.6 * _noise(rng, size, 8)
    streaks = np.clip(np.cos(2 * np.pi * phase), 0, 1) ** rng.uniform(2, 8)
    return streaks * (_noise(rng, size, 14) > rng.uniform(-0.5, 0.7))


# Structures: each adds itself to the echogenicity and returns its mask.
Structure = Callable[[Generator, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _outline(
    rng: Generator, x: np.ndarray, y: np.ndarray, radius: float, aspect: float, roughness: float, tilt: float
) -> np.ndarray:
    """A star-shaped outline as a level function: 0 at the centre, 1 on the border, about linear between."""
    centre_x, centre_y = rng.uniform(0.12, 0.88, 2)
    u = (x - centre_x) * np.cos(tilt) + (y - centre_y) * np.sin(tilt)
    v = ((y - centre_y) * np.cos(tilt) - (x - centre_x) * np.sin(tilt)) / aspect
    angle = np.arctan2(v, u)
    border = np.ones_like(angle)
    for order in range(2, 10):
        border += rng.normal(0, roughness / order**0.9) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(u, v) / (radius * np.maximum(border, 0.3))


def _fill(
    rng: Generator, echo: np.ndarray, level: np.ndarray, inside: np.ndarray, sharpness: tuple[float, float]
) -> np.ndarray:
    soft = 1 / (1 + np.exp(np.clip((level - 1) * rng.uniform(*sharpness), -30, 30)))
    return echo * (1 - soft) + inside * soft


def _rim(echo: np.ndarray, level: np.ndarray, at: float, width: float, gain: float | np.ndarray) -> np.ndarray:
    return echo + gain * np.exp(-(((level - at) / width) ** 2))


def _behind(rng: Generator, echo: np.ndarray, mask: np.ndarray, gain: float) -> np.ndarray:
    """Enhancement (gain > 0) or shadow (gain < 0) below a structure, growing with the path through it."""
    path = np.cumsum(mask, axis=0) / len(mask)
    effect = np.where((path > 0) & ~mask, np.minimum(path * 6, 1) * gain, 0.0)
    return echo + ndimage.gaussian_filter(effect.astype(np.float32), len(mask) / 80, truncate=2)


def _blob(rng: Generator, x: np.ndarray, y: np.ndarray, echo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mass, cyst or organ of any contrast and roughness."""
    size = len(x)
    level = _outline(
        rng,
        x,
        y,
        rng.uniform(0.04, 0.33),
        rng.uniform(0.35, 1.0),
        rng.choice([0.03, 0.08, 0.14, 0.22]),
        rng.uniform(0, np.pi),
    )
    if rng.random() < 0.3:  # spiculated or lobulated
        level = level * (1 + rng.uniform(0.03, 0.12) * _noise(rng, size, rng.integers(8, 30)))
    mask = level < 1
    contrast = rng.choice([-1, -1, -1, 1]) * rng.uniform(0.4, 3.0)
    inside = echo * rng.uniform(0, 1) + contrast + _noise(rng, size, rng.integers(5, 40)) * rng.uniform(0, 0.7)
    echo = _fill(rng, echo, level, inside, (6, 60))
    if rng.random() < 0.4:
        echo = _rim(echo, level, rng.uniform(0.97, 1.05), rng.uniform(0.02, 0.12), rng.uniform(0.4, 2))
    gain = rng.normal(0, 0.8)
    return _behind(rng, echo, mask, -abs(gain) * 1.5 if rng.random() < 0.4 else gain * 0.6), mask


def _vessel(rng: Generator, x: np.ndarray, y: np.ndarray, echo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A vessel across: a dark lumen with bright walls, strongest where the beam meets them, and enhancement below."""
    level = _outline(rng, x, y, rng.uniform(0.03, 0.15), rng.uniform(0.55, 1.0), 0.03, rng.normal(0, 0.3))
    mask = level < 1
    lumen = np.full_like(echo, echo.mean() - rng.uniform(2, 5)) + _noise(rng, len(x), 12) * rng.uniform(0, 0.5)
    echo = _fill(rng, echo, level, lumen, (12, 80))
    rows, columns = np.nonzero(mask)
    if len(rows):
        facing = np.abs(y - rows.mean() / len(x)) / (
            np.hypot(x - columns.mean() / len(x), y - rows.mean() / len(x)) + 1e-3
        )
        echo = _rim(echo, level, rng.uniform(1.03, 1.15), rng.uniform(0.04, 0.14), rng.uniform(0.3, 2.2) * facing)
    return _behind(rng, echo, mask, rng.uniform(0, 2)), mask


def _head(rng: Generator, x: np.ndarray, y: np.ndarray, echo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A fetal head: an ellipse with a bright, partly missing skull, dark inside, in fluid or tissue."""
    size = len(x)
    tilt = rng.uniform(0, np.pi)
    level = _outline(rng, x, y, rng.uniform(0.12, 0.45), rng.uniform(0.65, 0.95), 0.006, tilt)
    mask = level < 1
    if rng.random() < 0.5:  # amniotic fluid around it
        pool = level + 0.25 * _noise(rng, size, 3)
        echo = np.where(pool < rng.uniform(1.1, 1.8), echo - rng.uniform(1, 3), echo)
    brain = np.full_like(echo, echo.mean() - rng.uniform(0.3, 2.5)) + _noise(
        rng, size, rng.integers(8, 30)
    ) * rng.uniform(0.2, 0.9)
    brain = np.maximum(brain, brain.mean() + rng.uniform(0, 1.5) * (_noise(rng, size, rng.integers(10, 40)) > 1.2))
    echo = _fill(rng, echo, level, brain, (15, 60))
    if rng.random() < 0.6 and mask.any():  # the midline
        rows, columns = np.nonzero(mask)
        away = (y - rows.mean() / size) * np.cos(tilt) - (x - columns.mean() / size) * np.sin(tilt)
        broken = _noise(rng, size, 10) > rng.uniform(-1, 0.5)
        echo = echo + rng.uniform(0.5, 2.5) * np.exp(-((away / 0.006) ** 2)) * broken * (level < 0.85)
    width = rng.uniform(0.02, 0.06)
    present = 1 / (1 + np.exp(-4 * (_noise(rng, size, 3) + rng.uniform(-0.3, 1.5))))
    echo = _rim(echo, level, 1 - width, width, rng.uniform(1, 4) * present)
    return _behind(rng, echo, mask, -rng.uniform(0, 1.5)), mask


def _nerve(rng: Generator, x: np.ndarray, y: np.ndarray, echo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A nerve across: flat, bright-rimmed, with a honeycomb of dark fascicles in a bright matrix."""
    size = len(x)
    level = _outline(
        rng, x, y, rng.uniform(0.04, 0.2), rng.uniform(0.25, 0.9), rng.uniform(0.03, 0.14), rng.normal(0, 0.5)
    )
    mask = level < 1
    fascicles = np.clip(_noise(rng, size, rng.uniform(20, 60)), -1, 1)
    inside = echo * rng.uniform(0.2, 0.8) + rng.uniform(-0.6, 1.2) + fascicles * rng.uniform(0.3, 1.5)
    echo = _fill(rng, echo, level, inside, (8, 40))
    echo = _rim(echo, level, rng.uniform(0.95, 1.08), rng.uniform(0.04, 0.15), rng.uniform(0, 1.6))
    return _behind(rng, echo, mask, rng.normal(0, 0.4)), mask


def _band(rng: Generator, x: np.ndarray, y: np.ndarray, echo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A muscle or other layer from side to side between two bright fasciae, with fibres."""
    size = len(x)
    slope, bend = rng.normal(0, 0.12), 0.02 * rng.random() * _noise(rng, size, 2)
    top = rng.uniform(0.05, 0.55)
    thickness = rng.uniform(0.08, 0.4) + rng.normal(0, 0.06) * (x - 0.5)
    depth = y - slope * (x - 0.5) - bend
    middle = top + thickness / 2
    level = np.abs(depth - middle) / np.maximum(thickness / 2, 0.02)
    if rng.random() < 0.5:  # ends inside the image
        level = np.maximum(level, np.abs(x - rng.uniform(0.3, 0.7)) / rng.uniform(0.2, 0.5))
    mask = level < 1
    pennation = rng.normal(0, 0.6)
    across = depth * np.cos(pennation) + x * np.sin(pennation)
    inside = echo * rng.uniform(0, 0.5) + rng.normal(-0.5, 0.6) + _fibres(rng, across, x) * rng.uniform(0.3, 1.8)
    echo = _fill(rng, echo, level, inside, (20, 80))
    return _rim(echo, level, rng.uniform(1.0, 1.1), rng.uniform(0.02, 0.1), rng.uniform(0.3, 2.5)), mask


def _tube(rng: Generator, x: np.ndarray, y: np.ndarray, echo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A vessel, duct or tendon along its length."""
    size = len(x)
    tilt = rng.normal(0, 0.5)
    along = (x - 0.5) * np.cos(tilt) + (y - rng.uniform(0.2, 0.8)) * np.sin(tilt)
    across = (y - rng.uniform(0.2, 0.8)) * np.cos(tilt) - (x - 0.5) * np.sin(tilt)
    across = across + rng.normal(0, 0.4) * along**2 + 0.01 * _noise(rng, size, 3)
    half = rng.uniform(0.02, 0.09) * (1 + 0.15 * _noise(rng, size, 2))
    level = np.abs(across) / np.maximum(half, 0.01)
    level = np.maximum(level, np.abs(along - rng.normal(0, 0.15)) / rng.uniform(0.15, 0.8))
    mask = level < 1
    dark = rng.random() < 0.7
    inside = echo - rng.uniform(1.5, 4) if dark else echo + rng.uniform(0.3, 1.5) + _fibres(rng, across, x)
    echo = _fill(rng, echo, level, inside, (10, 60))
    return _rim(echo, level, rng.uniform(1.05, 1.2), rng.uniform(0.05, 0.2), rng.uniform(0, 2)), mask


_KINDS: tuple[Structure, ...] = (_blob, _vessel, _head, _nerve, _band, _tube)
_KIND_WEIGHTS = (0.36, 0.17, 0.14, 0.14, 0.11, 0.08)


# Motion


def motion(rng: Generator, size: int, frames: int) -> np.ndarray:
    """Displacements (frames, 2, size, size) in pixels, (row, column): drift, tilt, stretch and elastic pulsation."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    elastic = np.stack([_noise(rng, size, 3), _noise(rng, size, 3)]) * rng.uniform(0, 0.03)
    heart_rate, phase = rng.uniform(0.1, 0.8), rng.uniform(0, 2 * np.pi)
    drift = rng.normal(0, rng.choice([0.005, 0.02, 0.05]), 2)
    turn, stretch = rng.normal(0, 0.02), rng.normal(0, 0.02, 2)
    walk = np.cumsum(rng.normal(0, 0.5, (frames, 2)), axis=0) * np.abs(drift)
    fields = []
    for frame in range(frames):
        beat = np.sin(heart_rate * frame + phase) - np.sin(phase)
        rows = drift[0] * frame + walk[frame, 0] + turn * frame * x + stretch[0] * beat * 2 * y + beat * elastic[0]
        columns = drift[1] * frame + walk[frame, 1] - turn * frame * y + stretch[1] * beat * 2 * x + beat * elastic[1]
        fields.append(np.stack([rows, columns]) * size)
    return np.stack(fields).astype(np.float32)


def warp(images: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Images (C, N, N) drawn from where the displacement (2, N, N) points; the border is mirrored."""
    size = images.shape[-1]
    grid = np.mgrid[0:size, 0:size].astype(np.float32) + displacement
    grid = np.ascontiguousarray((2 * grid[::-1] + 1).transpose(1, 2, 0) / size - 1, dtype=np.float32)
    source = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))[None]
    moved = F.grid_sample(source, torch.from_numpy(grid)[None], padding_mode="reflection", align_corners=False)[0]
    return moved.numpy()
