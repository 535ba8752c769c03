"""A small rig with every feature, and random parameters for any rig."""

from __future__ import annotations

import torch

from gafcore.rigs import Rig
from gafcore.types import LandmarkEmbedding, RigParams


def tiny_rig(n_vertices: int = 11, *, pose_basis: bool = True, seed: int = 0) -> Rig:
    """Random data in the right shapes; nothing symmetric, so that mixed-up axes show."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    faces = torch.stack([torch.randperm(n_vertices, generator=g)[:3] for _ in range(7)])
    return Rig(
        name="tiny",
        spec={"name": "tiny"},
        template=normal(n_vertices, 3) * 0.1,
        shape_basis=normal(4, n_vertices, 3) * 0.02,
        expr_basis=normal(3, n_vertices, 3) * 0.02,
        faces=faces,
        uvs=torch.rand(n_vertices, 2, generator=g),
        uv_faces=faces,
        joint_regressor=torch.softmax(normal(5, n_vertices), -1),
        skin_weights=torch.softmax(normal(n_vertices, 5), -1),
        regions={"face": torch.ones(n_vertices, dtype=torch.bool)},
        landmarks={"ibug68": LandmarkEmbedding(torch.arange(7), torch.softmax(normal(7, 3), -1), torch.arange(7))},
        expression_names=("a", "b", "c"),
        pose_basis=normal(36, n_vertices, 3) * 0.01 if pose_basis else None,
    )


def random_params(rig: Rig, n: int = 3, *, seed: int = 1, offset: bool = False) -> RigParams:
    g = torch.Generator().manual_seed(seed)
    neutral = rig.neutral(n)
    params = neutral.map(lambda name, x: torch.randn(x.shape, generator=g) * (0.1 if name == "translation" else 0.6))
    if offset:
        params = RigParams(**{**dict(params.items()), "static_offset": torch.randn(rig.n_vertices, 3, generator=g) * 0.01})
    return params
