"""The head as hair meets it: where it is solid, where the face is, and how it moves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from gafcore.captures.synthetic.noise import smoothstep
from gafcore.rigs.base import Rig

_MAP_ROWS, _MAP_COLUMNS = 48, 96


@dataclass(frozen=True)
class Skull:
    """A neutral head seen from its centre: its radius by direction. The neck is left out, so that long hair can hang beside it."""

    center: Float[Tensor, "3"]
    radius: Float[Tensor, "rows columns"]  # by elevation (bottom to top) and azimuth (0 = +z, growing towards +x), metres
    crown: Float[Tensor, "3"]
    bun_center: Float[Tensor, "3"]
    bun_radius: float
    ear_y: float
    behind_ear_z: float
    face_min_z: float
    face_max_y: float
    face_half_width: float
    ears: tuple[Float[Tensor, "3"], Float[Tensor, "3"]]  # corners of the box around both

    @staticmethod
    def of(rig: Rig, vertices: Float[Tensor, "V 3"]) -> Skull:
        scalp = vertices[rig.regions["scalp"]]
        marks = rig.landmark_points(vertices[None], "ibug68")[0]
        low, high = scalp.amin(0), scalp.amax(0)
        brow_y, chin_y = float(marks[17:27, 1].mean()), float(marks[8, 1])
        ear_z, ear_y = float(marks[[0, 16], 2].mean()), float(marks[[0, 16], 1].mean())
        center = torch.tensor([float(marks[27, 0]), brow_y, 0.45 * float(low[2]) + 0.55 * float(high[2])])
        above_chin = rig.regions["skin"] & (vertices[:, 1] > chin_y + 0.02)
        solid = vertices[(rig.regions["scalp"] | rig.regions["face"] | above_chin) & ~rig.regions["ears"]]
        size = float(high[1]) - chin_y
        back = torch.tensor([0.0, 0.30, -1.0])
        return Skull(
            center=center,
            radius=_radius_map(solid, center),
            crown=torch.stack([center[0], high[1], 0.75 * low[2] + 0.25 * high[2]]),
            bun_center=center + back / back.norm() * (float(center[2] - low[2]) + 0.10 * size),
            bun_radius=0.19 * size,
            ear_y=ear_y,
            behind_ear_z=ear_z - 0.035,
            face_min_z=ear_z + 0.018,
            face_max_y=brow_y + 0.012,
            ears=(vertices[rig.regions["ears"]].amin(0), vertices[rig.regions["ears"]].amax(0)),
            face_half_width=float((marks[16, 0] - marks[0, 0]).abs()) / 2 * 0.97,
        )

    def outward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Unit vectors away from the middle of the head; level beside the neck."""
        away = points - self.center
        away = torch.cat([away[:, :1], away[:, 1:2].clamp_min(-0.03), away[:, 2:]], -1)
        return normalize(away, dim=-1)

    def push_out(self, points: Float[Tensor, "N 3"], clearance_m: float) -> Float[Tensor, "N 3"]:
        """Points inside the head, or nearer to it than `clearance_m`, moved out along their ray."""
        away = points - self.center
        distance = away.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        ray = away / distance
        column = torch.atan2(ray[:, 0], ray[:, 2]) / torch.pi  # -1..1
        row = torch.asin(ray[:, 1].clamp(-1, 1)) * 2 / torch.pi
        grid = torch.stack([column * _MAP_COLUMNS / (_MAP_COLUMNS + 2), row], -1)[None, None]
        padded = torch.cat([self.radius[:, -1:], self.radius, self.radius[:, :1]], 1)
        limit = grid_sample(padded[None, None], grid, align_corners=False, padding_mode="border").view(-1, 1) + clearance_m
        beside_neck = smoothstep(-0.80, -0.50, ray[:, 1:2])  # below the jaw the map has nothing to say
        return self.center + ray * torch.maximum(distance, limit * beside_neck)

    def in_face(self, points: Float[Tensor, "N 3"]) -> Bool[Tensor, "N"]:
        """Where hair would hang into the face."""
        front = (points[:, 2] > self.face_min_z) & (points[:, 1] < self.face_max_y)
        return front & ((points[:, 0] - self.center[0]).abs() < self.face_half_width)

    def at_ear(self, points: Float[Tensor, "N 3"]) -> Bool[Tensor, "N"]:
        """On an ear, or close before or behind it."""
        low, high = self.ears
        beside = (points[:, 0] - self.center[0]).abs() > 0.7 * float(high[0] - self.center[0])
        return beside & ((points[:, 1:] > low[1:] - 0.006) & (points[:, 1:] < high[1:] + 0.003)).all(-1)


def _radius_map(points: Tensor, center: Tensor) -> Float[Tensor, "rows columns"]:
    """The outermost point in each direction; directions without points take the mean of their neighbours, spreading outwards."""
    away = points - center
    distance = away.norm(dim=-1)
    row = ((torch.asin((away[:, 1] / distance).clamp(-1, 1)) / torch.pi + 0.5) * _MAP_ROWS).long().clamp(0, _MAP_ROWS - 1)
    column = ((torch.atan2(away[:, 0], away[:, 2]) / torch.pi + 1) / 2 * _MAP_COLUMNS).long().clamp(0, _MAP_COLUMNS - 1)
    cells = torch.zeros(_MAP_ROWS * _MAP_COLUMNS).scatter_reduce_(0, row * _MAP_COLUMNS + column, distance, "amax")
    radius = cells.view(_MAP_ROWS, _MAP_COLUMNS)
    known = radius > 0
    while not bool(known.all()):
        total, count = torch.zeros_like(radius), torch.zeros_like(radius)
        for shifted, valid in _neighbours(radius, known):
            total, count = total + shifted * valid, count + valid
        grown = ~known & (count > 0)
        radius = torch.where(grown, total / count.clamp_min(1), radius)
        known = known | grown
    return radius


def _neighbours(radius: Tensor, known: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Up, down, left and right; columns wrap around, rows end."""
    pairs = []
    for shift, dim in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        moved, valid = radius.roll(shift, dim), known.roll(shift, dim).float()
        if dim == 0:
            valid[0 if shift == 1 else -1] = 0
        pairs.append((moved, valid))
    return pairs


def rigid_motion(rest: Float[Tensor, "N 3"], moved: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """The rotation R and translation t that best take `rest` to `moved` (Kabsch): moved = rest R^T + t."""
    rest64, moved64 = rest.double(), moved.double()
    middle, target = rest64.mean(0), moved64.mean(0)
    u, _, vt = torch.linalg.svd((moved64 - target).T @ (rest64 - middle))
    sign = torch.diag(torch.tensor([1.0, 1.0, float(torch.sign(torch.linalg.det(u @ vt)))], dtype=torch.float64))
    rotation = u @ sign @ vt
    return rotation.float(), (target - rotation @ middle).float()
