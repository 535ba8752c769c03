"""Hair: locks grown from the scalp over a cap, combed by style. It is no part of the rig, and moves with the skull."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from gafcore.captures.synthetic.atlas import smooth_over_mesh
from gafcore.captures.synthetic.long_hair import Cut, Neck, hang
from gafcore.captures.synthetic.look import Look
from gafcore.captures.synthetic.noise import Noise3, generator, smoothstep
from gafcore.captures.synthetic.skull import Skull
from gafcore.mesh import vertex_normals
from gafcore.rigs.base import Rig

_SIDES = 3  # a lock is a tapered three-sided tube


@dataclass(frozen=True)
class Hair:
    """A mesh on the neutral head with what shading needs at each vertex. Empty for bald heads."""

    vertices: Float[Tensor, "H 3"]
    faces: Int[Tensor, "G 3"]
    normals: Float[Tensor, "H 3"]
    tangents: Float[Tensor, "H 3"]  # along the lock, towards the tip
    albedo: Float[Tensor, "H 3"]
    shine: Float[Tensor, "H 1"]  # how much of a lock's highlight it shows


@dataclass(frozen=True)
class _Style:
    """How locks grow. Lengths in metres."""

    n_locks: int
    segments: int
    length: float
    width: float
    lift: float  # how far roots stand up from the scalp, 0..1
    hug: float  # how closely locks follow the skull rather than their own direction, 0..1
    gravity: float  # bend towards the ground for each 10 cm grown
    back: float  # combed backwards rather than away from the crown, 0..1
    cap: float  # thickness of the layer beneath the locks
    clearance: float  # from the head to the middle of a lock
    curl: float = 0.0  # radius of curls
    clear_ears: bool = False


_STYLES = {
    "buzz": _Style(9000, 1, 0.006, 0.0017, 0.9, 0.0, 0.0, 0.3, cap=0.0015, clearance=0.0),
    "short": _Style(3400, 6, 0.045, 0.0034, 0.25, 0.8, 0.2, 0.45, cap=0.006, clearance=0.011, clear_ears=True),
    "curly": _Style(2400, 9, 0.062, 0.0052, 0.60, 0.0, 0.45, 0.2, cap=0.014, clearance=0.010, curl=0.0045),
    "bob": _Style(2600, 9, 0.190, 0.0040, 0.25, 0.3, 2.2, 0.35, cap=0.006, clearance=0.012),
    "bun": _Style(2600, 9, 0.110, 0.0034, 0.05, 1.0, 0.0, 1.0, cap=0.005, clearance=0.008),
    "long": _Style(2600, 16, 1.0, 0.0042, 0.25, 0.6, 3.0, 0.35, cap=0.006, clearance=0.006),  # how it hangs is long_hair.py's
}


def grow_hair(rig: Rig, vertices: Float[Tensor, "V 3"], look: Look, seed: int, *, detail: float = 1.0, length: float = 1.0) -> Hair:
    """Hair of the look's style on the neutral head of a person ([V, 3], metres).

    Args:
        rig: Whose scalp it grows on.
        vertices: The neutral head.
        look: Style and colour.
        seed: Chooses the locks.
        detail: Share of the style's locks; fewer are wider, so that the head stays covered. Small pictures need few.
        length: Of the locks, relative to the style's.
    """
    if look.hair_style == "bald":
        return _empty()
    style, skull = _STYLES[look.hair_style], Skull.of(rig, vertices)
    if detail != 1 or length != 1:
        fewer = int(style.n_locks * detail)
        style = replace(style, n_locks=fewer, width=style.width / math.sqrt(detail), length=style.length * length)
    rng = generator(seed, "hair")
    noise = Noise3(rng)
    cut = Cut.random(seed, length) if look.hair_style == "long" else None
    parts = [_cap(rig, vertices, skull, style, look, noise, cut)]
    if cut is not None:
        roots, normals = _roots(rig, vertices, skull, style.n_locks, rng)
        locks = _tubes(hang(roots, normals, cut, skull, Neck.of(rig, vertices), rng), style, look, skull, rng)
        tone = cut.tone(style.n_locks, style.segments + 1, rng)[..., None].expand(-1, -1, _SIDES)
        parts.append(replace(locks, albedo=(locks.albedo * tone.reshape(-1, 1)).clamp_max(0.9)))
    elif style.n_locks:
        roots, normals = _roots(rig, vertices, skull, style.n_locks, rng)
        parts.append(_tubes(_grow(roots, normals, style, look.hair_style, skull, noise, rng), style, look, skull, rng))
    if look.hair_style == "bun":
        parts.append(_bun(skull, look, noise, rng))
    return _join(parts)


def _cap(rig: Rig, vertices: Tensor, skull: Skull, style: _Style, look: Look, noise: Noise3, cut: Cut | None) -> Hair:
    """The scalp lifted off itself, level with the skin at the hair line."""
    inside = rig.regions["scalp"]
    depth = smoothstep(0.45, 1.0, smooth_over_mesh(rig.faces, inside.float(), 6))
    normals = normalize(0.5 * vertex_normals(vertices, rig.faces) + 0.5 * skull.outward(vertices), dim=-1)
    rough = 1 + 0.5 * noise(vertices, 0.012, 2)
    raised = vertices + normals * (style.cap * depth * rough + 0.0012 * (depth > 0) - 0.0025 * (depth == 0))[:, None]
    chosen = rig.faces[inside[rig.faces].all(1)]
    used, faces = torch.unique(chosen, return_inverse=True)
    combed = (vertices[used], normals[used])
    tangents = _comb(*combed, style, look.hair_style, skull) if cut is None else cut.comb(*combed, skull)
    shade = (0.75 + 0.25 * noise(vertices[used], 0.003, 2)).clamp(0.3, 1)
    matt = torch.full((len(used), 1), 0.15 if style.n_locks > 5000 else 0.5)
    return Hair(raised[used], faces, normals[used], tangents, look.hair * shade[:, None], matt)


def _roots(rig: Rig, vertices: Tensor, skull: Skull, n: int, rng: torch.Generator) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Points spread evenly by area over the scalp, with the surface normals there."""
    faces = rig.faces[rig.regions["scalp"][rig.faces].all(1)]
    middle = vertices[faces].mean(1)
    faces = faces[(middle[:, 1] > skull.ear_y) | (middle[:, 2] < skull.behind_ear_z)]  # none around the ear lobes
    corners = vertices[faces]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    # Stratified along the running area, so that no patch is left empty.
    cumulative = areas.double().cumsum(0)
    picks = (torch.arange(n) + torch.rand(n, generator=rng, dtype=torch.float64)) * (float(cumulative[-1]) / n)
    face = torch.searchsorted(cumulative, picks).clamp_max(len(faces) - 1)
    a, b = torch.rand(2, n, generator=rng)
    weights = torch.stack([1 - a.sqrt(), a.sqrt() * (1 - b), a.sqrt() * b], -1)[..., None]
    normals = normalize((vertex_normals(vertices, rig.faces)[faces[face]] * weights).sum(1), dim=-1)
    return (corners[face] * weights).sum(1), normals


