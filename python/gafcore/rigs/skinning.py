"""Posing: rotations from axis-angle, blendshapes as one product, forward kinematics. (`gafcore.linear_blend_skinning` moves the mesh.)

Pure functions of float tensors, batched over B timesteps and differentiable everywhere, zero rotation included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

# Below this squared angle sin(t)/t and (1 - cos t)/t^2 come from their series: exact to double precision, and smooth at zero.
_SERIES_BELOW = 1e-2


def axis_angle_to_matrix(rotation: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation matrices of axis-angle vectors, radians (Rodrigues' formula)."""
    angle2 = (rotation * rotation).sum(-1)[..., None, None]
    near = angle2 < _SERIES_BELOW
    safe = torch.where(near, torch.ones_like(angle2), angle2)  # keeps sqrt and the divisions away from zero, where their gradients blow up
    angle, half = safe.sqrt(), (safe / 4).sqrt()
    sin_term = torch.where(near, _series(angle2, (1.0, 6.0, 120.0, 5040.0, 362880.0)), angle.sin() / angle)
    cos_term = torch.where(near, _series(angle2, (2.0, 24.0, 720.0, 40320.0, 3628800.0)), half.sin() ** 2 / (2 * half * half))
    x, y, z = rotation.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    return identity + sin_term * cross + cos_term * (cross @ cross)


def _series(x: Tensor, denominators: Sequence[float]) -> Tensor:
    """Alternating power series sum_k (-x)^k / denominators[k]."""
    total = torch.zeros_like(x)
    for denominator in reversed(denominators):
        total = 1 / denominator - x * total
    return total


def blend(base: Float[Tensor, "V 3"], basis: Float[Tensor, "K V 3"], weights: Float[Tensor, "B K"]) -> Float[Tensor, "B V 3"]:
    """`base + weights x basis`: one matrix product over the flattened mesh."""
    flat = torch.addmm(base.reshape(1, -1), weights, basis.flatten(1))
    return flat.unflatten(-1, (-1, 3))


def joint_transforms(
    rotations: Float[Tensor, "B J 3 3"], joints: Float[Tensor, "B J 3"], parents: Sequence[int]
) -> tuple[Float[Tensor, "B J 3 3"], Float[Tensor, "B J 3"]]:
    """World transforms of the joints relative to the rest pose: a rest point x bound to joint j goes to `R[j] x + t[j]`.

    Args:
        rotations: Each joint's own rotation, relative to its parent.
        joints: Rest positions, metres.
        parents: Parent of each joint, -1 for the root; a parent comes before its children.
    """
    world_rotations: list[Tensor] = []
    world_positions: list[Tensor] = []
    for j, parent in enumerate(parents):
        if parent < 0:
            world_rotations.append(rotations[:, j])
            world_positions.append(joints[:, j])
            continue
        bone = (joints[:, j] - joints[:, parent])[..., None]
        world_positions.append(world_positions[parent] + (world_rotations[parent] @ bone)[..., 0])
        world_rotations.append(world_rotations[parent] @ rotations[:, j])
    rotation, position = torch.stack(world_rotations, 1), torch.stack(world_positions, 1)
    return rotation, position - (rotation @ joints[..., None])[..., 0]
