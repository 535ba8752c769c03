"""Simple make-up for pictures of a rig: skin, hair, brows, lips, teeth, irises, each pixel painted by its place on the neutral head."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gafcore.mesh import vertex_normals
from gafcore.ops import interpolate, rasterize_mesh
from gafcore.rigs import Rig
from gafcore.rigs.regions import inside_polygon
from gafcore.types import Camera

_IRIS_RAD, _PUPIL_RAD = 0.50, 0.18  # half angles seen from the centre of the eyeball
_BROW_HALF_M = 0.004


@dataclass(frozen=True)
class Palette:
    """Colours, sRGB. `hair` None leaves the scalp bald."""

    skin: Tensor
    hair: Tensor | None
    brows: Tensor
    lips: Tensor
    iris: Tensor


def shade(
    rig: Rig, vertices: Tensor, camera: Camera, palette: Palette, key: Tensor, ambient: float = 0.5, diffuse: float = 0.6
) -> tuple[Tensor, Tensor]:
    """Image [H, W, 3] of posed vertices under an ambient and one directional light from `key`, and the mask [H, W]."""
    ids, barycentrics, _ = rasterize_mesh(vertices, rig.faces, camera.viewmat[None], camera.K[None], camera.width, camera.height)
    masks = torch.stack([rig.regions[name].float() for name in ("lips", "mouth", "teeth", "scalp", "eyes")], -1)
    attributes = torch.cat([rig.template, vertex_normals(vertices[None], rig.faces)[0], masks], -1)
    rest, normal, mask = interpolate(attributes, rig.faces, ids, barycentrics)[0].split([3, 3, 5], -1)
    color = paint(rig, rest.flatten(0, 1), mask.flatten(0, 1), palette).view_as(rest)
    light = ambient + diffuse * (torch.nn.functional.normalize(normal, dim=-1, eps=1e-9) @ key).clamp(min=0)
    return (color * light[..., None]).clamp(0, 1), ids[0] >= 0


def paint(rig: Rig, rest: Tensor, masks: Tensor, palette: Palette) -> Tensor:
    """Colours [P, 3] of points at `rest` [P, 3] on the neutral head; masks [P, 5] of lips, mouth, teeth, scalp, eyes."""
    lips, mouth, teeth, scalp, eyes = (masks > 0.5).unbind(-1)
    color = palette.skin.expand(len(rest), 3).clone()
    color[_brows(rig, rest) & ~eyes] = palette.brows
    if palette.hair is not None:
        color[scalp] = palette.hair
    color[lips] = palette.lips
    color[mouth] = torch.tensor([0.35, 0.12, 0.12])
    color[teeth] = torch.tensor([0.92, 0.9, 0.85])
    angle = gaze_angle(rig, rest)
    color[eyes] = torch.tensor([0.93, 0.92, 0.91])
    color[eyes & (angle < _IRIS_RAD)] = palette.iris
    color[eyes & (angle < _PUPIL_RAD)] = 0.03
    return color


def gaze_angle(rig: Rig, rest: Tensor) -> Tensor:
    """Angle [P] between the axis of the nearer eye and points [P, 3] of its eyeball on the neutral head, radians; pi off the eyeballs."""
    eyes = rig.joint_positions(rig.neutral())[0, 3:]
    offset = rest[:, None] - eyes
    distance, nearer = offset.norm(dim=-1).min(1)
    axis = (offset[torch.arange(len(rest)), nearer, 2] / distance.clamp(min=1e-9)).clamp(-1, 1)
    return torch.where(distance < 0.0165, axis.acos(), math.pi)


def _brows(rig: Rig, rest: Tensor) -> Tensor:
    """Points under a band along the brow landmarks 17-26."""
    points = rig.landmark_points(rig.template[None], "ibug68")[0]
    x, y, z = rest.double().numpy().T
    shift = torch.tensor([0.0, _BROW_HALF_M])
    inside = torch.zeros(len(rest), dtype=torch.bool)
    for line in (points[17:22, :2], points[22:27, :2]):
        band = torch.cat([line + shift, (line - shift).flip(0)])
        inside |= torch.from_numpy(inside_polygon(x, y, band.double().numpy()) & (z > 0.02))
    return inside
