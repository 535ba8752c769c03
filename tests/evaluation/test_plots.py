from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from gafcore.evaluation.plots import figure, line_plot, series_plot, ticks


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0, 6000, [0, 2000, 4000, 6000]), (0.03, 0.21, [0.05, 0.1, 0.15, 0.2]), (-1, 1, [-1, -0.5, 0, 0.5, 1]), (5, 5, [5])],
)
def test_ticks_are_round(low, high, want):
    assert ticks(low, high) == pytest.approx(want)


def coordinates(svg: str, tag: str) -> list[tuple[float, float]]:
    points = re.search(rf'<{tag} class="\w+"[^>]* points="([^"]*)"', svg).group(1)
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


def test_series_share_their_axes_and_have_marks():
    svg = series_plot("x", {"none": [(1, 0.0), (3, 4.0)], "full": [(2, 2.0)]}, "frames")
    ElementTree.fromstring(svg)
    assert coordinates(svg, "polyline") == [(52.0, 192.0), (368.0, 26.0)]  # of the first line: class, stroke, points
    marks = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([^"]*)" cy="([^"]*)"', svg)]
    assert marks == [(52.0, 192.0), (368.0, 26.0), (210.0, 109.0)]
    assert "no data" in series_plot("x", {"none": []}, "frames")


def test_a_figure_is_a_file_of_its_own():
    svg = figure([["<svg >a</svg>", "<svg >b</svg>"], ["<svg >c</svg>"]], ["none", "a < b"])
    root = ElementTree.fromstring(svg)
    panels = [e for e in root if e.tag.endswith("svg")]
    assert [(p.get("x"), p.get("y")) for p in panels] == [("0", "28"), ("380", "28"), ("0", "248")]
    assert "a &lt; b" in svg and root.get("width") == "760" and root.get("height") == "468"
