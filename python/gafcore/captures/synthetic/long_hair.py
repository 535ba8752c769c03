"""Hair that hangs: parted, beside the face and behind the ears, over neck and shoulders; straight or wavy, some with a fringe."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from gafcore.captures.synthetic.noise import Noise3, generator, smoothstep, uniform
from gafcore.captures.synthetic.skull import Skull
from gafcore.rigs.base import Rig

_SEGMENTS = 16
_PATH = 1.12  # a lock's way to the hem is so much longer than straight down
_ROUNDED_M = 0.045  # and by so much over the skull
_FRINGE_DEG, _FRINGE_HALF_WIDTH_M = 40.0, 0.05  # roots so far in front of the crown, and so near the middle
_BACK = 0.4  # of what locks beside the face hang too far ahead, so much a step
_NECK_ROWS, _NECK_COLUMNS = 12, 24


@dataclass(frozen=True)
class Cut:
    """One person's way of wearing it. Lengths in metres, shares 0..1."""

    parting: float  # towards +x from the middle of the head
    parting_slant: float  # of the parting towards +x for each metre backwards
    hem: float  # of the tips below the crown
    ragged: float  # how much shorter locks may be
    volume: float  # thickness of the hair's layer beside the head
    wave: float  # half of a wave's width
    wave_length: float
    fringe: bool
    tucked: tuple[bool, bool]  # behind the ear on the side of +x, of -x
    forward: tuple[float, float]  # share of the locks there that fall before the shoulder
    tips: float  # how much lighter tips are
    streaks: float  # how much locks differ in brightness, beside what all hair does

    @staticmethod
    def random(seed: int, length: float = 1.0) -> Cut:
        rng = generator(seed, "long hair")
        middle, wavy = uniform(rng, 0, 1) < 0.45, uniform(rng, 0, 1) < 0.55
        parting = uniform(rng, -0.008, 0.008) if middle else math.copysign(uniform(rng, 0.015, 0.04), uniform(rng, -1, 1))
        return Cut(
            parting=parting,
            parting_slant=uniform(rng, -0.15, 0.15),
            hem=length * uniform(rng, 0.24, 0.34),
            ragged=uniform(rng, 0.03, 0.3),
            volume=uniform(rng, 0.005, 0.022),
            wave=uniform(rng, 0.003, 0.011) if wavy else uniform(rng, 0, 0.0015),
            wave_length=uniform(rng, 0.05, 0.11),
            fringe=uniform(rng, 0, 1) < 0.3,
            tucked=(uniform(rng, 0, 1) < 0.25, uniform(rng, 0, 1) < 0.25),
            forward=(uniform(rng, 0, 0.7), uniform(rng, 0, 0.7)),
            tips=max(0.0, uniform(rng, -0.6, 0.8)),
            streaks=max(0.0, uniform(rng, -0.3, 0.5)),
        )

    def comb(self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], skull: Skull) -> Float[Tensor, "n 3"]:
        """Direction along the scalp: away from the parting and back, further down and behind straight down."""
        middle_z = float(skull.center[2])
        behind = smoothstep(middle_z - 0.01, middle_z - 0.07, points[:, 2:3])
        below = torch.maximum(behind, smoothstep(0.05, 0.0, points[:, 1:2] - skull.ear_y))
        sideways = self.side(points, skull)[:, None] * torch.tensor([1.2, 0.0, 0.0]) + torch.tensor([0.0, -0.4, -0.7])
        wish = sideways + below * (torch.tensor([0.0, -2.0, 0.0]) - 0.8 * sideways)
        return normalize(wish - (wish * normals).sum(-1, keepdim=True) * normals, dim=-1)

    def side(self, points: Float[Tensor, "n 3"], skull: Skull) -> Float[Tensor, "n"]:
        """On which side of the parting, 1 or -1."""
        line = skull.center[0] + self.parting + self.parting_slant * (skull.crown[2] - points[:, 2])
        return torch.where(points[:, 0] > line, 1.0, -1.0)

    def tone(self, n: int, n_points: int, rng: torch.Generator) -> Float[Tensor, "n S"]:
        """Brightness along each lock, relative to the hair's."""
        lock = 1 + self.streaks * (2 * torch.rand(n, 1, generator=rng) - 1)
        return lock * (1 + self.tips * smoothstep(0.4, 1.0, torch.linspace(0, 1, n_points)))


