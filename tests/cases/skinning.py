"""Meshes with joints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHAIN, HEAD, FOREST = (-1, 0, 1, 2), (-1, 0, 1, 1, 1), (-1, -1, 0, 1, 3, 0)


@dataclass(frozen=True)
class SkinningCase:
    name: str
    n_batch: int
    n_vertices: int
    parents: tuple[int, ...]
    angle: float = 1.0  # radians, about

    def __str__(self) -> str:
        return self.name

    def inputs(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        """vertices, weights, axis_angles, joints, translations."""
        g = torch.Generator().manual_seed(self.n_vertices)
        n, j = self.n_batch, len(self.parents)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=g, dtype=torch.float64)

        weights = torch.softmax(3 * normal(self.n_vertices, j), -1)
        tensors = (0.1 * normal(n, self.n_vertices, 3), weights, self.angle * normal(n, j, 3), 0.1 * normal(n, j, 3), normal(n, 3))
        return tuple(x.to(dtype) for x in tensors)


def skinning_cases() -> list[SkinningCase]:
    return [
        SkinningCase("one", 1, 1, (-1,)),
        SkinningCase("head", 2, 130, HEAD),
        SkinningCase("still", 1, 40, HEAD, angle=0.0),
        SkinningCase("far-turns", 3, 50, CHAIN, angle=4.0),
        SkinningCase("forest", 3, 300, FOREST),
    ]
