"""The input picture's colours carried to other views through the tracked rig, and the holes filled from what surrounds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, normalize

from gafcore.avatars.appearance import complete_colors
from gafcore.cameras import camera_position
from gafcore.mesh import entries, normal_map, rasterize, sum_at, vertex_normals
from gafcore.ops import interpolate as at_pixels
from gafcore.rigs.base import Rig
from gafcore.types import Camera

_FACING = 0.15  # cosine between normal and line of sight in the input picture; flatter surfaces are smeared there
_DEPTH_TOLERANCE_M = 0.006
_OPAQUE = 0.9  # pixels on the head's rim are mixed with what is behind it


@dataclass(frozen=True)
class Carried:
    """What the rig makes of an input picture in N target views."""

    fill: Float[Tensor, "N H W 3"]  # colours of the head's surface, filled where the input did not see it; 0 off the rig
    visibility: Float[Tensor, "N H W"]  # 1 where `fill` is a colour of the input
    normals: Float[Tensor, "N H W 3"]  # in each target camera
    mask: Float[Tensor, "N H W"]  # 1 on the rig
    points: Float[Tensor, "N H W 3"]  # of the surface, metres, where `mask` is 1


def carry(
    rgba: Float[Tensor, "h w 4"],
    camera: Camera,
    targets: Sequence[Camera],
    vertices: Float[Tensor, "V 3"],
    faces: Tensor,
    *,
    rig: Rig | None = None,
) -> Carried:
    """Warp a picture through the rig.

    Args:
        rgba: Colour times coverage, and coverage: nothing of the background is carried along.
        camera: That took it.
        targets: Cameras of one size.
        vertices: The rig as it is tracked in the picture.
        faces: Its triangles.
        rig: Whose faces these are. With it, what the picture does not show is guessed as a fit's first avatar guesses it: from the mirror
            image and the nearest of the same region. Without it, from what is near in the target picture.
    """
    raster = rasterize(vertices, faces, targets)
    world_normals = vertex_normals(vertices, faces)
    points, facing = at_pixels(torch.cat([vertices, world_normals], -1), faces, raster.triangle_ids, raster.barycentrics).split(3, -1)
    mask = (raster.triangle_ids >= 0).to(vertices.dtype)
    color, visible = look_up(rgba, camera, points, facing, vertices, faces)
    visible = visible * mask
    if rig is None:
        filled = push_pull(color * visible[..., None], visible)
    else:
        guess = at_pixels(_guessed(rgba, camera, rig, vertices), faces, raster.triangle_ids, raster.barycentrics)
        filled = guess + visible[..., None] * (color - guess)
    filled = filled * mask[..., None]
    return Carried(filled, visible, normal_map(vertices, faces, targets, raster=raster), mask, points)


def look_up(
    rgba: Tensor, camera: Camera, points: Float[Tensor, "N H W 3"], normals: Tensor, vertices: Tensor, faces: Tensor
) -> tuple[Float[Tensor, "N H W 3"], Float[Tensor, "N H W"]]:
    """Colours of surface points in the picture, and 1 where the picture shows them."""
    camera = camera.to(points.device)
    cam = points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    pixel = cam @ camera.K.T
    pixel = pixel[..., :2] / pixel[..., 2:].clamp_min(1e-6)
    grid = (2 * pixel / pixel.new_tensor([camera.width, camera.height]) - 1).flatten(0, 1)[None]
    depth = rasterize(vertices, faces, camera).depth
    nearest = grid_sample(depth[None], grid, mode="nearest", align_corners=False)[0, 0]
    sampled = grid_sample(rgba.permute(2, 0, 1)[None], grid, align_corners=False)[0].unflatten(1, points.shape[:2])
    towards = normalize(camera_position(camera) - points, dim=-1)
    seen = (normalize(normals, dim=-1) * towards).sum(-1) > _FACING
    seen = seen & ((cam[..., 2] - nearest.view(points.shape[:3])).abs() < _DEPTH_TOLERANCE_M) & (sampled[3] > _OPAQUE)
    return (sampled[:3] / sampled[3:].clamp_min(1e-3)).permute(1, 2, 3, 0), seen.to(points.dtype)


def _guessed(rgba: Tensor, camera: Camera, rig: Rig, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "V 3"]:
    """A colour for every vertex, from the faces that the picture shows."""
    ids, n_faces = rasterize(vertices, rig.faces, camera).triangle_ids[0].long(), rig.faces.shape[0]
    shown = (ids >= 0) & (rgba[..., 3] > _OPAQUE)
    pixels = torch.cat([rgba[..., :3] / rgba[..., 3:], torch.ones_like(rgba[..., :1])], -1)
    # All pixels, those that are not shown to a row that is dropped: choosing them would wait for a GPU.
    places = entries(torch.where(shown, ids, n_faces), 4)
    total = sum_at(places, pixels.flatten(), 4 * (n_faces + 1)).view(-1, 4)[:n_faces]
    colors = complete_colors(rig, total[:, :3] / total[:, 3:].clamp_min(1), total[:, 3] > 0)
    corners = torch.cat([colors, torch.ones_like(colors[:, :1])], 1)[:, None].expand(-1, 3, -1)
    around = sum_at(entries(rig.faces.long(), 4), corners.flatten(), 4 * rig.n_vertices).view(-1, 4)
    return around[:, :3] / around[:, 3:].clamp_min(1)


def push_pull(color: Float[Tensor, "N H W 3"], weight: Float[Tensor, "N H W"]) -> Float[Tensor, "N H W 3"]:
    """Colours everywhere from those with weight 1 (others must be 0): means over ever larger blocks reach what smaller ones leave empty.

    Sides must be powers of two (Gortler et al. 1996).
    """
    levels = [torch.cat([color, weight[..., None]], -1).permute(0, 3, 1, 2)]
    while levels[-1].shape[-1] > 1:
        levels.append(_saturate(4 * avg_pool2d(levels[-1], 2)))
    value = levels[-1]
    for finer in reversed(levels[:-1]):
        below = interpolate(value, scale_factor=2, mode="bilinear", align_corners=False)
        value = finer + (1 - finer[:, 3:]) * below
    return (value[:, :3] / value[:, 3:].clamp_min(1e-6)).permute(0, 2, 3, 1)


def _saturate(x: Tensor) -> Tensor:
    """Weights above 1 scaled down to 1, colours with them."""
    return x / x[:, 3:].clamp_min(1)