def hang(
    roots: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], cut: Cut, skull: Skull, neck: Neck, rng: torch.Generator
) -> Float[Tensor, "n S+1 3"]:
    """Locks step by step from roots on the scalp: along the comb, then down, over head and shoulders, out of the face."""
    n = len(roots)
    noise = Noise3(rng)
    side = cut.side(roots, skull)
    layer, curtain, chance = torch.rand(3, n, generator=rng)
    fringe = _fringe(roots, skull) if cut.fringe else torch.zeros(n, dtype=torch.bool)
    hem = skull.crown[1] - cut.hem
    lengths = (_PATH * (roots[:, 1] - hem) + _ROUNDED_M).clamp_min(0.03) * (1 - cut.ragged * torch.rand(n, generator=rng))
    lengths = torch.where(fringe, 0.085, lengths)
    clump = torch.stack([noise(roots + 0.1 * k, 0.025, 2) for k in (1, 2, 3)], -1)
    combed = torch.where(fringe[:, None], _forwards(normals), cut.comb(roots, normals, skull))
    direction = normalize(0.25 * normals + combed + 0.2 * clump, dim=-1)
    left = side > 0
    tucked = torch.where(left, torch.tensor(cut.tucked[0]), torch.tensor(cut.tucked[1])) & ~fringe
    before = chance < torch.where(left, torch.tensor(cut.forward[0]), torch.tensor(cut.forward[1]))
    before = before & ~tucked & (roots[:, 2] > skull.center[2] - 0.03)
    point, points = roots - 0.002 * normals, [roots - 0.002 * normals]
    step_m = (lengths / _SEGMENTS)[:, None]
    gravity, hug = torch.where(fringe, 9.0, 3.0)[:, None], torch.where(fringe, 1.0, 0.6)[:, None]
    for step in range(_SEGMENTS):
        direction = normalize(direction + torch.tensor([0.0, -1.0, 0.0]) * gravity * step_m / 0.1, dim=-1)
        outward = skull.outward(point)
        rising = (direction * outward).sum(-1, keepdim=True).clamp_min(0)
        direction = normalize(direction - hug * (step > 0) * rising * outward, dim=-1)
        moved = _off_the_head(point + step_m * direction, skull, 0.006 + cut.volume * layer * min(1.0, (step + 1) / 5))
        moved = _behind_ear(moved, skull, tucked)
        moved = neck.push_out(moved, 0.004 + 0.5 * cut.volume * layer, before)
        moved = _beside_face(moved, skull, side, curtain, fringe)
        moved = torch.where((fringe & (moved[:, 1] < skull.face_max_y - 0.014 * curtain - 0.004))[:, None], point, moved)
        heading = moved - point
        direction = torch.where(heading.norm(dim=-1, keepdim=True) > 1e-5, normalize(heading, dim=-1), direction)
        point = moved
        points.append(point)
    return _waved(_smoothed(torch.stack(points, 1)), roots, cut, skull, noise)


def _fringe(roots: Tensor, skull: Skull) -> Bool[Tensor, "n"]:
    away = roots - skull.center
    ahead = torch.atan2(away[:, 2], away[:, 1]).rad2deg() > _FRINGE_DEG
    return ahead & (away[:, 0].abs() < _FRINGE_HALF_WIDTH_M)


def _forwards(normals: Tensor) -> Tensor:
    wish = torch.tensor([0.0, -0.3, 1.0]).expand_as(normals) + normals * torch.tensor([0.6, 0.0, 0.0])
    return normalize(wish - (wish * normals).sum(-1, keepdim=True) * normals, dim=-1)


def _off_the_head(points: Tensor, skull: Skull, clearance_m: Float[Tensor, "n"]) -> Tensor:
    away = points - skull.center
    pushed = skull.push_out(points, 0.0)
    room = (pushed - points).norm(dim=-1) > 0  # at the skull: lifted to the lock's own layer
    ray = normalize(away, dim=-1)
    near = skull.push_out(points - ray * clearance_m[:, None], 0.0) + ray * clearance_m[:, None]
    farther = (near - skull.center).norm(dim=-1) > away.norm(dim=-1)
    return torch.where((room | farther)[:, None], near, points)


def _behind_ear(points: Tensor, skull: Skull, tucked: Bool[Tensor, "n"]) -> Tensor:
    """Tucked locks pass behind the ear."""
    top = float(skull.ears[1][1])
    excess = (points[:, 2] - skull.behind_ear_z).clamp_min(0) * smoothstep(top + 0.02, top - 0.01, points[:, 1])
    return points - (tucked * excess)[:, None] * torch.tensor([0.0, 0.0, 1.0])


def _beside_face(points: Tensor, skull: Skull, side: Tensor, curtain: Tensor, fringe: Bool[Tensor, "n"]) -> Tensor:
    """Locks that would hang into the face hang beside it, close to the cheeks: a curtain with an uneven edge."""
    least = skull.face_half_width * (0.9 + 0.2 * curtain)
    low = skull.face_max_y + 0.02
    weight = smoothstep(low, low - 0.035, points[:, 1]) * ~fringe
    ahead = smoothstep(skull.face_min_z - 0.01, skull.face_min_z + 0.01, points[:, 2])
    sideways = (points[:, 0] - skull.center[0]) * side
    push = weight * ahead * (least - sideways).clamp_min(0) * side
    back = weight * (points[:, 2] - skull.face_min_z - 0.03 * curtain).clamp_min(0) * _BACK
    return points + torch.stack([push, torch.zeros_like(push), -back], -1)


