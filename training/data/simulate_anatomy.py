"""What may lie in simulated tissue: layers, structures of many organs, and how each looks, drawn as plain numbers.

Everything is drawn on the host from one NumPy generator, so that a scene follows from its seed alone, whatever device
renders it and whatever other scenes are rendered with it. Positions and lengths are in units of the image's side, echo
levels are natural logarithms of amplitude.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

ORDERS = range(2, 10)  # of the Fourier series that shapes an outline
MAX_EDGES = 8  # between layers of tissue
MAX_STRUCTURES = 8
MAX_DROPOUTS = 3
NEVER = 9.0  # a value of noise that is never reached
_FASCIA = 1.2, 2.0  # how many of its widths a fascia lies outside its muscle: thickness is measured between fasciae


def noise_grid(rng: Generator, cells: float) -> np.ndarray:
    """The control points of a smooth noise about ``cells`` cells across, (G, G) float32."""
    side = int(cells) + 3
    return rng.standard_normal((side, side), dtype=np.float32)


@dataclass(frozen=True)
class Structure:
    """One structure: its outline as a level function (0 in the middle, 1 on the border) and its looks.

    Attributes
    ----------
    is_strip : bool
        Between two lines rather than inside a closed outline.
    x, y, tilt : float
        Centre and angle.
    radius, aspect : float
        Of an outline; ``aspect`` is the second axis relative to the first.
    waves : (8, 2) ndarray
        Fourier coefficients of the outline, cosine and sine, of `ORDERS`.
    half, length, bend, taper : float
        Of a strip: half its thickness, half its length, curvature, and how much the thickness varies.
    roughness : float
        Of the border, times the noise of that name.
    keep, of_mean, contrast : float
        Inside: ``keep`` of the echo that was there, ``of_mean`` of the scene's mean, plus ``contrast``.
    texture, spots, fibres : float
        Strength of smooth noise, of bright spots (below 0 of dark ones), and of broken streaks inside.
    spot_level : float
        The noise level above which there is a spot.
    fibre_pitch, fibre_angle, fibre_gap : float
        Streaks across the image, their angle against the structure's, and the noise level below which they break.
    sharpness : float
        Of the border, in 1 / level.
    rim_at, rim_width, rim, rim_facing, rim_gap : float
        A bright line along the border: where, how wide (in levels), how bright, how far only where the beam meets it
        square, and the noise level below which it is missing.
    midline : float
        A bright line along the long axis.
    behind : float
        Echo added below it: enhancement above 0, shadow below.
    blood : float
        How far the speckle inside changes from frame to frame.
    pulse : float
        Relative change of its size with the heart beat.
    is_target : bool
        Whether it has a mask.
    hides : bool
        Whether it covers what lay there before, also in the masks.
    noise : mapping of str to ndarray
        Control points by what they are for.
    """

    is_strip: bool = False
    x: float = 0.5
    y: float = 0.5
    tilt: float = 0.0
    radius: float = 0.1
    aspect: float = 1.0
    waves: np.ndarray = field(default_factory=lambda: np.zeros((len(ORDERS), 2)))
    half: float = 0.05
    length: float = 3.0
    bend: float = 0.0
    taper: float = 0.0
    roughness: float = 0.0
    keep: float = 0.0
    of_mean: float = 0.0
    contrast: float = 0.0
    texture: float = 0.0
    spots: float = 0.0
    spot_level: float = 1.2
    fibres: float = 0.0
    fibre_pitch: float = 30.0
    fibre_angle: float = 0.0
    fibre_gap: float = 0.0
    sharpness: float = 20.0
    rim_at: float = 1.0
    rim_width: float = 0.05
    rim: float = 0.0
    rim_facing: float = 0.0
    rim_gap: float = -NEVER
    midline: float = 0.0
    behind: float = 0.0
    blood: float = 0.0
    pulse: float = 0.0
    is_target: bool = True
    hides: bool = True
    noise: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Tissue:
    """The layers in which structures lie: skin, fat, fascia, muscle.

    Attributes
    ----------
    edges, values, lines, widths : (8,), (9,), (8,) and (8,) ndarray
        Depths between layers (padded with infinity), their echo levels, and the bright lines between them.
    wave, slope : float
        How uneven and how oblique the layers are.
    fibres, fibre_pitch, fibre_slope, fibre_gap, mottle : float
    attenuation, clutter, unevenness : float
        Loss from top to bottom, echoes right below the probe, and slow changes of brightness.
    dropouts : (3, 4) ndarray
        Columns of poor contact: centre, width, where they start, loss.
    noise : mapping of str to ndarray
    """

    edges: np.ndarray
    values: np.ndarray
    lines: np.ndarray
    widths: np.ndarray
    wave: float
    slope: float
    fibres: float
    fibre_pitch: float
    fibre_slope: float
    fibre_gap: float
    mottle: float
    attenuation: float
    clutter: float
    unevenness: float
    dropouts: np.ndarray
    noise: dict[str, np.ndarray]


def draw_tissue(rng: Generator) -> Tissue:
    """Layers of a scene."""
    count = int(rng.integers(2, MAX_EDGES + 1))
    edges = np.full(MAX_EDGES, np.inf)
    edges[:count] = np.sort(rng.uniform(0, 1, count))
    dropouts = np.zeros((MAX_DROPOUTS, 4))
    dropouts[:, 1] = 1
    for index in range(rng.integers(0, MAX_DROPOUTS)):
        dropouts[index] = rng.uniform(0, 1), rng.uniform(0.01, 0.09), rng.uniform(-0.2, 0.8), rng.uniform(0.5, 3)
    return Tissue(
        edges=edges,
        values=rng.normal(0, rng.uniform(0.3, 0.8), MAX_EDGES + 1),
        lines=np.where(rng.random(MAX_EDGES) < 0.5, rng.uniform(0.5, 2.2, MAX_EDGES), 0),
        widths=rng.uniform(0.003, 0.014, MAX_EDGES),
        wave=rng.uniform(0.02, 0.12),
        slope=rng.normal(0, 0.15),
        fibres=rng.uniform(0.2, 1.2) if rng.random() < 0.5 else 0.0,
        fibre_pitch=rng.uniform(15, 60),
        fibre_slope=rng.normal(0, 6),
        fibre_gap=rng.uniform(-0.5, 0.7),
        mottle=rng.uniform(0, 0.5),
        attenuation=rng.uniform(-0.5, 2.5),
        clutter=rng.uniform(0, 2) if rng.random() < 0.3 else 0.0,
        unevenness=rng.uniform(0, 0.4),
        dropouts=dropouts,
        noise={
            "wave": noise_grid(rng, rng.integers(1, 6)),
            "mottle": noise_grid(rng, rng.integers(6, 30)),
            "unevenness": noise_grid(rng, 3),
            "fibre": noise_grid(rng, 8),
            "gap": noise_grid(rng, 14),
        },
    )


def draw_structures(rng: Generator) -> list[Structure]:
    """The structures of a scene in the order in which they are painted: layers first, distractors in between."""
    count = rng.choice([1, 2, 3, 4], p=[0.3, 0.35, 0.25, 0.1])
    kinds = [_KINDS[kind] for kind in rng.choice(len(_KINDS), size=count, p=_WEIGHTS)]
    drawn = [(kind not in _LAYERS, kind(rng)) for kind in kinds]
    for _ in range(rng.choice([0, 1, 2, 3], p=[0.35, 0.3, 0.2, 0.15])):
        drawn.append((True, [_distractor(rng)]))
    drawn = [drawn[index] for index in rng.permutation(len(drawn))]
    ordered = [structure for _, group in sorted(drawn, key=lambda item: item[0]) for structure in group]
    targets = [structure for structure in ordered if structure.is_target]
    others = MAX_STRUCTURES - len(targets[:MAX_STRUCTURES])
    kept = [structure for structure in ordered if not structure.is_target][:others]
    return [s for s in ordered if s.is_target or any(s is other for other in kept)][:MAX_STRUCTURES]


def _outlined(rng: Generator, radius: float, aspect: float, rough: float, tilt: float, **looks) -> Structure:
    """A star-shaped structure anywhere in the image."""
    orders = np.array(ORDERS, float)[:, None]
    phase = rng.uniform(0, 2 * np.pi, (len(ORDERS), 1))
    size = rng.normal(0, 1, (len(ORDERS), 1)) * rough / orders**0.9
    x, y = rng.uniform(0.12, 0.88, 2)
    waves = np.concatenate([size * np.cos(phase), -size * np.sin(phase)], axis=1)
    return Structure(x=x, y=y, tilt=tilt, radius=radius, aspect=aspect, waves=waves, **looks)


def _mass(rng: Generator) -> list[Structure]:
    """A mass, node or gland of any contrast and roughness."""
    rough = rng.choice([0.03, 0.08, 0.14, 0.22])
    gain = rng.normal(0, 0.8)
    is_spiculated, has_rim = rng.random() < 0.3, rng.random() < 0.4
    mass = _outlined(
        rng, rng.uniform(0.04, 0.33), rng.uniform(0.35, 1.0), rough, rng.uniform(0, np.pi),
        roughness=rng.uniform(0.03, 0.12) if is_spiculated else 0.0,
        keep=rng.uniform(0, 1),
        contrast=rng.choice([-1, -1, -1, 1]) * rng.uniform(0.4, 3.0),
        texture=rng.uniform(0, 0.7),
        spots=rng.uniform(0.5, 2.5) if rng.random() < 0.2 else 0.0,
        sharpness=rng.uniform(6, 60),
        rim_at=rng.uniform(0.97, 1.05), rim_width=rng.uniform(0.02, 0.12), rim=rng.uniform(0.4, 2) * has_rim,
        behind=-abs(gain) * 1.5 if rng.random() < 0.4 else gain * 0.6,
        noise={
            "roughness": noise_grid(rng, rng.integers(8, 30)),
            "texture": noise_grid(rng, rng.integers(5, 40)),
            "spots": noise_grid(rng, rng.integers(20, 50)),
        },
    )  # fmt: skip
    return [mass]


def _cyst(rng: Generator) -> list[Structure]:
    """A cyst, bladder or pocket of fluid: dark, smooth, with enhancement below it."""
    return [
        _outlined(
            rng, rng.uniform(0.03, 0.3), rng.uniform(0.5, 1.0), rng.choice([0.02, 0.06, 0.12]), rng.uniform(0, np.pi),
            of_mean=1.0, contrast=-rng.uniform(2, 5), texture=rng.uniform(0, 0.5), sharpness=rng.uniform(15, 80),
            rim_at=rng.uniform(1.0, 1.08), rim_width=rng.uniform(0.02, 0.1), rim=rng.uniform(0, 1.5),
            rim_facing=rng.uniform(0, 1), behind=rng.uniform(0.3, 2),
            blood=rng.uniform(0, 1) * (rng.random() < 0.3),
            noise={"texture": noise_grid(rng, rng.integers(3, 12))},
        )
    ]  # fmt: skip


def _organ(rng: Generator) -> list[Structure]:
    """A large organ such as liver, kidney, spleen, prostate or thyroid: like its surroundings, with a capsule."""
    organ = _outlined(
        rng, rng.uniform(0.2, 0.5), rng.uniform(0.4, 0.9), rng.choice([0.04, 0.08]), rng.normal(0, 0.6),
        keep=rng.uniform(0, 0.3), contrast=rng.choice([-1, 1]) * rng.uniform(0.2, 1.2), texture=rng.uniform(0.1, 0.6),
        sharpness=rng.uniform(15, 60), rim_at=rng.uniform(0.99, 1.04), rim_width=rng.uniform(0.01, 0.05),
        rim=rng.uniform(0.2, 2), rim_facing=rng.uniform(0, 1), rim_gap=rng.uniform(-1.5, 0.3),
        behind=rng.normal(0, 0.3),
        noise={"texture": noise_grid(rng, rng.integers(6, 30)), "rim": noise_grid(rng, 5)},
    )  # fmt: skip
    if rng.random() < 0.5:
        return [organ]
    # A kidney's bright centre, or a nodule in a gland: inside it, and not always asked for.
    inner = replace(
        organ,
        radius=organ.radius * rng.uniform(0.25, 0.55),
        aspect=organ.aspect * rng.uniform(0.5, 0.9),
        contrast=rng.choice([-1, 1]) * rng.uniform(0.5, 2),
        rim=0.0,
        is_target=bool(rng.random() < 0.6),
        hides=False,
        noise={"texture": noise_grid(rng, rng.integers(8, 40))},
    )
    return [organ, inner]


def _vessel(rng: Generator) -> list[Structure]:
    """A vessel across: a dark lumen with bright walls, strongest where the beam meets them, and enhancement below."""
    vessel = _outlined(
        rng, rng.uniform(0.03, 0.15), rng.uniform(0.55, 1.0), 0.03, rng.normal(0, 0.3),
        of_mean=1.0, contrast=-rng.uniform(2, 5), texture=rng.uniform(0, 0.5), sharpness=rng.uniform(12, 80),
        rim_at=rng.uniform(1.03, 1.15), rim_width=rng.uniform(0.04, 0.14), rim=rng.uniform(0.3, 2.2), rim_facing=1.0,
        behind=rng.uniform(0, 2), blood=rng.uniform(0.3, 1), pulse=rng.uniform(0, 0.12),
        noise={"texture": noise_grid(rng, 12)},
    )  # fmt: skip
    if rng.random() > 0.3:
        return [vessel]
    # A vein lies beside its artery.
    angle, distance = rng.uniform(0, 2 * np.pi), vessel.radius * rng.uniform(1.9, 2.6)
    vein = replace(
        vessel,
        x=vessel.x + distance * np.cos(angle),
        y=vessel.y + distance * np.sin(angle),
        radius=vessel.radius * rng.uniform(0.7, 1.4),
        aspect=rng.uniform(0.3, 0.8),
        tilt=angle + np.pi / 2,
        rim=vessel.rim * rng.uniform(0.2, 0.7),
        pulse=-rng.uniform(0, 0.2),
    )
    return [vessel, vein]


def _head(rng: Generator) -> list[Structure]:
    """A fetal head or abdomen: an ellipse with a bright, partly missing wall, often in fluid."""
    head = _outlined(
        rng, rng.uniform(0.12, 0.45), rng.uniform(0.65, 0.95), 0.006, rng.uniform(0, np.pi),
        of_mean=1.0, contrast=-rng.uniform(0.3, 2.5), texture=rng.uniform(0.2, 0.9), spots=rng.uniform(0, 1.5),
        sharpness=rng.uniform(15, 60), rim_width=(width := rng.uniform(0.02, 0.06)), rim_at=1 - width,
        rim=rng.uniform(1, 4), rim_gap=-rng.uniform(-0.3, 1.5), rim_facing=rng.uniform(0, 0.5),
        midline=rng.uniform(0.5, 2.5) if rng.random() < 0.6 else 0.0, behind=-rng.uniform(0, 1.5),
        noise={
            "texture": noise_grid(rng, rng.integers(8, 30)),
            "spots": noise_grid(rng, rng.integers(10, 40)),
            "rim": noise_grid(rng, 3),
        },
    )  # fmt: skip
    if rng.random() < 0.5:
        return [head]
    fluid = replace(
        head,
        radius=head.radius * rng.uniform(1.15, 1.8),
        roughness=rng.uniform(0.1, 0.3),
        contrast=-rng.uniform(1, 3),
        texture=0.2,
        spots=0.0,
        rim=0.0,
        midline=0.0,
        behind=rng.uniform(0, 0.8),
        is_target=False,
        noise={"roughness": noise_grid(rng, 3), "texture": noise_grid(rng, 6)},
    )
    return [fluid, head]


def _nerve(rng: Generator) -> list[Structure]:
    """A nerve across: flat, bright-rimmed, often with dark fascicles in a bright matrix, at times beside a vessel."""
    radius, is_honeycomb = rng.uniform(0.04, 0.2), rng.random() < 0.5
    fascicles = rng.uniform(0.2, 0.5) * radius
    nerve = _outlined(
        rng, radius, rng.uniform(0.25, 0.9), rng.uniform(0.03, 0.14), rng.normal(0, 0.5),
        keep=rng.uniform(0.2, 0.8), contrast=rng.uniform(0.2, 1.8) if is_honeycomb else rng.uniform(-0.6, 1.2),
        texture=rng.uniform(0, 0.5) if is_honeycomb else rng.uniform(0.3, 1.5),
        spots=-rng.uniform(0.8, 2.5) * is_honeycomb, spot_level=rng.uniform(-0.3, 0.6),
        sharpness=rng.uniform(8, 40), rim_at=rng.uniform(0.95, 1.08), rim_width=rng.uniform(0.04, 0.15),
        rim=rng.uniform(0, 1.6), behind=rng.normal(0, 0.4),
        noise={"texture": noise_grid(rng, rng.uniform(20, 60)), "spots": noise_grid(rng, min(1 / fascicles, 80))},
    )  # fmt: skip
    if rng.random() < 0.7:
        return [nerve]
    vessel, *_ = _vessel(rng)
    angle, distance = rng.uniform(0, 2 * np.pi), radius + vessel.radius * rng.uniform(0.9, 1.5)
    return [replace(vessel, x=nerve.x + distance * np.cos(angle), y=nerve.y + distance * np.sin(angle)), nerve]


def _heart(rng: Generator) -> list[Structure]:
    """Heart chambers: two to four dark cavities in muscle, beating; the muscle itself is asked for at times."""
    x, y, tilt = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.normal(np.pi / 2, 0.5)
    size, pulse = rng.uniform(0.18, 0.38), rng.uniform(0.05, 0.3)
    muscle = _outlined(
        rng, size, rng.uniform(0.6, 0.9), 0.05, tilt,
        of_mean=0.6, keep=0.1, contrast=rng.uniform(-0.3, 1.0), texture=rng.uniform(0.2, 0.8),
        sharpness=rng.uniform(8, 30), rim=rng.uniform(0, 1.5), rim_facing=1.0, pulse=-pulse * 0.4,
        is_target=bool(rng.random() < 0.4),
        noise={"texture": noise_grid(rng, rng.integers(10, 40))},
    )  # fmt: skip
    muscle = replace(muscle, x=x, y=y)
    places = [(0.36, -0.42), (0.36, 0.42), (-0.5, -0.38), (-0.5, 0.38)][: rng.integers(1, 5)]
    if len(places) == 1:
        places = [(0.0, 0.0)]
    chambers = []
    for index, (along, across) in enumerate(places):
        chamber = _outlined(
            rng, size * rng.uniform(0.38, 0.5) * (1.5 if len(places) == 1 else 1), rng.uniform(0.55, 0.85), 0.06,
            tilt + rng.normal(0, 0.2),
            of_mean=1.0, contrast=-rng.uniform(1.5, 4), texture=rng.uniform(0, 0.6), sharpness=rng.uniform(8, 40),
            rim_at=1.05, rim_width=rng.uniform(0.04, 0.12), rim=rng.uniform(0, 1.2), rim_facing=rng.uniform(0, 1),
            rim_gap=rng.uniform(-2, 0.5), behind=rng.uniform(0, 0.5), blood=rng.uniform(0.5, 1),
            pulse=-pulse * rng.uniform(0.6, 1.2) * (1 if index < 2 else -1),
            noise={"texture": noise_grid(rng, 8), "rim": noise_grid(rng, 6)},
        )  # fmt: skip
        dx = (along * np.cos(tilt) - across * muscle.aspect * np.sin(tilt)) * size
        dy = (along * np.sin(tilt) + across * muscle.aspect * np.cos(tilt)) * size
        chambers.append(replace(chamber, x=x + dx, y=y + dy))
    return [muscle, *chambers]


def _band(rng: Generator) -> list[Structure]:
    """A muscle or other layer from side to side between two bright fasciae, with fibres."""
    return [
        Structure(
            is_strip=True,
            x=rng.uniform(0.3, 0.7),
            y=rng.uniform(0.12, 0.75),
            tilt=rng.normal(0, 0.12),
            half=rng.uniform(0.04, 0.2),
            length=rng.uniform(0.2, 0.5) if rng.random() < 0.5 else 3.0,
            bend=rng.normal(0, 0.1),
            taper=rng.uniform(0, 0.15),
            keep=rng.uniform(0, 0.5),
            contrast=rng.normal(-0.5, 0.6),
            fibres=rng.uniform(0.3, 1.8),
            fibre_pitch=rng.uniform(15, 60),
            fibre_angle=rng.normal(0, 0.6),
            fibre_gap=rng.uniform(-0.5, 0.7),
            sharpness=rng.uniform(20, 80),
            rim_width=(width := rng.uniform(0.02, 0.1)),
            rim_at=1 + width * rng.uniform(*_FASCIA),
            rim=rng.uniform(0.3, 2.5),
            hides=False,
            noise={"taper": noise_grid(rng, 2), "fibre": noise_grid(rng, 8), "gap": noise_grid(rng, 14)},
        )
    ]


def _muscles(rng: Generator) -> list[Structure]:
    """Muscles on top of each other from side to side, with slanting fibres and bright fasciae between them."""
    tilt, bend, edge = rng.normal(0, 0.08), rng.normal(0, 0.06), rng.uniform(0.02, 0.35)
    muscles = []
    for _ in range(rng.integers(1, 4)):
        half = rng.uniform(0.05, 0.2)
        muscles.append(
            Structure(
                is_strip=True,
                x=0.5,
                y=edge + half,
                tilt=tilt,
                half=half,
                length=3.0,
                bend=bend,
                taper=rng.uniform(0, 0.1),
                keep=rng.uniform(0, 0.3),
                contrast=rng.normal(-0.8, 0.7),
                texture=rng.uniform(0, 0.5),
                fibres=rng.uniform(0.3, 2.2),
                fibre_pitch=rng.uniform(15, 60),
                fibre_angle=rng.choice([-1, 1]) * rng.uniform(0.05, 0.6),
                fibre_gap=rng.uniform(-0.3, 1.3),
                sharpness=rng.uniform(20, 80),
                rim_width=(width := rng.uniform(0.02, 0.1)),
                rim_at=1 + width * rng.uniform(*_FASCIA),
                rim=rng.uniform(0.5, 3),
                is_target=bool(rng.random() < 0.8),
                hides=False,
                noise={
                    "taper": noise_grid(rng, 2),
                    "texture": noise_grid(rng, rng.integers(4, 20)),
                    "fibre": noise_grid(rng, 8),
                    "gap": noise_grid(rng, rng.integers(8, 20)),
                },
            )
        )
        edge += 2 * half + rng.uniform(0.005, 0.03)
    return muscles


def _tube(rng: Generator) -> list[Structure]:
    """A vessel, duct or tendon along its length."""
    is_dark = rng.random() < 0.7
    return [
        Structure(
            is_strip=True,
            x=rng.uniform(0.3, 0.7),
            y=rng.uniform(0.2, 0.8),
            tilt=rng.normal(0, 0.5),
            half=rng.uniform(0.02, 0.09),
            length=rng.uniform(0.15, 0.8),
            bend=rng.normal(0, 0.4),
            taper=rng.uniform(0, 0.25),
            keep=1.0,
            contrast=-rng.uniform(1.5, 4) if is_dark else rng.uniform(0.3, 1.5),
            fibres=0.0 if is_dark else rng.uniform(0.3, 1.5),
            fibre_pitch=rng.uniform(30, 80),
            fibre_gap=rng.uniform(-1, 0.3),
            sharpness=rng.uniform(10, 60),
            rim_at=rng.uniform(1.05, 1.2),
            rim_width=rng.uniform(0.05, 0.2),
            rim=rng.uniform(0, 2),
            behind=rng.uniform(0, 0.8) if is_dark else 0.0,
            blood=rng.uniform(0, 1) if is_dark else 0.0,
            noise={"taper": noise_grid(rng, 2), "fibre": noise_grid(rng, 8), "gap": noise_grid(rng, 14)},
        )
    ]


def _distractor(rng: Generator) -> Structure:
    """Something with no mask: bone or gas with its shadow, a calcification, a patch, a line of fascia."""
    kind = rng.random()
    if kind < 0.4:
        return Structure(
            is_strip=True, x=rng.uniform(0, 1), y=rng.uniform(0.1, 0.9), tilt=rng.normal(0, 0.35),
            half=rng.uniform(0.004, 0.012), length=rng.uniform(0.03, 0.25), bend=rng.normal(0, 0.8),
            keep=0.3, of_mean=0.7, contrast=rng.uniform(1.5, 3.5), sharpness=6.0, behind=-rng.uniform(0.5, 5),
            is_target=False, hides=False,
        )  # fmt: skip
    if kind < 0.6:
        return replace(
            _outlined(rng, rng.uniform(0.006, 0.02), rng.uniform(0.4, 1), 0.1, rng.uniform(0, np.pi)),
            contrast=rng.uniform(1.5, 3.5), of_mean=1.0, sharpness=5.0, behind=-rng.uniform(0, 4),
            is_target=False, hides=False,
        )  # fmt: skip
    patch = _outlined(
        rng, rng.uniform(0.05, 0.25), rng.uniform(0.3, 1), 0.14, rng.uniform(0, np.pi),
        keep=1.0, contrast=rng.normal(0, 0.8), sharpness=rng.uniform(2, 20), is_target=False, hides=False,
    )  # fmt: skip
    return patch


Kind = Callable[[Generator], list[Structure]]
_KINDS: tuple[Kind, ...] = (_mass, _cyst, _organ, _vessel, _head, _nerve, _heart, _band, _tube, _muscles)
_WEIGHTS = (0.20, 0.08, 0.08, 0.13, 0.10, 0.13, 0.08, 0.05, 0.05, 0.10)
_LAYERS = (_band, _muscles)  # painted before all others
