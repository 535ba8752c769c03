from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from gafcore.evaluation.plots import line_plot, ticks


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0, 6000, [0, 2000, 4000, 6000]), (0.03, 0.21, [0.05, 0.1, 0.15, 0.2]), (-1, 1, [-1, -0.5, 0, 0.5, 1]), (5, 5, [5])],
)
def test_ticks_are_round(low, high, want):
    assert ticks(low, high) == pytest.approx(want)


def coordinates(svg: str, tag: str) -> list[tuple[float, float]]:
    points = re.search(rf'<{tag} class="\w+" points="([^"]*)"', svg).group(1)
    return [tuple(map(float, p.split(","))) for p in points.split()]


def test_points_land_where_they_belong():
    svg = line_plot("a < b", [0, 5, 10], [1.0, 3.0, 2.0])
    ElementTree.fromstring(svg)
    assert coordinates(svg, "polyline") == [(52.0, 192.0), (210.0, 26.0), (368.0, 109.0)]
    assert "a &lt; b" in svg


def test_many_points_become_a_band():
    svg = line_plot("x", range(10_000), [i % 2 for i in range(10_000)])
    line, band = coordinates(svg, "polyline"), coordinates(svg, "polygon")
    assert len(line) <= 158 and len(band) == 2 * len(line)
    assert {y for _, y in band} == {26.0, 192.0} and {y for _, y in line} == {109.0}


@pytest.mark.parametrize("ys", [[], [float("nan")], [2.0], [2.0, 2.0]])
def test_little_or_no_data(ys):
    ElementTree.fromstring(line_plot("x", range(len(ys)), ys))
