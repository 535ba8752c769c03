"""Line plots as inline SVG: small enough not to need a plotting library."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 380, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 28
_LEGEND = 28
_COLORS = ("#555555", "#2463a8", "#c2571a", "#2f8f4e", "#8a4fb0", "#b8336a", "#8c7a12", "#1c8a93")
_FILE_STYLE = (
    "text { font: 11px system-ui, sans-serif; fill: #666; } .title { font-size: 13px; font-weight: 600; fill: #222; } "
    ".name { font-size: 13px; fill: #222; } .grid { stroke: #e4e4e4; } .series { fill: none; stroke-width: 1.6; }"
)
_Place = Callable[[float], float]


def line_plot(title: str, xs: Sequence[float], ys: Sequence[float], x_label: str = "iteration") -> str:
    """An SVG of y over x with round ticks; more points than pixels are drawn as the band of their extremes and their mean."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return _head(title) + f'<text x="{_LEFT}" y="{_HEIGHT // 2}">no data</text></svg>'
    parts, x_of, y_of = _axes(title, points, x_label)
    groups = _grouped(points, _WIDTH - _LEFT - _RIGHT)
    low = [(x_of(x), y_of(min(y))) for x, y in groups]
    high = [(x_of(x), y_of(max(y))) for x, y in groups]
    middle = [(x_of(x), y_of(sum(y) / len(y))) for x, y in groups]
    parts.append(f'<polygon class="band" points="{_coordinates(low + high[::-1])}"/>')
    parts.append(f'<polyline class="line" points="{_coordinates(middle)}"/></svg>')
    return "".join(parts)


def series_plot(title: str, series: Mapping[str, Sequence[tuple[float, float]]], x_label: str) -> str:
    """An SVG of several lines over one x, with a mark at every point; a line is coloured by its place in `series`."""
    points = [point for line in series.values() for point in line]
    if not points:
        return _head(title) + f'<text x="{_LEFT}" y="{_HEIGHT // 2}">no data</text></svg>'
    parts, x_of, y_of = _axes(title, points, x_label)
    for i, line in enumerate(series.values()):
        placed, color = [(x_of(x), y_of(y)) for x, y in line], _color(i)
        parts.append(f'<polyline class="series" stroke="{color}" points="{_coordinates(placed)}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{color}"/>' for x, y in placed]
    return "".join([*parts, "</svg>"])


def figure(panels: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    """Plots in rows as one SVG file, with the names of the lines above them."""
    width, height = _WIDTH * max(map(len, panels), default=1), _LEGEND + _HEIGHT * len(panels)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">']
    parts.append(f'<style>{_FILE_STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>')
    x = float(_LEFT)
    for i, name in enumerate(names):
        parts.append(f'<line x1="{x:.0f}" x2="{x + 22:.0f}" y1="14" y2="14" stroke="{_color(i)}" stroke-width="2"/>')
        parts.append(f'<text class="name" x="{x + 27:.0f}" y="18">{escape(name)}</text>')
        x += 45 + 7 * len(name)
    for j, row in enumerate(panels):
        for i, panel in enumerate(row):
            place = f'<svg x="{i * _WIDTH}" y="{_LEGEND + j * _HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
            parts.append(panel.replace("<svg ", place, 1))
    return "".join([*parts, "</svg>\n"])


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within low..high."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _head(title: str) -> str:
    return f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><text class="title" x="{_LEFT}" y="16">{escape(title)}</text>'


def _axes(title: str, points: Sequence[tuple[float, float]], x_label: str) -> tuple[list[str], _Place, _Place]:
    """Title, grid and labels, and where an x and a y are in the picture."""
    x_range, y_range = _span([x for x, _ in points]), _span([y for _, y in points])
    x_of, y_of = _axis(x_range, _LEFT, _WIDTH - _RIGHT), _axis(y_range, _HEIGHT - _BOTTOM, _TOP)
    parts = [_head(title)]
    for tick in ticks(*y_range):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y_of(tick):.1f}" y2="{y_of(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{y_of(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(*x_range):
        parts.append(f'<text class="tick" x="{x_of(tick):.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    return parts, x_of, y_of


def _color(i: int) -> str:
    return _COLORS[i % len(_COLORS)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axis(span: tuple[float, float], start: float, end: float) -> _Place:
    return lambda value: start + (value - span[0]) / (span[1] - span[0]) * (end - start)


def _grouped(points: list[tuple[float, float]], limit: int) -> list[tuple[float, list[float]]]:
    """Runs of neighbouring points, at most `limit // 2` of them: mean x and all y of each."""
    size = max(1, math.ceil(2 * len(points) / limit))
    chunks = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in chunk) / len(chunk), [y for _, y in chunk]) for chunk in chunks]


def _coordinates(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
