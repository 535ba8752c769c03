"""Meshes and views that the mesh ops are tested and measured on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gafcore.cameras import look_at, stack


@dataclass(frozen=True)
class MeshCase:
    """Inputs of `rasterize_mesh`, float64; `str(case)` names it in test reports."""

    name: str
    vertices: Tensor  # [V, 3] or [C, V, 3]
    faces: Tensor
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int
    near_plane: float = 0.01

    def __str__(self) -> str:
        return self.name

    def inputs(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int]:
        return self.vertices.to(dtype), self.faces, self.viewmats.to(dtype), self.Ks.to(dtype), self.width, self.height


def views(width: int, height: int, *, focal_px: float, eyes: list[tuple[float, float, float]]) -> tuple[Tensor, Tensor]:
    """Cameras that look at the origin, with the principal point off the centre and pixels that are not square."""
    viewmats, Ks = stack([look_at(eye, (0, 0, 0), focal_px=focal_px, width=width, height=height) for eye in eyes])
    Ks = Ks.double()
    Ks[:, 0, 0] *= 1.1
    Ks[:, 0, 2] += 2.3
    Ks[:, 1, 2] -= 1.7
    return viewmats.double(), Ks


def triangle_soup(n: int, *, size: float, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """`n` triangles of about `size` metres about the origin; neighbours share vertices."""
    g = torch.Generator().manual_seed(seed)
    centers = spread * torch.randn(n, 1, 3, generator=g, dtype=torch.float64)
    vertices = (centers + size * torch.randn(n, 3, 3, generator=g, dtype=torch.float64)).reshape(-1, 3)
    faces = torch.arange(3 * n).reshape(-1, 3)
    faces[1::3, 0] = faces[0::3, 1][: len(faces[1::3])]
    # Numbers that float32 holds exactly, so that both precisions see the same scene.
    return vertices.float().double(), faces


def sphere(n: int = 24, radius: float = 0.1) -> tuple[Tensor, Tensor]:
    """A closed sphere of 2 n (n - 1) triangles, counter-clockwise seen from outside, with one vertex at each pole."""
    polar = torch.pi * torch.arange(1, n, dtype=torch.float64)[:, None] / n
    around = 2 * torch.pi * torch.arange(n, dtype=torch.float64)[None] / n
    ring = torch.stack([polar.sin() * around.sin(), polar.cos().expand(-1, n), polar.sin() * around.cos()], -1).reshape(-1, 3)
    vertices = torch.cat([ring, torch.tensor([[0.0, 1, 0], [0, -1, 0]], dtype=torch.float64)]) * radius
    top, bottom = len(ring), len(ring) + 1
    faces = []
    for j in range(n):
        k = (j + 1) % n
        faces += [[top, j, k], [bottom, (n - 2) * n + k, (n - 2) * n + j]]
        for i in range(n - 2):
            a, b, c, d = i * n + j, i * n + k, (i + 1) * n + j, (i + 1) * n + k
            faces += [[a, c, b], [b, c, d]]
    return vertices, torch.tensor(faces)


def mesh_cases() -> list[MeshCase]:
    front, inside = (0.2, 0.1, 1.0), (0.01, 0.02, 0.05)
    soup = triangle_soup(40, size=0.08, spread=0.12, seed=0)
    sphere_vertices, sphere_faces = sphere(12)
    per_camera = torch.stack([soup[0], soup[0].roll(1, dims=-1)])
    small, wide = views(23, 37, focal_px=40, eyes=[front, (-1.0, 0.3, 0.2)]), views(30, 20, focal_px=12, eyes=[inside])
    return [
        MeshCase("soup", *soup, *small, 23, 37),
        MeshCase("mesh-per-camera", per_camera, soup[1], *small, 23, 37),
        MeshCase("through-the-near-plane", *triangle_soup(30, size=0.3, spread=0.1, seed=1), *wide, 30, 20),
        MeshCase("far-near-plane", *soup, *small, 23, 37, near_plane=1.0),
        MeshCase("inside-a-sphere", sphere_vertices, sphere_faces, *wide, 30, 20),
        MeshCase("sphere", sphere_vertices, sphere_faces, *views(64, 48, focal_px=200, eyes=[front]), 64, 48),
        MeshCase("larger-than-the-image", *triangle_soup(4, size=100.0, spread=1.0, seed=3), *wide, 30, 20),
        MeshCase("smaller-than-a-pixel", *triangle_soup(300, size=0.004, spread=0.1, seed=4), *small, 23, 37),
        MeshCase("one-pixel", *soup, *views(1, 1, focal_px=4, eyes=[front]), 1, 1),
        MeshCase("many-bands", *triangle_soup(20, size=0.2, spread=0.1, seed=5), *views(5, 100, focal_px=60, eyes=[front]), 5, 100),
    ]
