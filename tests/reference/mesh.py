"""Slow oracles of the mesh ops: every triangle at every pixel, in float64 torch, by linear solves."""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_rays(K: Tensor, width: int, height: int) -> Tensor:
    """[H, W, 3] points at depth 1 behind the pixel centres."""
    y, x = torch.meshgrid(torch.arange(height, dtype=K.dtype) + 0.5, torch.arange(width, dtype=K.dtype) + 0.5, indexing="ij")
    return torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], -1)


def camera_triangles(vertices: Tensor, faces: Tensor, viewmat: Tensor) -> Tensor:
    """[F, 3 corners, 3] in camera space."""
    return (vertices @ viewmat[:3, :3].T + viewmat[:3, 3])[faces]


def hit(triangles: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Barycentrics and depths [..., 3], [...] where rays [..., 3] meet the planes of triangles [..., 3, 3].

    The corners' combination b with sum 1 that lies on the ray: P^T b = depth d, hence b / depth = P^-T d.
    """
    scaled = torch.linalg.solve(triangles.transpose(-1, -2), rays[..., None])[..., 0]
    inverse_depth = scaled.sum(-1)
    return scaled / inverse_depth[..., None], 1 / inverse_depth


def rasterize_mesh(
    vertices: Tensor, faces: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int, near_plane: float = 0.01
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Triangle ids, barycentrics, depths, and which pixels are safe to compare: not within rounding of an edge or of a second surface."""
    ids, barycentrics, depths, safe = [], [], [], []
    for c in range(len(viewmats)):
        triangles = camera_triangles(vertices[c] if vertices.dim() == 3 else vertices, faces, viewmats[c])
        rays = pixel_rays(Ks[c], width, height)
        b, z = hit(triangles[:, None, None], rays.expand(len(faces), -1, -1, -1))
        margin = torch.where(z > 0, b.min(-1).values, -1.0)
        z = torch.where((margin >= 0) & (z >= near_plane), z, torch.inf)
        nearest, face = z.min(0)
        near_edge = (margin.abs() < 1e-6).any(0)
        second = z.scatter(0, face[None], torch.inf).min(0).values
        ids.append(torch.where(nearest.isfinite(), face, -1))
        barycentrics.append(torch.where(nearest.isfinite()[..., None], b.gather(0, face[None, ..., None].expand(-1, -1, -1, 3))[0], 0))
        depths.append(torch.where(nearest.isfinite(), nearest, 0))
        safe.append(~near_edge & ~(second - nearest < 1e-6 * nearest) & ~((nearest - near_plane).abs() < 1e-6))
    return torch.stack(ids), torch.stack(barycentrics), torch.stack(depths), torch.stack(safe)


def hits_of(
    triangle_ids: Tensor, vertices: Tensor, faces: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """Barycentrics and depths of given triangles, differentiable in vertices and viewmats."""
    barycentrics, depths = [], []
    for c in range(len(viewmats)):
        triangles = camera_triangles(vertices[c] if vertices.dim() == 3 else vertices, faces, viewmats[c])
        seen = triangle_ids[c] >= 0
        b, z = hit(triangles[triangle_ids[c][seen].long()], pixel_rays(Ks[c], width, height)[seen])
        barycentrics.append(torch.zeros(height, width, 3, dtype=b.dtype).masked_scatter(seen[..., None], b))
        depths.append(torch.zeros(height, width, dtype=z.dtype).masked_scatter(seen, z))
    return torch.stack(barycentrics), torch.stack(depths)


def interpolate(attributes: Tensor, faces: Tensor, triangle_ids: Tensor, barycentrics: Tensor) -> Tensor:
    """[C, H, W, A], differentiable."""
    images = []
    for c in range(len(triangle_ids)):
        corners = (attributes[c] if attributes.dim() == 3 else attributes)[faces[triangle_ids[c].clamp(min=0).long()]]
        images.append((corners * barycentrics[c][..., None]).sum(-2) * (triangle_ids[c] >= 0)[..., None])
    return torch.stack(images)
