"""Avatars to draw: the embedded rig's head with as many Gaussians as one likes."""

from __future__ import annotations

from dataclasses import replace

import torch

from gafcore.avatars import RiggedAvatar, init_avatar
from gafcore.rigs import load_rig


def bare_head() -> RiggedAvatar:
    rig = load_rig("procedural")
    return init_avatar(rig, rig.neutral(1), opacity=0.9)


def with_count(avatar: RiggedAvatar, n: int) -> RiggedAvatar:
    """`n` Gaussians spread evenly over the triangles, each about half as large as its triangle."""
    faces = len(avatar)
    source = torch.arange(n) * faces // n if n < faces else torch.arange(n) % faces
    tensors = {name: x[source].clone() for name, x in avatar.parameters().items()}
    tensors["log_scales"] += torch.tensor([0.4, 0.05, 0.4]).log()
    tensors["means"] += 0.3 * torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return replace(avatar, binding=avatar.binding[source], **tensors)
