"""Hair as a thicker head: rigs are bald, heads are not.

Gaussians keep near their triangles, so the triangles should be near the hair. How far it stands off is read from the masks of the
training pictures: first one distance for the whole scalp, then one a vertex of scalp and neck, smooth, so that long hair beside the neck
has triangles too. The move is the rig's static offset, as in VHAP: it turns with the head, and thresholds in triangle sizes keep their meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.avatars.frames import checked_mask
from gafcore.avatars.hair_region import HairRegion, hair_region
from gafcore.avatars.rigged import RiggedAvatar, render
from gafcore.avatars.smooth_field import SmoothField
from gafcore.rigs.offsets import with_static_offset
from gafcore.types import Camera, Capture, Frame, RigParams

_THICKNESSES_M = tuple(0.0025 * i for i in range(17))  # 0 to 4 cm
_SEARCHED = 6  # frames for that
_SMOOTH_M = 0.03  # hair of places nearer than this stands off nearly alike
_MOST_M = 0.06  # an outline seen from the front alone could be any curtain further behind
_STEPS, _RATE = 200, 2e-2  # of Adam, metres
_LAST_RATE, _LAST = 0.25, 2 / 3  # from this part of the steps on, so much of the rate
_LONG_SIDE_PX = 256  # at which outlines are compared
import os
KAP = float(os.environ.get('KAP','1000'))
_DEAD = 0.2

First = Callable[[RigParams], RiggedAvatar]


@dataclass(frozen=True)
class Outline:
    """The mask of one frame, with a camera of its size."""

    camera: Camera
    timestep: int
    mask: Float[Tensor, "H W"]


def with_hair(capture: Capture, frames: list[Frame], first: First) -> RigParams:
    """The capture's rig parameters with scalp and neck at the hair's surface; unchanged where rig or masks say nothing about it.

    `first` makes the avatar that fitting would start from on given rig parameters: its outline is a little larger than the mesh's.
    """
    outlines = [_outline(frame, mask) for frame in frames if (mask := checked_mask(frame)) is not None]
    region = hair_region(capture.rig, capture.params)
    if region is None or not outlines:
        return capture.params
    thickness = _best_thickness(capture, outlines, first, region)
    return _wearing(capture, capture.params, _fitted_offset(capture, outlines, first, region, thickness))


def _best_thickness(capture: Capture, outlines: list[Outline], first: First, region: HairRegion) -> float:
    """The one distance of the whole scalp for which the avatar's outline differs least from the masks, metres."""
    some = [outlines[i] for i in np.linspace(0, len(outlines) - 1, min(_SEARCHED, len(outlines))).round().astype(int)]

    def mismatch(thickness: float) -> float:
        with torch.no_grad():
            return sum(float(_difference(capture, one, first, thickness * region.scalp).abs().sum()) for one in some)

    return min(_THICKNESSES_M, key=mismatch)


def _fitted_offset(capture: Capture, outlines: list[Outline], first: First, region: HairRegion, start: float) -> Float[Tensor, "V 3"]:
    """One distance a vertex, by gradient descent on the masks' squared difference from `start` on the scalp and 0 on the neck, metres."""
    field = SmoothField(start * region.on_scalp, region.edges, (_SMOOTH_M / region.edge_m) ** 2, _RATE)
    base = start * region.on_scalp
    order = torch.randperm(len(outlines), generator=torch.Generator().manual_seed(0)).tolist()
    for step in range(_STEPS):
        raw = field.values()
        distance = raw.clamp(0, _MOST_M).requires_grad_()
        difference = _difference(capture, outlines[order[step % len(order)]], first, region.offset(distance))
        import os
        if os.environ.get("HV")=="Q":
            distance = raw.clone().requires_grad_()
            difference = _difference(capture, outlines[order[step % len(order)]], first, region.offset(distance))
            beyond = torch.relu(-distance) + torch.relu(distance - _MOST_M)
            (gradient,) = torch.autograd.grad(100*torch.relu(difference.abs() - _DEAD).square().mean()+1e7*beyond.square().mean(), distance)
            field.step(gradient, 1.0 if step < _LAST * _STEPS else _LAST_RATE); continue
        (gradient,) = torch.autograd.grad(100*torch.relu(difference.abs() - _DEAD).square().mean()+KAP*(distance-base).square().mean(), distance)
        outwards = (raw <= 0) & (gradient > 0) | (raw >= _MOST_M) & (gradient < 0)
        field.step(gradient.masked_fill(outwards, 0.0), 1.0 if step < _LAST * _STEPS else _LAST_RATE)
    return region.offset(field.values().clamp(0, _MOST_M))


def _difference(capture: Capture, outline: Outline, first: First, offset: Float[Tensor, "V 3"]) -> Float[Tensor, "H W"]:
    """The avatar's alpha minus the mask."""
    avatar = first(_wearing(capture, capture.params[outline.timestep], offset))
    return render(avatar, [outline.camera], avatar.params).alpha[0] - outline.mask


def _wearing(capture: Capture, params: RigParams, offset: Float[Tensor, "V 3"]) -> RigParams:
    return with_static_offset(capture.rig, params, offset if params.static_offset is None else params.static_offset + offset)


def _outline(frame: Frame, mask: Float[Tensor, "H W"]) -> Outline:
    """Halved as often as it takes to be small enough."""
    camera = frame.camera
    while max(mask.shape) > _LONG_SIDE_PX and min(mask.shape) >= 2:
        height, width = (n // 2 * 2 for n in mask.shape)
        mask = mask[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
        camera = replace(camera, K=camera.K * camera.K.new_tensor([[0.5], [0.5], [1.0]]), width=width // 2, height=height // 2)
    return Outline(camera, frame.timestep, mask)