def _grow(
    roots: Tensor, normals: Tensor, style: _Style, name: str, skull: Skull, noise: Noise3, rng: torch.Generator
) -> Float[Tensor, "n S+1 3"]:
    """Locks step by step: combed along the skull, bent by gravity, kept off the head and out of the face."""
    n = len(roots)
    lengths = style.length * (0.75 + 0.5 * torch.rand(n, generator=rng))
    if name == "short":  # cropped at the sides and in the neck
        lengths = lengths * (0.35 + 0.65 * smoothstep(0.0, 0.07, roots[:, 1] - skull.ear_y))
    clump = torch.stack([noise(roots + 0.1 * k, 0.02, 2) for k in (1, 2, 3)], -1)
    direction = normalize(style.lift * normals + _comb(roots, normals, style, name, skull) + 0.35 * clump, dim=-1)
    phase, handed = 2 * math.pi * torch.rand(n, generator=rng), torch.where(torch.rand(n, generator=rng) < 0.5, 1.0, -1.0)
    target = skull.bun_center if name == "bun" else None
    point, points, growing = roots - 0.002 * normals, [roots - 0.002 * normals], torch.ones(n, 1)
    for step in range(style.segments):
        length = lengths[:, None] / style.segments
        if target is not None:
            gap = target - point
            direction = normalize(direction + 0.9 * normalize(gap, dim=-1), dim=-1)
            length = torch.minimum(length * 1.6, (gap.norm(dim=-1, keepdim=True) - 0.02).clamp_min(0) * 0.5)
        direction = normalize(direction + torch.tensor([0.0, -1.0, 0.0]) * style.gravity * length / 0.1, dim=-1)
        outward = skull.outward(point)
        rising = (direction * outward).sum(-1, keepdim=True).clamp_min(0)
        direction = normalize(direction - style.hug * (step > 0) * rising * outward, dim=-1)
        curl = _curl(direction, style, phase + handed * 1.7 * step) if style.curl else 0.0
        moved = skull.push_out(point + growing * (length * direction + curl), style.clearance * min(1.0, (step + 1) / 3))
        blocked = skull.in_face(moved) | (skull.at_ear(moved) if style.clear_ears else False)
        growing = growing * (~blocked)[:, None]
        moved = torch.where(growing > 0, moved, point)
        heading = moved - point
        direction = torch.where(heading.norm(dim=-1, keepdim=True) > 1e-5, normalize(heading - curl, dim=-1), direction)
        point = moved
        points.append(point)
    return torch.stack(points, 1)


