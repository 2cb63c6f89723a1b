"""How simulated tissue is scanned: along straight or diverging beams, through a separable point-spread function.

Tissue is rendered on a grid of beams, rows in depth and columns across, and then converted to the picture. Beam
coordinates (across, depth) run from 0 to 1 over the scanned area; picture coordinates (x, y) over the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from napari_uniultra.training.data.smooth_noise import gaussian

_LEVEL_SHARE = 0.993  # the share of the first frame that lies below the brightest grey


@dataclass(frozen=True)
class Scanner:
    """One scanner setting.

    Attributes
    ----------
    is_sector : bool
        Beams diverge from an apex (a convex or phased array), else they are parallel (a linear one).
    left, right, top, bottom : float
        The scanned rectangle of parallel beams.
    apex_x, apex_y, half_angle, near, far : float
        The sector of diverging ones; angles in radians, radii from the apex.
    axial, lateral : float
        Standard deviations of the point-spread function, in shares of the picture's side.
    dynamic_range_db, gamma, gain, offset, blur : float
        Log compression and the grey curve after it; ``blur`` in shares of the picture's side.
    """

    is_sector: bool
    left: float
    right: float
    top: float
    bottom: float
    apex_x: float
    apex_y: float
    half_angle: float
    near: float
    far: float
    axial: float
    lateral: float
    dynamic_range_db: float
    gamma: float
    gain: float
    offset: float
    blur: float


def draw_scanner(rng: Generator) -> Scanner:
    """A linear array over the whole picture, most of it or what a screen leaves it, a convex or a phased one."""
    kind = rng.random()
    is_cropped = kind >= 0.25
    sides = (0.35, 0.4, 0.25, 0.3) if kind >= 0.42 else (0.12, 0.15, 0.12, 0.3)
    apex_y = -rng.uniform(0.02, 0.8)
    return Scanner(
        is_sector=bool(kind >= 0.57),
        left=rng.uniform(0, sides[0]) * is_cropped,
        right=1 - rng.uniform(0, sides[1]) * is_cropped,
        top=rng.uniform(0, sides[2]) * is_cropped,
        bottom=1 - rng.uniform(0, sides[3]) * is_cropped,
        apex_x=rng.uniform(0.4, 0.6),
        apex_y=apex_y,
        half_angle=rng.uniform(0.45, 0.9),
        near=rng.uniform(0.6, 1.0) * -apex_y,
        far=rng.uniform(0.9, 1.1) - apex_y,
        axial=rng.uniform(0.5, 1.5) / 256,
        lateral=rng.uniform(0.7, 3.6) / 256,
        dynamic_range_db=rng.uniform(35, 75),
        gamma=rng.uniform(0.8, 2.2),
        gain=rng.uniform(0.6, 1.15),
        offset=rng.uniform(-0.06, 0.06),
        blur=blur / 256 if (blur := rng.uniform(-0.4, 1.2)) > 0.3 else 0.0,
    )


class Columns:
    """Numbers of several dataclasses of one kind as tensors (B, 1, 1), moved to a device at once."""

    def __init__(self, items: list, names: tuple[str, ...], device: torch.device | str) -> None:
        values = np.array([[float(getattr(item, name)) for name in names] for item in items], dtype=np.float32)
        self._values = torch.from_numpy(values).to(device)
        self._names = {name: index for index, name in enumerate(names)}

    def __getattr__(self, name: str) -> Tensor:
        return self._values[:, self._names[name], None, None]


class Beams:
    """The geometry of a batch of scanners, and what they make of scattered fields.

    Parameters
    ----------
    scanners : list of Scanner
    size : int
        Side of the picture in pixels, and as many beams and depths, N.
    device : torch.device
    """

    def __init__(self, scanners: list[Scanner], size: int, device: torch.device | str) -> None:
        self.of = Columns(scanners, tuple(Scanner.__dataclass_fields__), device)
        self.count, self.size, self.device = len(scanners), size, device
        self._axial, self._lateral = (
            smoothing([getattr(scanner, name) * size for scanner in scanners], size, device, unit_power=True)
            for name in ("axial", "lateral")
        )
        self._blur = smoothing([scanner.blur * size for scanner in scanners], size, device)
        self.has_sector = any(scanner.is_sector for scanner in scanners)

    def to_picture(self, across: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Beam to picture coordinates, (B, ...) x and y."""
        of = self.of
        x, y = of.left + across * (of.right - of.left), of.top + depth * (of.bottom - of.top)
        if not self.has_sector:
            return x, y
        angle = (2 * across - 1) * of.half_angle
        # Above the probe there is no tissue; a small radius keeps the inverse defined there.
        radius = (of.near + depth * (of.far - of.near)).clamp(min=1e-3)
        is_sector = of.is_sector > 0
        return (
            torch.where(is_sector, of.apex_x + radius * angle.sin(), x),
            torch.where(is_sector, of.apex_y + radius * angle.cos(), y),
        )

    def to_beams(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Picture to beam coordinates, (B, ...) across and depth."""
        of = self.of
        across, depth = (x - of.left) / (of.right - of.left), (y - of.top) / (of.bottom - of.top)
        if not self.has_sector:
            return across, depth
        dx, dy = x - of.apex_x, y - of.apex_y
        is_sector = of.is_sector > 0
        return (
            torch.where(is_sector, (torch.atan2(dx, dy) / of.half_angle + 1) / 2, across),
            torch.where(is_sector, (torch.hypot(dx, dy) - of.near) / (of.far - of.near), depth),
        )

    def envelope(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """What returns from scatterers (B, N, N): the magnitude after the point-spread function."""
        field = smoothed(torch.stack([real, imaginary], dim=1), self._axial, self._lateral)
        return torch.hypot(field[:, 0], field[:, 1])

    def level(self, envelope: Tensor) -> Tensor:
        """The amplitude (B, 1, 1) that is shown as white: one for all frames of a loop."""
        sparse = envelope[:, ::4, ::4].flatten(1)
        place = max(int(_LEVEL_SHARE * sparse.shape[1]), 1)
        return sparse.kthvalue(place, dim=1).values[:, None, None] + 1e-9

    def compress(self, envelope: Tensor, level: Tensor) -> Tensor:
        """Envelopes (B, N, N) as grey of 0 to 1: logarithm, dynamic range and gamma."""
        of = self.of
        decibels = 20 * torch.log10(envelope / level + 1e-6)
        return (decibels / of.dynamic_range_db + 1).clamp(0, 1) ** of.gamma

    def picture(self, grey: Tensor, grid: Tensor, field: Tensor) -> Tensor:
        """Grey on beams (B, N, N) as a picture (B, N, N) uint8; ``grid`` and ``field`` come from `scan_grid`."""
        of = self.of
        seen = F.grid_sample(grey[:, None], grid, padding_mode="border", align_corners=False)
        seen = smoothed(seen, self._blur, self._blur)
        seen = (seen[:, 0] * of.gain + of.offset).clamp(0, 1) * field
        return (seen * 255).to(torch.uint8)

    def scan_grid(self) -> tuple[Tensor, Tensor]:
        """Where each pixel of the picture lies among the beams, (B, N, N, 2) for ``F.grid_sample``, and the scanned
        area, (B, N, N) bool.
        """
        across, depth = self.to_beams(*pixel_centres(self.count, self.size, 1.0, self.device))
        field = (across >= 0) & (across < 1) & (depth >= 0) & (depth < 1)
        return torch.stack([across, depth], dim=-1) * 2 - 1, field


def pixel_centres(count: int, size: int, span: float, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Coordinates (B, N, N) of a square grid over ``span`` around the middle of 0 to 1: x (columns) and y (rows)."""
    line = ((torch.arange(size, device=device) + 0.5) / size - 0.5) * span + 0.5
    return line[None, None, :].expand(count, size, size), line[None, :, None].expand(count, size, size)


def smoothing(sigmas: list[float], size: int, device: torch.device | str, unit_power: bool = False) -> Tensor | None:
    """Gaussian smoothing along an axis of ``size`` pixels, of another width for each item of a batch, as matrices.

    A product with a banded matrix is faster than a convolution at these widths, on a CPU as well as on an accelerator,
    and exact at the edges.

    Parameters
    ----------
    sigmas : list of float
        Standard deviations in pixels; 0 leaves an item as it is.
    unit_power : bool
        Keep the variance of white noise rather than its mean.

    Returns
    -------
    (B, 1, N, N), row i holding the weights of pixel i's neighbours; None where nothing is to be done.
    """
    if max(sigmas) <= 0:
        return None
    places = torch.arange(size, device=device, dtype=torch.float32)
    away = (places[:, None] - places)[None]
    sigma = torch.tensor(sigmas, device=device)[:, None, None].clamp(min=0.05)
    bands = gaussian(away / (sigma * 2**0.5))
    norm = bands.square().sum(2, keepdim=True).sqrt() if unit_power else bands.sum(2, keepdim=True)
    return (bands / norm)[:, None]


def smoothed(fields: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """Fields (B, C, N, N) after `smoothing` along rows (the axis of depth) and columns."""
    fields = fields if rows is None else rows @ fields
    return fields if columns is None else fields @ columns.transpose(2, 3)
