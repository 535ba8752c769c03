"""Meshes with Gaussians bound to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BindingCase:
    """Random triangles with shared vertices; some faces carry several Gaussians, some none."""

    name: str
    n_batch: int
    n_faces: int
    n_gaussians: int

    def __str__(self) -> str:
        return self.name

    def inputs(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        """vertices, faces, binding, means, quats, log_scales."""
        g = torch.Generator().manual_seed(self.n_gaussians)
        n_vertices = self.n_faces + 4

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=g, dtype=torch.float64)

        faces = torch.stack([torch.randperm(n_vertices, generator=g)[:3] for _ in range(self.n_faces)])
        binding = torch.randint(self.n_faces, (self.n_gaussians,), generator=g)
        vertices = 0.1 * normal(self.n_batch, n_vertices, 3)
        means, quats, log_scales = normal(self.n_gaussians, 3), 2 * normal(self.n_gaussians, 4), normal(self.n_gaussians, 3) - 1
        return vertices.to(dtype), faces, binding, means.to(dtype), quats.to(dtype), log_scales.to(dtype)


def binding_cases() -> list[BindingCase]:
    return [
        BindingCase("one", 1, 1, 1),
        BindingCase("more-gaussians-than-faces", 2, 7, 40),
        BindingCase("more-faces-than-gaussians", 3, 40, 9),
        BindingCase("many", 1, 900, 5000),
    ]
