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
    dots_only : bool
        Leave the line out.
    """

    label: str
    points: Sequence[tuple[float, float]]
    sizes: Sequence[float] = ()
    dashed: bool = False
    dots_only: bool = False


def chart(
    series: Sequence[Series],
    x_title: str,
    y_title: str,
    x_max: float | None = None,
    y_range: tuple[float, float] = (0.0, 1.0),
) -> str:
    """An SVG of lines whose x starts at 0; empty where there is nothing to draw. What leaves ``y_range`` is cut."""
    finite = [point for own in series for point in own.points if all(map(math.isfinite, point))]
    if not finite:
        return ""
    frame = _Frame(x_max or max(x for x, _ in finite) or 1.0, *_with_height(*y_range))
    body = [*_axes(frame, x_title, y_title)]
    for number, own in enumerate(series, 1):
        body += _line(own, f"rgb{colour_of(number)}", frame)
    legend = "".join(
        f'<span class="key"><svg width="22" height="8"><line x1="0" x2="22" y1="4" y2="4" '
        f'stroke="rgb{colour_of(number)}" stroke-width="3"{_dashes(own)}/></svg> {escape(own.label)}</span>'
        for number, own in enumerate(series, 1)
    )
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="chart">{"".join(body)}</svg>'
    return f"<figure>{svg}<figcaption>{legend}</figcaption></figure>"


@dataclass(frozen=True)
class _Frame:
    """What the axes span, and where a value lies in the picture."""

    right: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        return _LEFT + value / self.right * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (min(max(value, self.bottom), self.top) - self.bottom) / (self.top - self.bottom)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _with_height(bottom: float, top: float) -> tuple[float, float]:
    return (bottom, top) if top > bottom else (bottom, bottom + 1.0)


def _axes(frame: _Frame, x_title: str, y_title: str) -> list[str]:
    parts = []
    for tick in _ticks(frame.bottom, frame.top):
        y = frame.y(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(0.0, frame.right):
        x = frame.x(tick)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>')
    height = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text x="12" y="{height}" text-anchor="middle" transform="rotate(-90 12 {height})">{escape(y_title)}</text>'
    )
    return parts


def _line(own: Series, colour: str, frame: _Frame) -> list[str]:
    drawn = [(frame.x(x), frame.y(y)) for x, y in own.points if math.isfinite(x) and math.isfinite(y)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{_dashes(own)}/>'
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" fill="{colour}" fill-opacity="0.7"/>'
        for (x, y), size in zip(drawn, own.sizes, strict=False)
    ]
    return dots if own.dots_only else [line, *dots]


def _dashes(own: Series) -> str:
    return ' stroke-dasharray="5 4"' if own.dashed else ""


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers within a range."""
    rough = (high - low) / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]
