"""GaussianAvatars' binding with rotation matrices only, in torch: no quaternion algebra to share a mistake with the kernel."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_of(quats: Tensor) -> Tensor:
    """[..., 4] wxyz of any length to [..., 3, 3]: what v -> q v q* does to the unit vectors (Rodrigues' form)."""
    w, u = quats[..., :1, None] / quats.norm(dim=-1)[..., None, None], quats[..., 1:] / quats.norm(dim=-1, keepdim=True)
    zero = torch.zeros_like(u[..., 0])
    k = torch.stack([zero, -u[..., 2], u[..., 1], u[..., 2], zero, -u[..., 0], -u[..., 1], u[..., 0], zero], -1).reshape(*zero.shape, 3, 3)
    return torch.eye(3, dtype=quats.dtype, device=quats.device) + 2 * w * k + 2 * k @ k


def bind_triangles(
    vertices: Tensor, faces: Tensor, binding: Tensor, means: Tensor, quats: Tensor, log_scales: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """World means [B, N, 3], rotation matrices [B, N, 3, 3] and standard deviations [B, N, 3]; differentiable."""
    v0, v1, v2 = vertices[:, faces[binding]].unbind(-2)
    edge = torch.nn.functional.normalize(v1 - v0, dim=-1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(edge, v2 - v0, dim=-1), dim=-1)
    third = torch.linalg.cross(edge, normal, dim=-1)
    frame = torch.stack([edge, normal, third], -1)
    height = ((v2 - v0) * third).sum(-1).abs()
    size = ((v1 - v0).norm(dim=-1) + height)[..., None] / 2
    world_means = size * (frame @ means[..., None])[..., 0] + (v0 + v1 + v2) / 3
    return world_means, frame @ rotation_of(quats), size * log_scales.exp()
