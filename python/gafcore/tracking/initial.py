"""A start for the solver: each frame's head pose by scaled orthography, in closed form (DeMenthon and Davis 1995, first step of POS)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Poses:
    """Head poses: axis-angle and the scale of the picture of the face."""

    rotation: Float[Tensor, "T 3"]
    centroid_px: Float[Tensor, "T 2"]
    px_per_m: Float[Tensor, "T"]


def orthographic_poses(points: Float[Tensor, "L 3"], pixels: Float[Tensor, "T L 2"]) -> Poses:
    """Rotation, place and scale under which a rigid set of points looks most like `pixels` (image y down, head y up)."""
    centroid_px = pixels.mean(1)
    image = (pixels - centroid_px[:, None]) * pixels.new_tensor([1.0, -1.0])
    # Not lstsq: its default driver pivots by what it finds in uninitialised memory (seen in torch 2.13), so its last bits do not repeat.
    affine = (torch.linalg.pinv(points - points.mean(0)) @ image).mT  # [T, 2, 3]
    u, s, vh = torch.linalg.svd(affine, full_matrices=False)
    rows = u @ vh
    rotation = torch.cat([rows, torch.linalg.cross(rows[:, :1], rows[:, 1:])], 1)
    return Poses(matrix_to_axis_angle(rotation), centroid_px, s.mean(1))


def matrix_to_axis_angle(rotation: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3"]:
    """The shortest axis-angle of a rotation matrix; stable at 0 and at pi, by way of the quaternion."""
    m = rotation
    trace = m.diagonal(dim1=-2, dim2=-1).sum(-1)
    # Four ways to a quaternion, each good where its own component is large (Shepperd 1978).
    d = m.diagonal(dim1=-2, dim2=-1)
    squares = torch.stack([1 + trace, *(1 + 2 * d[..., i] - trace for i in range(3))], -1)
    x, y, z = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    s = squares
    ways = torch.stack(
        [
            torch.stack([s[..., 0], x, y, z], -1),
            torch.stack([x, s[..., 1], xy, xz], -1),
            torch.stack([y, xy, s[..., 2], yz], -1),
            torch.stack([z, xz, yz, s[..., 3]], -1),
        ],
        -2,
    )
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quat = torch.nn.functional.normalize(ways.gather(-2, best)[..., 0, :], dim=-1)
    quat = torch.where(quat[..., :1] < 0, -quat, quat)
    sine = quat[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, quat[..., :1])
    return quat[..., 1:] * torch.where(sine > 1e-9, angle / sine.clamp(min=1e-9), torch.full_like(sine, 2.0))


def bridge(values: Float[Tensor, "F K"], found: Bool[Tensor, "T"], times_s: Float[Tensor, "T"]) -> Float[Tensor, "T K"]:
    """Rows for all T frames from those of the F found ones: linear in time between neighbours, constant beyond the ends."""
    known = torch.nonzero(found)[:, 0]
    frames = torch.arange(len(found))
    right = torch.searchsorted(known, frames).clamp(max=len(known) - 1)
    left = torch.where(known[right] > frames, right - 1, right).clamp(min=0)
    time = times_s.to(values.dtype)
    span = time[known[right]] - time[known[left]]
    share = ((time - time[known[left]]) / span.clamp(min=1e-9)).clamp(0, 1)
    return values[left] + share[:, None] * (values[right] - values[left])
