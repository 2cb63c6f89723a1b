"""A simulator of ultrasound: layered tissue with structures in it, speckle, shadows and sectors, with exact masks.

It is statistical rather than physical: complex Gaussian scatterers that move with the tissue, scaled by its
echogenicity, seen through a separable point-spread function along linear or diverging beams, attenuated with depth,
shadowed and enhanced below structures, and log-compressed. Many scenes are rendered at once, on any device. What it
makes is varied on purpose, so that a model trained on it also works on organs that no training set holds.

Everything follows from a scene's seed; on another device the speckle is another, the anatomy the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_uniultra.training.data.simulate_anatomy import (
    MAX_DROPOUTS,
    MAX_EDGES,
    NEVER,
    ORDERS,
    Structure,
    Tissue,
    draw_structures,
    draw_tissue,
)
from napari_uniultra.training.data.simulate_motion import Motion, Moving, draw_motion
from napari_uniultra.training.data.simulate_scan import (
    Beams,
    Columns,
    Scanner,
    draw_scanner,
    pixel_centres,
    smoothed,
    smoothing,
)
from napari_uniultra.training.data.simulate_screen import BLACK, Screen, draw_screen, painted
from napari_uniultra.training.data.smooth_noise import gaussian, smooth_noise

_MIN_AREA = 0.001  # of the picture; smaller remains of a structure are no target
_MIN_VISIBLE = 0.4  # of a structure, the rest being covered by others
_PIXELS_TOGETHER = 1 << 24  # of the scenes that an accelerator renders at once: some gigabytes of memory
_MARGIN = 0.3  # tissue beside the picture that may come into view, in shares of its side
_FAR = 4.0  # levels beyond this are all the same
_SCATTER_STREAM, _SCENE_STREAM = 0x5CA7, 0x5CE3


@dataclass(frozen=True)
class Simulated:
    """A batch of simulated loops; stills have one frame.

    Attributes
    ----------
    images : (B, T, N, N) uint8
    masks : (B, T, K, N, N) bool
        A scene's structures come first; what it lacks of K is empty. Structures may lie inside one another, and may
        leave the picture: the mask is then empty. On the first frame every one is there.
    counts : (B,) int64, on the CPU
        Structures of each scene, at least 1.
    """

    images: Tensor
    masks: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Rendered:
    """Scenes with all their structures, K being the most that one of them has.

    Attributes
    ----------
    images : (B, T, N, N) uint8
    masks : (B, T, K, N, N) bool
    targets : (B, K) bool
        Which structures are worth asking for: the others are distractors, covered, out of view or tiny.
    """

    images: Tensor
    masks: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Scene:
    """All that is drawn for one loop, before it is rendered."""

    scanner: Scanner
    tissue: Tissue
    structures: list[Structure]
    motion: Motion
    decorrelation: float
    screen: Screen = BLACK


def simulate_stills(seeds: Sequence[int], size: int = 384, device: torch.device | str = "cpu") -> Simulated:
    """One image for each seed.

    Parameters
    ----------
    seeds : sequence of int
    size : int
        Side of the image, N.
    device : torch.device
    """
    return simulate_clips(seeds, 1, size, device)


@torch.no_grad()
def simulate_clips(
    seeds: Sequence[int], frames: int, size: int = 320, device: torch.device | str = "cpu", every: int = 1
) -> Simulated:
    """One loop for each seed, in which tissue moves, structures pulse and speckle slowly changes.

    A seed gives the same loop whatever the other seeds are.

    Parameters
    ----------
    seeds : sequence of int
    frames : int
        T.
    size : int
        Side of the frames, N.
    device : torch.device
    every : int
        Take every so many frames of the loop only, so that more happens between them.
    """
    seeds = [int(seed) for seed in seeds]
    # One scene fits into a CPU's caches, and several do not; an accelerator has work enough only with many.
    together = 1 if torch.device(device).type == "cpu" else max(_PIXELS_TOGETHER // size**2, 1)
    results: dict[int, tuple[Tensor, Tensor]] = {}
    attempt = 0
    while missing := [seed for seed in dict.fromkeys(seeds) if seed not in results]:
        for first in range(0, len(missing), together):
            some = missing[first : first + together]
            scenes = [draw_scene(np.random.default_rng([_SCENE_STREAM, attempt, seed]), frames, every) for seed in some]
            made = render(scenes, frames, size, device, [[attempt, seed] for seed in some])
            for seed, images, masks, is_kept in zip(some, made.images, made.masks, made.targets.cpu(), strict=True):
                if is_kept.any():  # else every structure fell outside the sector: draw another scene
                    results[seed] = images, masks[:, is_kept.nonzero().flatten().to(masks.device)]
        attempt += 1
    found = [results[seed] for seed in seeds]
    counts = [masks.shape[1] for _, masks in found]
    padded = [F.pad(masks, (0, 0, 0, 0, 0, max(counts) - masks.shape[1])) for _, masks in found]
    return Simulated(torch.stack([images for images, _ in found]), torch.stack(padded), torch.tensor(counts))


def simulate_clip(seed: int, frames: int, size: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """One loop on the CPU: images (frames, size, size) uint8 and masks (frames, K, size, size) bool, K >= 1."""
    made = simulate_clips([seed], frames, size)
    return made.images[0].numpy(), made.masks[0].numpy()


def simulate_still(seed: int, size: int = 384) -> tuple[np.ndarray, np.ndarray]:
    """One image on the CPU, (size, size) uint8, and its structures, (K, size, size) bool, K >= 1."""
    images, masks = simulate_clip(seed, 1, size)
    return images[0], masks[0]


def draw_scene(rng: np.random.Generator, frames: int, every: int = 1) -> Scene:
    """A scene from a generator, with the motion of ``frames`` frames, ``every`` apart."""
    scanner, tissue, structures = draw_scanner(rng), draw_tissue(rng), draw_structures(rng)
    pulsing = max(structures, key=lambda structure: abs(structure.pulse))
    decorrelation = rng.uniform(0.05, 0.6) * every**0.5
    reach = max(pulsing.radius, 0.03) * 1.2
    motion = draw_motion(rng, frames * every, (pulsing.x, pulsing.y), reach, pulsing.pulse)
    return Scene(scanner, tissue, structures, motion.thinned(every), decorrelation, draw_screen(rng))


def render(
    scenes: list[Scene], frames: int, size: int, device: torch.device | str, seeds: Sequence[Sequence[int]]
) -> Rendered:
    """Render scenes together.

    Parameters
    ----------
    seeds : sequence of sequence of int
        Of the scatterers, one for each scene.
    """
    device = torch.device(device)
    span = 1.0 if frames == 1 else 1 + 2 * _MARGIN
    beams = Beams([scene.scanner for scene in scenes], size, device)
    canvas = _paint(scenes, beams, round(size * span), span, device)
    scatterers = _Scatterers(seeds, device)
    tissue = scatterers.draw(canvas.echo.shape[-1])
    grid, field_of_view = beams.scan_grid()
    across, depth = pixel_centres(len(scenes), size, 1.0, device)
    moving = Moving([scene.motion for scene in scenes], *beams.to_picture(across, depth))
    fixed = _fixed_echo(scenes, across, depth, device)
    gains = _per_structure(scenes, "behind", canvas.levels.shape[1], device)
    decorrelation = torch.tensor([scene.decorrelation for scene in scenes], device=device)[:, None, None]
    surround = painted([scene.screen for scene in scenes], size).to(device)
    images, masks, level = [], [], None
    layers = torch.cat([canvas.echo[:, None], canvas.blood[:, None], tissue, canvas.levels], dim=1)
    for frame in range(frames):
        if frames == 1:
            seen = layers
        else:
            was = torch.stack(beams.to_beams(*moving.origin(frame)), dim=-1)
            seen = F.grid_sample(layers, (was - 0.5) * 2 / span, padding_mode="border", align_corners=False)
        echo, blood, real, imaginary, levels = seen[:, 0], seen[:, 1], seen[:, 2], seen[:, 3], seen[:, 4:]
        if frame:
            share = (decorrelation * frame**0.5).clamp(max=1.0)
            share = torch.maximum(share, blood.clamp(0, 1))
            fresh = scatterers.draw(size)
            real = (1 - share**2).sqrt() * real + share * fresh[:, 0]
            imaginary = (1 - share**2).sqrt() * imaginary + share * fresh[:, 1]
        echo = echo + fixed + _below(levels < 1, gains)
        amplitude = torch.exp(echo)
        envelope = beams.envelope(real * amplitude, imaginary * amplitude)
        level = beams.level(envelope) if level is None else level
        picture = beams.picture(beams.compress(envelope, level), grid, field_of_view)
        images.append(torch.where(field_of_view, picture, surround))
        whole = F.grid_sample(levels, grid, padding_mode="border", align_corners=False) < 1
        masks.append(_uncovered(scenes, whole) & field_of_view[:, None])
        if frame == 0:
            targets = _targets(scenes, whole, masks[0])
    return Rendered(torch.stack(images, dim=1), torch.stack(masks, dim=1), targets)


class _Scatterers:
    """Complex Gaussian scatterers, from a generator of its own for each scene."""

    def __init__(self, seeds: Sequence[Sequence[int]], device: torch.device) -> None:
        states = [np.random.SeedSequence([_SCATTER_STREAM, *seed]).generate_state(1, np.uint64) for seed in seeds]
        self._generators = [torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1))) for state in states]
        self._device = device

    def draw(self, size: int) -> Tensor:
        """(B, 2, N, N) float32."""
        return torch.stack([torch.randn(2, size, size, generator=g, device=self._device) for g in self._generators])


# Painting


@dataclass
class _Canvas:
    """Tissue at rest on the beams and around them, (B, C, C) each; levels (B, K, C, C), far outside where there is no
    structure.
    """

    echo: Tensor
    blood: Tensor
    levels: Tensor
    x: Tensor
    y: Tensor


def _paint(scenes: list[Scene], beams: Beams, size: int, span: float, device: torch.device) -> _Canvas:
    x, y = beams.to_picture(*pixel_centres(len(scenes), size, span, device))
    echo = _layers([scene.tissue for scene in scenes], x, y)
    slots = max(len(scene.structures) for scene in scenes)
    levels = torch.full((len(scenes), slots, size, size), _FAR, device=device)
    canvas = _Canvas(echo, torch.zeros_like(echo), levels, x, y)
    for slot in range(slots):
        for is_strip in (False, True):
            chosen = [
                index
                for index, scene in enumerate(scenes)
                if slot < len(scene.structures) and scene.structures[slot].is_strip == is_strip
            ]
            if chosen:
                _add([scenes[index].structures[slot] for index in chosen], chosen, slot, canvas)
    return canvas


_NUMBERS = tuple(
    name for name in Structure.__dataclass_fields__ if name not in ("waves", "noise", "is_strip", "is_target", "hides")
)


def _add(structures: list[Structure], chosen: list[int], slot: int, canvas: _Canvas) -> None:
    """Paint one structure of each of the chosen scenes, all of one shape."""
    device, size = canvas.x.device, canvas.x.shape[-1]
    index = torch.tensor(chosen, device=device)
    of = Columns(structures, _NUMBERS, device)

    def noise(name: str) -> Tensor | float:
        return _noise(structures, name, size, device)

    x, y, before = canvas.x[index], canvas.y[index], canvas.echo[index]
    dx, dy = x - of.x, y - of.y
    along = dx * of.tilt.cos() + dy * of.tilt.sin()
    across = dy * of.tilt.cos() - dx * of.tilt.sin()
    if structures[0].is_strip:
        middle = across + of.bend * along**2
        half = (of.half * (1 + of.taper * noise("taper"))).clamp(min=0.004)
        level = torch.maximum(middle.abs() / half, along.abs() / of.length)
    else:
        level = torch.hypot(along, across / of.aspect) / (of.radius * _border(structures, along, across / of.aspect))
        middle = across
    level = (level * (1 + of.roughness * noise("roughness"))).clamp(0, _FAR)

    mean = before.mean(dim=(1, 2), keepdim=True)
    inside = of.keep * before + of.of_mean * mean + of.contrast + of.texture * noise("texture")
    if any(structure.spots for structure in structures):
        inside = inside + of.spots * (noise("spots") > of.spot_level)
    if any(structure.fibres for structure in structures):
        turned = middle * of.fibre_angle.cos() + along * of.fibre_angle.sin()
        phase = turned * of.fibre_pitch + 0.6 * noise("fibre")
        inside = inside + of.fibres * _streaks(phase) * (noise("gap") > of.fibre_gap)
    inside_share = torch.sigmoid(((1 - level) * of.sharpness).clamp(-30, 30))
    echo = torch.lerp(before, inside, inside_share)

    facing = across_beam(dx, dy)
    rim = of.rim * torch.lerp(torch.ones_like(facing), facing, of.rim_facing.expand_as(facing))
    if any(structure.rim_gap > -NEVER for structure in structures):
        rim = rim * torch.sigmoid(4 * (noise("rim") - of.rim_gap))
    echo = echo + rim * gaussian((level - of.rim_at) / of.rim_width)
    if any(structure.midline for structure in structures):
        echo = echo + of.midline * gaussian(across / 0.006) * (level < 0.85)
    canvas.echo[index] = echo
    canvas.blood[index] = torch.lerp(canvas.blood[index], of.blood.expand_as(echo), inside_share)
    canvas.levels[index, slot] = level


def across_beam(dx: Tensor, dy: Tensor) -> Tensor:
    """How squarely a beam from above meets a round wall at (dx, dy) from its middle: 0 to 1."""
    return dy.abs() / (torch.hypot(dx, dy) + 1e-3)


def _border(structures: list[Structure], u: Tensor, v: Tensor) -> Tensor:
    """The relative radius of an outline at the angle of (u, v), from a table: a series at each pixel costs far more."""
    angles = np.linspace(0, 2 * np.pi, 513)
    series = np.stack([np.cos(np.outer(ORDERS, angles)), np.sin(np.outer(ORDERS, angles))], axis=1)
    table = 1 + np.einsum("nkp,kpa->na", np.stack([s.waves for s in structures]), series)
    table = torch.from_numpy(np.maximum(table, 0.3).astype(np.float32)).to(u.device)
    place = (torch.atan2(v, u) / (2 * np.pi) % 1.0).flatten(1) * 512
    low = place.long().clamp(max=511)
    return torch.lerp(table.gather(1, low), table.gather(1, low + 1), place - low).view_as(u)


def _noise(structures: list, name: str, size: int, device: torch.device) -> Tensor | float:
    """The smooth noise of that name of each, (B, N, N); 0 where none has it."""
    own = [index for index, structure in enumerate(structures) if name in structure.noise]
    if not own:
        return 0.0
    made = smooth_noise([structures[index].noise[name] for index in own], size, device)
    if len(own) == len(structures):
        return made
    padded = torch.zeros(len(structures), size, size, device=device)
    padded[torch.tensor(own, device=device)] = made
    return padded


def _streaks(phase: Tensor) -> Tensor:
    return torch.cos(2 * np.pi * phase).clamp(min=0) ** 4


def _layers(tissues: list[Tissue], x: Tensor, y: Tensor) -> Tensor:
    """Bands of echogenicity with bright lines between them, and fibres, (B, N, N)."""
    device, size = x.device, x.shape[-1]
    names = ("wave", "slope", "fibres", "fibre_pitch", "fibre_slope", "fibre_gap", "mottle")
    of = Columns(tissues, names, device)

    def table(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(t, name) for t in tissues]).astype(np.float32)).to(device)

    depth = y + of.wave * _noise(tissues, "wave", size, device) + of.slope * x
    edges, lines, widths = table("edges"), table("lines"), table("widths")
    flat = depth.flatten(1).contiguous()
    place = torch.searchsorted(edges, flat)
    echo = table("values").gather(1, place)
    for neighbour in (place - 1, place):  # only the lines above and below matter
        neighbour = neighbour.clamp(0, MAX_EDGES - 1)
        away = (flat - edges.gather(1, neighbour)) / widths.gather(1, neighbour)
        echo = echo + lines.gather(1, neighbour) * gaussian(away)
    echo = echo.view_as(depth) + of.mottle * _noise(tissues, "mottle", size, device)
    if any(tissue.fibres for tissue in tissues):
        phase = depth * of.fibre_pitch + x * of.fibre_slope + 0.6 * _noise(tissues, "fibre", size, device)
        echo = echo + of.fibres * _streaks(phase) * (_noise(tissues, "gap", size, device) > of.fibre_gap)
    return echo


# What stays with the probe


def _fixed_echo(scenes: list[Scene], across: Tensor, depth: Tensor, device: torch.device) -> Tensor:
    """Attenuation with depth, clutter near the probe, columns of poor contact and uneven brightness, (B, N, N)."""
    tissues = [scene.tissue for scene in scenes]
    of = Columns(tissues, ("attenuation", "clutter", "unevenness"), device)
    echo = -of.attenuation * depth + of.clutter * torch.exp(-depth / 0.03)
    echo = echo + of.unevenness * _noise(tissues, "unevenness", depth.shape[-1], device)
    dropouts = torch.from_numpy(np.stack([tissue.dropouts for tissue in tissues]).astype(np.float32)).to(device)
    for index in range(MAX_DROPOUTS):
        centre, width, start, loss = dropouts[:, index, :, None, None].unbind(1)
        echo = echo - loss * gaussian((across - centre) / width) * (depth > start)
    return echo


def _below(inside: Tensor, gains: Tensor) -> Tensor:
    """Enhancement (gain > 0) or shadow (gain < 0) along the beams below structures, growing with the path through them.

    Parameters
    ----------
    inside : (B, K, N, N) bool
        Rows are depth.
    gains : (B, K, 1, 1)

    Returns
    -------
    (B, N, N)
    """
    size = inside.shape[-1]
    spread = smoothing([size / 80], size, inside.device)
    path = inside.float().cumsum(dim=2) / size
    effect = (torch.where(inside, 0.0, (path * 6).clamp(max=1)) * gains).sum(dim=1, keepdim=True)
    return smoothed(effect, None, spread)[:, 0]


def _per_structure(scenes: list[Scene], name: str, slots: int, device: torch.device) -> Tensor:
    """(B, K, 1, 1) float32, 0 where a scene has no such structure."""
    values = np.zeros((len(scenes), slots, 1, 1), np.float32)
    for row, scene in zip(values, scenes, strict=True):
        row[: len(scene.structures), 0, 0] = [getattr(structure, name) for structure in scene.structures]
    return torch.from_numpy(values).to(device)


# Masks


def _uncovered(scenes: list[Scene], shown: Tensor) -> Tensor:
    """Masks (B, K, N, N) bool without what later structures cover."""
    hides = _per_structure(scenes, "hides", shown.shape[1], shown.device) > 0
    covered = torch.zeros_like(shown[:, 0])
    uncovered = torch.empty_like(shown)
    for slot in reversed(range(shown.shape[1])):
        uncovered[:, slot] = shown[:, slot] & ~covered
        covered = covered | (shown[:, slot] & hides[:, slot])
    return uncovered


def _targets(scenes: list[Scene], whole: Tensor, visible: Tensor) -> Tensor:
    """Which structures (B, K, N, N) of the first frame are targets, of some size and mostly in sight: (B, K) bool."""
    is_target = _per_structure(scenes, "is_target", whole.shape[1], whole.device)[..., 0, 0] > 0
    share, area = visible.float().mean(dim=(2, 3)), whole.float().mean(dim=(2, 3))
    return is_target & (share > _MIN_AREA) & (share > _MIN_VISIBLE * area)
