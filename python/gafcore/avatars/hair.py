"""Hair as a thicker scalp: rigs are bald, heads are not.

Gaussians keep near their triangles, so the triangles should be near the hair. How far it stands off is read from the masks: the scalp
is moved out along its normals by the one distance for which the avatar's outline fits best. The move is the rig's static offset,
as in VHAP, so it turns with the head and thresholds in triangle sizes keep their meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.avatars.frames import checked_mask
from gafcore.avatars.rigged import RiggedAvatar, render
from gafcore.mesh import vertex_normals
from gafcore.rigs import Rig
from gafcore.types import Capture, Frame, RigParams

_THICKNESSES_M = tuple(0.0025 * i for i in range(17))  # 0 to 4 cm
_SMOOTHING = 4  # rounds of averaging over neighbours: the hairline is a slope, not a step


def with_hair(capture: Capture, frames: list[Frame], first: Callable[[RigParams], RiggedAvatar]) -> RigParams:
    """The capture's rig parameters with the scalp at the hair's surface; unchanged where rig or masks say nothing about it.

    `first` makes the avatar that fitting would start from on given rig parameters: its outline is a little larger than the mesh's.
    """
    masked = [(frame, mask) for frame in frames if (mask := checked_mask(frame)) is not None]
    direction = scalp_direction(capture.rig, capture.params)
    if direction is None or not masked:
        return capture.params
    mismatch = []
    for thickness in _THICKNESSES_M:
        avatar = first(_offset(capture.params, thickness * direction))
        mismatch.append(sum(_mismatch(avatar, frame, mask) for frame, mask in masked))
    best = _THICKNESSES_M[mismatch.index(min(mismatch))]
    return _offset(capture.params, best * direction) if best > 0 else capture.params


def scalp_direction(rig: Rig, params: RigParams) -> Float[Tensor, "V 3"] | None:
    """Outward normals at rest on the scalp, fading out over its rim, zero elsewhere; None where the rig names no scalp."""
    scalp = rig.regions.get("scalp")
    if scalp is None or not bool(scalp.any()):
        return None
    weight = scalp.to(rig.template.dtype)
    edges = torch.cat([rig.faces[:, [0, 1]], rig.faces[:, [1, 2]], rig.faces[:, [2, 0]]])
    edges = torch.cat([edges, edges.flip(1)])
    degree = torch.zeros_like(weight).index_add_(0, edges[:, 0], weight.new_ones(edges.shape[0])).clamp(min=1)
    for _ in range(_SMOOTHING):
        weight = torch.zeros_like(weight).index_add_(0, edges[:, 0], weight[edges[:, 1]]) / degree
    rest = replace(rig.neutral(1), shape=params.shape, static_offset=params.static_offset)
    normals = vertex_normals(rig.vertices(rest)[0], rig.faces)
    return weight[:, None] * normals


def _offset(params: RigParams, offset: Float[Tensor, "V 3"]) -> RigParams:
    return replace(params, static_offset=offset if params.static_offset is None else params.static_offset + offset)


def _mismatch(avatar: RiggedAvatar, frame: Frame, mask: Float[Tensor, "H W"]) -> float:
    """Area, in pixels, that only one of avatar and mask covers."""
    with torch.no_grad():
        alpha = render(avatar, [frame.camera], avatar.params[frame.timestep]).alpha[0]
    return float((alpha - mask).abs().sum())
