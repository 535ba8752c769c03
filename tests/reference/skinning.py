"""Linear blend skinning as the formulas read: 4x4 matrices, rotations by the matrix exponential, one joint and one pose at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def linear_blend_skinning(
    vertices: Tensor, weights: Tensor, axis_angles: Tensor, joints: Tensor, parents: Sequence[int], translations: Tensor
) -> Tensor:
    return torch.stack([_pose(vertices[b], weights, axis_angles[b], joints[b], parents) + translations[b] for b in range(len(vertices))])


def _pose(vertices: Tensor, weights: Tensor, axis_angles: Tensor, joints: Tensor, parents: Sequence[int]) -> Tensor:
    world: list[Tensor] = []
    out = torch.zeros_like(vertices)
    for j, parent in enumerate(parents):
        bone = joints[j] if parent < 0 else joints[j] - joints[parent]
        top = torch.cat([_rotation(axis_angles[j]), bone[:, None]], 1)
        step = torch.cat([top, top.new_tensor([[0, 0, 0, 1]])])
        world.append(step if parent < 0 else world[parent] @ step)
        moved = (vertices - joints[j]) @ world[j][:3, :3].T + world[j][:3, 3]
        out = out + weights[:, j, None] * moved
    return out


def _rotation(axis_angle: Tensor) -> Tensor:
    x, y, z = axis_angle
    zero = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3))
