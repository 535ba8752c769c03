"""Distances from points to the lines and outlines that landmarks draw on a face."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_CHUNK = 1 << 18  # points at a time: bounds the [points, segments] tables


def nearest_on_line(points: Float[Tensor, "N 3"], line: Float[Tensor, "K 3"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Distance to a polyline, metres, and where along it the nearest point lies: 0 at its first point, 1 at its last."""
    start, edge = line[:-1], line[1:] - line[:-1]
    length2 = (edge * edge).sum(-1).clamp_min(1e-12)
    distances, along = [], []
    for part in points.split(_CHUNK):
        t = (((part[:, None] - start) * edge).sum(-1) / length2).clamp(0, 1)
        d2 = ((part[:, None] - start - t[..., None] * edge) ** 2).sum(-1)
        best, k = d2.min(1)
        distances.append(best.sqrt())
        along.append((k + t.gather(1, k[:, None])[:, 0]) / len(edge))
    return torch.cat(distances), torch.cat(along)


def distance_to_line(points: Float[Tensor, "N 3"], line: Float[Tensor, "K 3"]) -> Float[Tensor, "N"]:
    """Distance to a polyline, metres."""
    return nearest_on_line(points, line)[0]


def signed_distance_xy(points: Float[Tensor, "N 3"], outline: Float[Tensor, "K 3"], where: Bool[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Distance to a closed outline seen from the front (z dropped), negative inside; infinite outside `where`."""
    result = torch.full((len(points),), math.inf)
    chosen = where.nonzero()[:, 0]
    xy, corners = points[chosen, :2], outline[:, :2]
    closed = torch.cat([corners, corners[:1]])
    flat = torch.cat([xy, torch.zeros(len(xy), 1)], -1)
    distance = distance_to_line(flat, torch.cat([closed, torch.zeros(len(closed), 1)], -1))
    crossings = torch.zeros(len(xy), dtype=torch.long)
    for a, b in pairwise(closed):
        spans = (a[1] > xy[:, 1]) != (b[1] > xy[:, 1])
        x = a[0] + (xy[:, 1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
        crossings += (spans & (xy[:, 0] < x)).long()
    result[chosen] = torch.where(crossings % 2 == 1, -distance, distance)
    return result