def _comb(roots: Tensor, normals: Tensor, style: _Style, name: str, skull: Skull) -> Float[Tensor, "n 3"]:
    """Direction along the scalp: away from the crown, backwards, or to the sides of a parting."""
    from_crown = normalize(roots - skull.crown, dim=-1)
    backwards = torch.tensor([0.0, -0.15, -1.0]).expand_as(roots)
    if name == "bob":
        side = torch.where(roots[:, :1] > skull.center[0] + 0.018, 1.0, -1.0)
        from_crown = torch.cat([1.2 * side, torch.full_like(side, -0.4), torch.full_like(side, -0.8)], -1)
        nape = smoothstep(0.045, 0.0, roots[:, 1:2] - skull.ear_y)
        backwards = backwards + nape * (torch.tensor([0.0, -2.0, 0.0]) - backwards)
        from_crown = from_crown + nape * (torch.tensor([0.0, -2.0, 0.0]) - from_crown)
    wish = (1 - style.back) * from_crown + style.back * backwards
    return normalize(wish - (wish * normals).sum(-1, keepdim=True) * normals, dim=-1)


def _curl(direction: Tensor, style: _Style, phase: Tensor) -> Tensor:
    across = normalize(torch.linalg.cross(direction, torch.tensor([0.3, 0.9, 0.2]).expand_as(direction)), dim=-1)
    other = torch.linalg.cross(direction, across)
    return style.curl * (across * phase.cos()[:, None] + other * phase.sin()[:, None])


