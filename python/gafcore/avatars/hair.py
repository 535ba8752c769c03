"""Hair as a thicker head: rigs are bald, heads are not.

Gaussians keep near their triangles, so the triangles should be near the hair. How far it stands off is read from the masks of the
training pictures: one distance for the whole scalp, and where that leaves much bare, one a vertex of scalp and neck, smooth, so that
long hair beside the neck has triangles too. The move is the rig's static offset, as in VHAP: it turns with the head, and thresholds
in triangle sizes keep their meaning.
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
# Part of the masks left bare: up to this, one thickness is all that they say (synthetic short hair and buns leave 1 %, long hair 20).
_EXPLAINED = 0.05
_SMOOTH_M = 0.02  # hair of places nearer than this stands off nearly alike
_MOST_M = 0.06  # an outline seen from the front alone could be any curtain further behind
_STEPS, _RATE = 200, 4e-3  # of descent; metres, before smoothing
_LAST_RATE, _LAST = 0.25, 2 / 3  # from this part of the steps on, so much of the rate
_DEAD = 0.2  # differences of alpha below this are the gaps and soft rims of discs
_STAY = 2.0  # weight of the mean squared move, 1/m^2: a rein on what outlines hardly show
_LIMIT = 2e5  # weight of the mean square beyond 0 and the most, 1/m^2
_LEAST_SEEN = 0.005  # of a picture: masks with less of a head in them are failures
_LONG_SIDE_PX = 256  # at which outlines are compared

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
    outlines = [one for one in outlines if float(one.mask.mean()) > _LEAST_SEEN]
    region = hair_region(capture.rig, capture.params)
    if region is None or not outlines:
        return capture.params
    thickness, bare = _best_thickness(capture, outlines, first, region)
    offset = thickness * region.scalp
    if bare > _EXPLAINED:
        offset = _fitted_offset(capture, outlines, first, region, thickness)
    return _wearing(capture, capture.params, offset) if bool(offset.any()) else capture.params


def _best_thickness(capture: Capture, outlines: list[Outline], first: First, region: HairRegion) -> tuple[float, float]:
    """The one distance of the whole scalp for which the outline differs least from the masks, metres; what part of them it leaves bare."""
    some = [outlines[i] for i in np.linspace(0, len(outlines) - 1, min(_SEARCHED, len(outlines))).round().astype(int)]

    def differences(thickness: float) -> list[Tensor]:
        with torch.no_grad():
            return [_difference(capture, one, first, thickness * region.scalp) for one in some]

    tried = [differences(thickness) for thickness in _THICKNESSES_M]
    mismatch = [sum(float(d.abs().sum()) for d in one) for one in tried]
    best = mismatch.index(min(mismatch))
    bare = sum(float(torch.relu(-d).sum()) for d in tried[best]) / max(sum(float(one.mask.sum()) for one in some), 1.0)
    return _THICKNESSES_M[best], bare


def _fitted_offset(capture: Capture, outlines: list[Outline], first: First, region: HairRegion, start: float) -> Float[Tensor, "V 3"]:
    """One distance a vertex, by descent on the masks' squared difference from `start` on the scalp and 0 on the neck, metres."""
    base = start * region.on_scalp
    field = SmoothField(base, region.edges, (_SMOOTH_M / region.edge_m) ** 2, _RATE)
    order = torch.randperm(len(outlines), generator=torch.Generator().manual_seed(0)).tolist()
    for step in range(_STEPS):
        outline, distance = outlines[order[step % len(order)]], field.values().requires_grad_()
        difference = torch.relu(_difference(capture, outline, first, region.offset(distance)).abs() - _DEAD)
        beyond = torch.relu(-distance) + torch.relu(distance - _MOST_M)
        loss = difference.square().sum() / outline.mask.sum().clamp(min=1)
        loss = loss + _STAY * (distance - base).square().mean() + _LIMIT * beyond.square().mean()
        (gradient,) = torch.autograd.grad(loss, distance)
        field.step(gradient, 1.0 if step < _LAST * _STEPS else _LAST_RATE)
    return region.offset(field.values().clamp(0, _MOST_M))


def _difference(capture: Capture, outline: Outline, first: First, offset: Float[Tensor, "V 3"]) -> Float[Tensor, "H W"]:
    """The avatar's alpha minus the mask."""
    avatar = first(_wearing(capture, capture.params[outline.timestep], offset))
    return render(avatar, [outline.camera], avatar.params).alpha[0] - outline.mask.to(offset)


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
