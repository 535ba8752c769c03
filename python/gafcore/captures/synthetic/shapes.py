"""Distances from points to the lines and outlines that landmarks draw on a face."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

_CHUNK = 1 << 18  # points at a time: bounds the [points, segments] tables


def nearest_on_line(
    points: Float[Tensor, "N 3"], line: Float[Tensor, "K 3"], reach_m: float
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Distance to a polyline, metres, and where along it the nearest point lies: 0 at its first point, 1 at its last.

    Points farther than `reach_m` may be given an infinite distance: most of a face is far from any one feature.
    """
    distance, along = torch.full((len(points),), math.inf), torch.zeros(len(points))
    near = ((points > line.amin(0) - reach_m) & (points < line.amax(0) + reach_m)).all(-1).nonzero()[:, 0]
    start, edge = line[:-1], line[1:] - line[:-1]
    length2 = (edge * edge).sum(-1).clamp_min(1e-12)
    for part in near.split(_CHUNK):
        offset = points[part][:, None] - start
        t = ((offset * edge).sum(-1) / length2).clamp(0, 1)
        best, k = ((offset - t[..., None] * edge) ** 2).sum(-1).min(1)
        distance[part] = best.sqrt()
        along[part] = (k + t.gather(1, k[:, None])[:, 0]) / len(edge)
    return distance, along


def distance_to_line(points: Float[Tensor, "N 3"], line: Float[Tensor, "K 3"], reach_m: float) -> Float[Tensor, "N"]:
    """Distance to a polyline, metres; may be infinite beyond `reach_m`."""
    return nearest_on_line(points, line, reach_m)[0]


def signed_distance_xy(points: Float[Tensor, "N 3"], outline: Float[Tensor, "K 3"], reach_m: float) -> Float[Tensor, "N"]:
    """Distance to a closed outline seen from the front (z dropped), negative inside.

    Points farther than `reach_m` from the outline's bounding box, z included, are given an infinite distance.
    """
    result = torch.full((len(points),), math.inf)
    chosen = ((points > outline.amin(0) - reach_m) & (points < outline.amax(0) + reach_m)).all(-1).nonzero()[:, 0]
    flat = points[chosen] * torch.tensor([1.0, 1.0, 0.0])
    closed = torch.cat([outline, outline[:1]]) * torch.tensor([1.0, 1.0, 0.0])
    distance = distance_to_line(flat, closed, math.inf)
    crossings = torch.zeros(len(flat), dtype=torch.long)
    for a, b in pairwise(closed):
        spans = (a[1] > flat[:, 1]) != (b[1] > flat[:, 1])
        x = a[0] + (flat[:, 1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
        crossings += (spans & (flat[:, 0] < x)).long()
    result[chosen] = torch.where(crossings % 2 == 1, -distance, distance)
    return result