def _tubes(points: Float[Tensor, "n S 3"], style: _Style, look: Look, skull: Skull, rng: torch.Generator) -> Hair:
    n, n_points = points.shape[:2]
    tangents = torch.cat([points[:, 1:] - points[:, :-1], points[:, -1:] - points[:, -2:-1]], 1)
    length = tangents.norm(dim=-1, keepdim=True)
    outward = skull.outward(points.flatten(0, 1)).view_as(points)
    tangents = torch.where(length > 1e-6, tangents / length.clamp_min(1e-6), -outward)
    across = normalize(torch.linalg.cross(tangents, outward), dim=-1)
    above = torch.linalg.cross(across, tangents)
    along = torch.linspace(0, 1, n_points)
    radius = 0.5 * style.width * (1 - 0.75 * along**2) * (0.6 + 0.4 * smoothstep(0, 0.2, along))
    angles = 2 * math.pi * torch.arange(_SIDES) / _SIDES + math.pi / 2
    around = angles.cos()[:, None] * 1.5 * across[:, :, None] + angles.sin()[:, None] * above[:, :, None]  # [n, S, sides, 3]
    vertices = points[:, :, None] + radius[:, None, None] * around
    normals = normalize(0.45 * around + 0.55 * outward[:, :, None], dim=-1)
    tone = (0.75 + 0.5 * torch.rand(n, 1, generator=rng)) * (0.65 + 0.45 * along)
    albedo = (look.hair * tone[..., None])[:, :, None].expand(-1, -1, _SIDES, -1)
    tangents = tangents[:, :, None].expand(-1, -1, _SIDES, -1)
    shine = torch.ones(vertices.shape[:3].numel(), 1)
    vertices, normals, tangents, albedo = (x.reshape(-1, 3) for x in (vertices, normals, tangents, albedo))
    return Hair(vertices, _tube_faces(n, n_points), normals, tangents, albedo, shine)


def _tube_faces(n: int, n_points: int) -> Int[Tensor, "G 3"]:
    ring, side = torch.meshgrid(torch.arange(n_points - 1), torch.arange(_SIDES), indexing="ij")
    a, b = ring * _SIDES + side, ring * _SIDES + (side + 1) % _SIDES
    one = torch.stack([torch.stack([a, b, b + _SIDES], -1), torch.stack([a, b + _SIDES, a + _SIDES], -1)], -2).view(-1, 3)
    return (one + (torch.arange(n) * n_points * _SIDES)[:, None, None]).view(-1, 3)


def _bun(skull: Skull, look: Look, noise: Noise3, rng: torch.Generator) -> Hair:
    """A ball of wound hair at the back of the head."""
    rows, columns = 24, 36
    v, u = torch.meshgrid(torch.linspace(0, math.pi, rows), torch.arange(columns) * (2 * math.pi / columns), indexing="ij")
    ray = torch.stack([v.sin() * u.cos(), v.sin() * u.sin(), v.cos()], -1).view(-1, 3)
    axis = normalize(skull.bun_center - skull.center, dim=0)
    frame = torch.stack([torch.tensor([1.0, 0.0, 0.0]), torch.linalg.cross(axis, torch.tensor([1.0, 0.0, 0.0])), axis])
    swirl = (5 * (u + 2.2 * v)).flatten()
    radius = skull.bun_radius * (1 + 0.05 * swirl.sin() + 0.06 * noise(ray * 0.05, 0.02, 2))
    vertices = skull.bun_center + (radius[:, None] * ray) @ frame
    row, column = torch.meshgrid(torch.arange(rows - 1), torch.arange(columns), indexing="ij")
    a, b = row * columns + column, row * columns + (column + 1) % columns
    faces = torch.stack([torch.stack([a, a + columns, b + columns], -1), torch.stack([a, b + columns, b], -1)], -2).view(-1, 3)
    normals = ray @ frame
    tangents = normalize(torch.linalg.cross(normals, axis.expand_as(normals)) + 0.4 * normals[:, [1, 2, 0]], dim=-1)
    tone = 0.85 + 0.25 * swirl.sin() + 0.1 * torch.rand(len(ray), generator=rng)
    return Hair(vertices, faces, normals, tangents, look.hair * tone[:, None], torch.full((len(ray), 1), 0.5))


def _join(parts: list[Hair]) -> Hair:
    starts = torch.tensor([0] + [len(p.vertices) for p in parts]).cumsum(0)
    faces = torch.cat([p.faces + start for p, start in zip(parts, starts, strict=False)])
    joined = {name: torch.cat([getattr(p, name) for p in parts]) for name in ("vertices", "normals", "tangents", "albedo", "shine")}
    return Hair(faces=faces, **joined)


def _empty() -> Hair:
    none = torch.zeros(0, 3)
    return Hair(none, none.long(), none, none, none, none[:, :1])
