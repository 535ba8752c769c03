"""linear_blend_skinning beside the same formulas in torch, all joints at once, float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.devices import devices, moved, timed
from gafcore import linear_blend_skinning
from gafcore.rigs.skinning import axis_angle_to_matrix, joint_transforms
from tests.cases.skinning import HEAD, SkinningCase


def in_torch(
    vertices: Tensor, weights: Tensor, axis_angles: Tensor, joints: Tensor, parents: tuple[int, ...], translations: Tensor
) -> Tensor:
    rotations, moved = joint_transforms(axis_angle_to_matrix(axis_angles), joints, parents)
    transforms = torch.cat([rotations, moved[..., None]], -1).flatten(2)
    blended = (weights @ transforms).unflatten(-1, (3, 4))
    return (blended[..., :3] * vertices[..., None, :]).sum(-1) + blended[..., 3] + translations[:, None]


OPS = {"gafcore": linear_blend_skinning, "torch": in_torch}
ops = pytest.mark.parametrize("op", OPS)
sizes = pytest.mark.parametrize(("n_batch", "n_vertices"), [(1, 5_000), (1, 25_000), (16, 5_000)])


def inputs(n_batch: int, n_vertices: int) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, ...], Tensor]:
    vertices, weights, axis_angles, joints, translations = SkinningCase("", n_batch, n_vertices, HEAD, angle=0.2).inputs(torch.float32)
    return vertices, weights, axis_angles, joints, HEAD, translations


@sizes
@ops
@devices
def test_forward(benchmark, device, op, n_batch, n_vertices):
    timed(benchmark, device, OPS[op], *moved(inputs(n_batch, n_vertices), device), rounds=50, warmup_rounds=3)


@sizes
@ops
@devices
def test_forward_backward(benchmark, device, op, n_batch, n_vertices):
    vertices, weights, axis_angles, joints, parents, translations = moved(inputs(n_batch, n_vertices), device)
    leaves = [x.requires_grad_() for x in (vertices, axis_angles, joints, translations)]

    def step():
        OPS[op](vertices, weights, axis_angles, joints, parents, translations).sum().backward()
        for x in leaves:
            x.grad = None

    timed(benchmark, device, step, rounds=50, warmup_rounds=3)
