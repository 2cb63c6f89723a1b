"""Line charts as inline SVG, for a report that needs nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from napari_uniultra.core.palette import colour_of

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 14, 42


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes
    ----------
    label : str
    points : sequence of (x, y)
    sizes : sequence of float
        Radius of each point's dot in px; empty for a line alone.
    dashed : bool
    """

    label: str
    points: Sequence[tuple[float, float]]
    sizes: Sequence[float] = ()
    dashed: bool = False


def chart(series: Sequence[Series], x_title: str, y_title: str, x_max: float | None = None) -> str:
    """An SVG of lines whose y runs from 0 to 1 and whose x starts at 0; empty where there is nothing to draw."""
    finite = [point for own in series for point in own.points if all(map(math.isfinite, point))]
    if not finite:
        return ""
    top = x_max or max(x for x, _ in finite) or 1.0
    body = [*_axes(top, x_title, y_title)]
    for number, own in enumerate(series, 1):
        body += _line(own, f"rgb{colour_of(number)}", top)
    legend = "".join(
        f'<span class="key"><svg width="22" height="8"><line x1="0" x2="22" y1="4" y2="4" '
        f'stroke="rgb{colour_of(number)}" stroke-width="3"{_dashes(own)}/></svg> {escape(own.label)}</span>'
        for number, own in enumerate(series, 1)
    )
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="chart">{"".join(body)}</svg>'
    return f"<figure>{svg}<figcaption>{legend}</figcaption></figure>"


def _axes(top: float, x_title: str, y_title: str) -> list[str]:
    parts = []
    for tenth in range(0, 11, 2):
        y = _y(tenth / 10)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    for tick in _ticks(top):
        x = _x(tick, top)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>')
    height = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text x="12" y="{height}" text-anchor="middle" transform="rotate(-90 12 {height})">{escape(y_title)}</text>'
    )
    return parts


def _line(own: Series, colour: str, top: float) -> list[str]:
    drawn = [(_x(x, top), _y(y)) for x, y in own.points if math.isfinite(x) and math.isfinite(y)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{_dashes(own)}/>'
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" fill="{colour}" fill-opacity="0.7"/>'
        for (x, y), size in zip(drawn, own.sizes, strict=False)
    ]
    return [line, *dots]


def _dashes(own: Series) -> str:
    return ' stroke-dasharray="5 4"' if own.dashed else ""


def _ticks(top: float) -> list[float]:
    """About five round numbers from 0 to ``top``."""
    rough = top / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
    return [round(index * step, 10) for index in range(int(top / step + 1e-9) + 1)]


def _x(value: float, top: float) -> float:
    return _LEFT + value / top * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float) -> float:
    return _HEIGHT - _BOTTOM - min(max(value, 0.0), 1.0) * (_HEIGHT - _TOP - _BOTTOM)
