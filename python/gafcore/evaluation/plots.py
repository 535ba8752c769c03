"""Line plots as inline SVG: small enough not to need a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 380, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 28


def line_plot(title: str, xs: Sequence[float], ys: Sequence[float], x_label: str = "iteration") -> str:
    """An SVG of y over x with round ticks; more points than pixels are drawn as the band of their extremes and their mean."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    head = f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><text class="title" x="{_LEFT}" y="16">{escape(title)}</text>'
    if not points:
        return head + f'<text x="{_LEFT}" y="{_HEIGHT // 2}">no data</text></svg>'
    x_range = _span([x for x, _ in points])
    y_range = _span([y for _, y in points])
    x_of = _axis(x_range, _LEFT, _WIDTH - _RIGHT)
    y_of = _axis(y_range, _HEIGHT - _BOTTOM, _TOP)
    parts = [head]
    for tick in ticks(*y_range):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y_of(tick):.1f}" y2="{y_of(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{y_of(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(*x_range):
        parts.append(f'<text class="tick" x="{x_of(tick):.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 1}" text-anchor="end">{escape(x_label)}</text>')
    groups = _grouped(points, _WIDTH - _LEFT - _RIGHT)
    low = [(x_of(x), y_of(min(y))) for x, y in groups]
    high = [(x_of(x), y_of(max(y))) for x, y in groups]
    middle = [(x_of(x), y_of(sum(y) / len(y))) for x, y in groups]
    parts.append(f'<polygon class="band" points="{_coordinates(low + high[::-1])}"/>')
    parts.append(f'<polyline class="line" points="{_coordinates(middle)}"/></svg>')
    return "".join(parts)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within low..high."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axis(span: tuple[float, float], start: float, end: float):
    return lambda value: start + (value - span[0]) / (span[1] - span[0]) * (end - start)


def _grouped(points: list[tuple[float, float]], limit: int) -> list[tuple[float, list[float]]]:
    """Runs of neighbouring points, at most `limit // 2` of them: mean x and all y of each."""
    size = max(1, math.ceil(2 * len(points) / limit))
    chunks = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in chunk) / len(chunk), [y for _, y in chunk]) for chunk in chunks]


def _coordinates(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
