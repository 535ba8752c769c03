"""Skinned blendshapes as the formulas read: float64, one vertex and one joint at a time, rotations by the matrix exponential."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation(axis_angle: Tensor) -> Tensor:
    """Rotation matrix [3, 3] as exp of the cross-product matrix."""
    x, y, z = axis_angle.tolist()
    return torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64))


def posed(rig, params, t: int) -> Tensor:
    """Vertices [V, 3] at timestep t in FLAME's order: shape, expression, offset, joints, correctives, skinning, translation."""
    shaped = rig.template.double().clone()
    for s in range(rig.n_shape):
        shaped += float(params.shape[s]) * rig.shape_basis[s].double()
    for e in range(rig.n_expr):
        shaped += float(params.expr[t, e]) * rig.expr_basis[e].double()
    if params.static_offset is not None:
        shaped += params.static_offset.double()
    joints = rig.joint_regressor.double() @ shaped
    poses = [params.rotation[t], params.neck_pose[t], params.jaw_pose[t], params.eyes_pose[t, :3], params.eyes_pose[t, 3:]]
    local = [rotation(p.double()) for p in poses]
    if rig.pose_basis is not None:
        feature = torch.cat([(r - torch.eye(3)).flatten() for r in local[1:]])
        shaped = shaped + torch.einsum("p,pvk->vk", feature, rig.pose_basis.double())
    world: list[Tensor] = []
    for j, parent in enumerate(rig.joint_parents):
        step = torch.eye(4, dtype=torch.float64)
        step[:3, :3] = local[j]
        step[:3, 3] = joints[j] if parent < 0 else joints[j] - joints[parent]
        world.append(step if parent < 0 else world[parent] @ step)
    out = torch.zeros_like(shaped)
    for j, transform in enumerate(world):
        moved = (shaped - joints[j]) @ transform[:3, :3].T + transform[:3, 3]
        out += rig.skin_weights[:, j, None].double() * moved
    return out + params.translation[t].double()