def _smoothed(points: Float[Tensor, "n S 3"]) -> Float[Tensor, "n S 3"]:
    """Where locks were pushed aside they bend, but do not break."""
    for _ in range(2):
        middle = (points[:, :-2] + 2 * points[:, 1:-1] + points[:, 2:]) / 4
        points = torch.cat([points[:, :1], middle, points[:, -1:]], 1)
    return points


def _waved(points: Float[Tensor, "n S 3"], roots: Tensor, cut: Cut, skull: Skull, noise: Noise3) -> Float[Tensor, "n S 3"]:
    """Neighbouring locks wave together, more towards the tips."""
    heading = torch.cat([points[:, 1:] - points[:, :-1], points[:, -1:] - points[:, -2:-1]], 1)
    along = torch.cat([torch.zeros_like(heading[:, :1, 0]), heading[:, :-1].norm(dim=-1).cumsum(1)], 1)
    outward = skull.outward(points.flatten(0, 1)).view_as(points)
    across = normalize(torch.linalg.cross(heading, outward) + 1e-9, dim=-1)
    phase = 2 * math.pi * (along / cut.wave_length + 1.5 * noise(roots, 0.03, 2)[:, None])
    size = cut.wave * smoothstep(0.04, 0.16, along)
    return points + (size * phase.sin())[..., None] * across + (0.5 * size * (1 + phase.cos()))[..., None] * outward


@dataclass(frozen=True)
class Neck:
    """Neck and shoulders as hair meets them: how far they reach from the neck's axis, by height and azimuth."""

    axis: Float[Tensor, "2"]  # x, z
    low: float
    high: float  # above it the skull is what hair meets
    radius: Float[Tensor, "rows columns"]  # bottom to top; azimuth 0 = +z, growing towards +x, metres

    @staticmethod
    def of(rig: Rig, vertices: Float[Tensor, "V 3"]) -> Neck:
        """Of a neutral head; without a region "neck", nothing is in the way."""
        neck = vertices[rig.regions["neck"]] if "neck" in rig.regions else vertices[:0]
        if not len(neck):
            return Neck(torch.zeros(2), 0.0, 1.0, torch.zeros(_NECK_ROWS, _NECK_COLUMNS))
        low, high = float(neck[:, 1].min()), float(neck[:, 1].max())
        axis = neck[:, [0, 2]].mean(0)
        away = neck[:, [0, 2]] - axis
        row = ((neck[:, 1] - low) / (high - low) * _NECK_ROWS).long().clamp(0, _NECK_ROWS - 1)
        column = ((torch.atan2(away[:, 0], away[:, 1]) / math.pi + 1) / 2 * _NECK_COLUMNS).long().clamp(0, _NECK_COLUMNS - 1)
        cells = torch.zeros(_NECK_ROWS * _NECK_COLUMNS)
        cells.scatter_reduce_(0, row * _NECK_COLUMNS + column, away.norm(dim=-1), "amax")
        radius = cells.view(_NECK_ROWS, _NECK_COLUMNS)
        for _ in range(_NECK_COLUMNS // 2):  # places without vertices take their neighbours' along the row
            radius = torch.where(radius > 0, radius, torch.maximum(radius.roll(1, 1), radius.roll(-1, 1)))
        return Neck(axis, low, high, radius)

    def push_out(self, points: Float[Tensor, "n 3"], clearance_m: Float[Tensor, "n"], before: Bool[Tensor, "n"]) -> Float[Tensor, "n 3"]:
        """Points inside moved out: beside the neck away from it, on the shoulders to the front (`before`) or the back."""
        away = points[:, [0, 2]] - self.axis
        distance = away.norm(dim=-1).clamp_min(1e-6)
        row = ((points[:, 1] - self.low) / (self.high - self.low) * _NECK_ROWS).long().clamp(0, _NECK_ROWS - 1)
        column = ((torch.atan2(away[:, 0], away[:, 1]) / math.pi + 1) / 2 * _NECK_COLUMNS).long().clamp(0, _NECK_COLUMNS - 1)
        inside = (self.radius[row, column] + clearance_m - distance).clamp_min(0) * (points[:, 1] < self.high)
        shoulder = smoothstep(0.45, 0.25, (points[:, 1] - self.low) / (self.high - self.low))[:, None]
        out = away / distance[:, None]
        fall = torch.stack([0.4 * out[:, 0], torch.where(before, 1.0, -1.0)], -1)
        move = inside[:, None] * normalize(out + shoulder * (fall - out), dim=-1)
        return points + torch.stack([move[:, 0], torch.zeros_like(inside), move[:, 1]], -1)
