"""Whether views show the same head: colours of one view looked up in the others through the rig that carried the input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.diffusion.small.people import SIZE, tracked_vertices
from gafcore.diffusion.small.warp import look_up
from gafcore.mesh import rasterize, vertex_normals
from gafcore.ops import interpolate
from gafcore.rigs.base import Rig
from gafcore.types import Camera


def disagreement(
    views: Float[Tensor, "N 3 H W"],
    cameras: Sequence[Camera],
    vertices: Float[Tensor, "V 3"],
    faces: Tensor,
    unknown: Float[Tensor, "N H W"],
) -> tuple[float, int]:
    """Summed squared difference (colours in -1..1, mean over channels) of surface points that two views show, and how many there are.

    Args:
        views: Of one head.
        cameras: Theirs.
        vertices: The rig, metres.
        faces: Its triangles.
        unknown: 1 where the input picture does not show the surface: what it shows would agree without any art.
    """
    raster = rasterize(vertices, faces, cameras)
    both = torch.cat([vertices, vertex_normals(vertices, faces)], -1)
    points, facing = interpolate(both, faces, raster.triangle_ids, raster.barycentrics).split(3, -1)
    asked = unknown * (raster.triangle_ids >= 0)
    total, count = 0.0, 0
    for k, camera in enumerate(cameras):
        opaque = torch.cat([views[k], torch.ones_like(views[k, :1])]).permute(1, 2, 0)
        color, shown = look_up(opaque, camera, points, facing, vertices, faces)
        weight = asked * shown
        weight[k] = 0
        total += float(((color - views.permute(0, 2, 3, 1)).square().mean(-1) * weight).sum())
        count += int(weight.sum())
    return total, count


def root_mean_disagreement(
    rig: Rig, people: dict[str, np.ndarray], first_seed: int, sets: Sequence[tuple[int, list[int]]], made: Float[Tensor, "S N 3 H W"]
) -> float:
    """Over sets of views, each of a person (`first_seed` plus its row in `people`) and some of that person's views; colours in 0..1."""
    total, count = 0.0, 0
    for (person, views), pictures in zip(sets, made, strict=True):
        unknown = 1 - torch.from_numpy(people["visibility"][person, views]).float() / 255
        rows = torch.from_numpy(people["cameras"][person][[v + 1 for v in views]])
        cameras = [Camera(row[:16].view(4, 4), row[16:].view(3, 3), SIZE, SIZE) for row in rows]
        error, n = disagreement(pictures, cameras, tracked_vertices(rig, first_seed + person), rig.faces, unknown)
        total, count = total + error, count + n
    return 0.5 * math.sqrt(total / max(count, 1))
