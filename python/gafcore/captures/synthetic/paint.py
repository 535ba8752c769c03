"""The texture of a synthetic person: every texel is coloured by where it lies on the rig's template and near which landmark."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.captures.synthetic import shapes
from gafcore.captures.synthetic.atlas import MATERIALS, Atlas, Texels, fill, lay_out, nearest_covered, smooth_over_mesh, texels
from gafcore.captures.synthetic.look import Look, color
from gafcore.captures.synthetic.noise import Noise3, generator, smoothstep
from gafcore.mesh import vertex_normals
from gafcore.rigs.base import Rig

# Highlight strength and sharpness (Blinn-Phong exponent) by material.
_GLOSS = {"skin": (0.10, 14.0), "eye": (0.9, 220.0), "teeth": (0.45, 60.0), "mouth": (0.20, 40.0)}
_LIP_GLOSS = (0.22, 26.0)
_IBUG_OUTER_CORNERS = (36, 45)
_TYPICAL_EYE_SPAN_M = 0.09
_IRIS_RADIUS_M = 0.0064


@dataclass(frozen=True)
class Texture:
    """`maps` are linear red, green, blue, highlight strength and log2 of highlight sharpness, [5, H, W]."""

    atlas: Atlas
    maps: Float[Tensor, "5 H W"]


@dataclass(frozen=True)
class _Canvas:
    """The texels of one material: rest positions and landmarks, both scaled to a head whose eyes span 9 cm."""

    points: Float[Tensor, "N 3"]
    normals: Float[Tensor, "N 3"]
    landmarks: Float[Tensor, "68 3"]
    noise: Noise3
    look: Look

    def near(self, center: Tensor, radius_m: float) -> Tensor:
        """Soft blob: 1 at `center`, falling like a Gaussian."""
        return torch.exp(-((self.points - center) ** 2).sum(-1) / (2 * radius_m**2))


@dataclass(frozen=True)
class _Blank:
    """What painting needs of a rig, whoever is painted: charts, covered texels by material, their points and normals in metres."""

    atlas: Atlas
    covered: Texels
    points: Float[Tensor, "N 3"]
    normals: Float[Tensor, "N 3"]
    landmarks: Float[Tensor, "68 3"]
    unit: float
    chosen: tuple[Int[Tensor, "M"], ...]  # rows of each of MATERIALS
    nearest: Int[Tensor, "2 H W"]  # row and column of the covered texel nearest to each


_last_blank: list[tuple[Rig, int, _Blank]] = []  # training makes thousands of people on one rig


def _blank(rig: Rig, page_px: int) -> _Blank:
    if _last_blank and _last_blank[0][0] is rig and _last_blank[0][1] == page_px:
        return _last_blank[0][2]
    atlas = lay_out(rig, page_px)
    covered = texels(atlas)
    landmarks = rig.landmark_points(rig.template[None], "ibug68")[0]
    unit = float((landmarks[_IBUG_OUTER_CORNERS[0]] - landmarks[_IBUG_OUTER_CORNERS[1]]).norm()) / _TYPICAL_EYE_SPAN_M
    points = covered.interpolate(rig.template, rig.faces) / unit
    normals = torch.nn.functional.normalize(covered.interpolate(vertex_normals(rig.template, rig.faces), rig.faces), dim=-1)
    material = atlas.material[covered.faces]
    chosen = tuple((material == index).nonzero()[:, 0] for index in range(len(MATERIALS)))
    made = _Blank(atlas, covered, points, normals, landmarks / unit, unit, chosen, nearest_covered(atlas, covered))
    _last_blank[:] = [(rig, page_px, made)]
    return made


def paint(rig: Rig, look: Look, seed: int, page_px: int = 1024) -> Texture:
    """Skin, brows, lips, stubble, eyes, teeth and mouth of a person, for any rig with iBUG-68 landmarks."""
    blank = _blank(rig, page_px)
    noise = Noise3(generator(seed, "texture"))
    values = torch.zeros(len(blank.points), 5)
    for name, chosen in zip(MATERIALS, blank.chosen, strict=True):
        canvas = _Canvas(blank.points[chosen], blank.normals[chosen], blank.landmarks, noise, look)
        values[chosen] = _paint_material(name, canvas, rig, blank.covered, chosen, blank.unit)
    return Texture(blank.atlas, fill(blank.nearest, blank.covered, values))


def _paint_material(name: str, canvas: _Canvas, rig: Rig, covered: Texels, chosen: Tensor, unit: float) -> Float[Tensor, "N 5"]:
    strength, sharpness = _GLOSS[name]
    gloss = torch.tensor([[strength, sharpness]]).log2().repeat(len(chosen), 1)
    gloss[:, 0] = strength
    if name == "skin":
        scalp = smooth_over_mesh(rig.faces, rig.regions["scalp"].float(), 3)
        outside = (rig.regions["skin"] | rig.regions["ears"]).float()  # the rest lines the eye sockets
        part = Texels(covered.rows[chosen], covered.columns[chosen], covered.faces[chosen], covered.barycentrics[chosen])
        albedo, gloss = _skin(canvas, part.interpolate(scalp, rig.faces), part.interpolate(outside, rig.faces), gloss)
    elif name == "eye":
        albedo = _eyes(canvas, rig.joint_positions(rig.neutral())[0, 3:5] / unit)
    elif name == "teeth":
        albedo = color(226, 214, 192) * (1 + 0.06 * canvas.noise(canvas.points, 0.006, 2))[:, None]
    else:
        albedo = color(128, 52, 48) * (1 + 0.25 * canvas.noise(canvas.points, 0.008, 3))[:, None]
    return torch.cat([albedo.clamp(0.003, 0.95), gloss], -1)


def _skin(canvas: _Canvas, scalp: Tensor, outside: Tensor, gloss: Tensor) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 2"]]:
    albedo = _complexion(canvas)
    albedo = _stubble(canvas, albedo)
    albedo, lips = _lips(canvas, albedo)
    albedo = _lids_and_nostrils(canvas, albedo)
    albedo = _brows(canvas, albedo)
    if canvas.look.hair_style != "bald":
        albedo = _scalp(canvas, albedo, scalp)
    albedo = albedo + (1 - outside)[:, None] * (color(182, 118, 106) - albedo)
    oily = 1 + 0.7 * canvas.near(canvas.landmarks[30], 0.012) + 0.4 * canvas.near(canvas.landmarks[27], 0.03)
    fine = 1 + 0.35 * canvas.noise(canvas.points, 0.0035, 2)
    lip_gloss = torch.tensor(_LIP_GLOSS)
    strength = (gloss[:, 0] * oily * fine).clamp_min(0) * (1 - 0.7 * scalp)
    strength = strength + lips * (lip_gloss[0] - strength)
    sharpness = gloss[:, 1] + lips * (lip_gloss[1].log2() - gloss[:, 1])
    return albedo, torch.stack([strength, sharpness], -1)


def _complexion(canvas: _Canvas) -> Tensor:
    """Base tone, blood under the skin, large and small variation, pores, freckles."""
    p, look, marks = canvas.points, canvas.look, canvas.landmarks
    tone = 1 + 0.06 * canvas.noise(p, 0.07, 3) + 0.05 * canvas.noise(p, 0.011, 2) + 0.06 * canvas.noise(p, 0.0016, 2)
    cheeks = _total(canvas.near(0.35 * (marks[a] + marks[b]) + 0.3 * marks[c], 0.018) for a, b, c in ((2, 41, 31), (14, 46, 35)))
    ears = smoothstep(0.066, 0.082, p[:, 0].abs()) * smoothstep(0.05, 0.03, (p[:, 1] - marks[29, 1]).abs())
    nose, chin = 0.7 * canvas.near(marks[30], 0.012) + 0.6 * canvas.near(marks[33], 0.01), 0.25 * canvas.near(marks[8], 0.02)
    red = 0.8 * cheeks + nose + 0.5 * ears + chin
    red = look.blood * (red + 0.25 * canvas.noise(p, 0.02, 3)).clamp(-0.3, 1.2)
    albedo = look.skin * tone[:, None] * (1 - red[:, None] * torch.tensor([0.02, 0.26, 0.24]))
    face = canvas.near((marks[29] + marks[33]) / 2, 0.045)
    spots = smoothstep(0.42, 0.62, canvas.noise(p, 0.0035, 2) + 0.15 * canvas.noise(p, 0.03)) * face * look.freckles
    albedo = albedo * (1 - spots[:, None] * torch.tensor([0.25, 0.40, 0.48]))
    under_eyes = _total(canvas.near(marks[list(ids)].mean(0) - torch.tensor([0, 0.008, 0]), 0.008) for ids in ((40, 41), (46, 47)))
    return albedo * (1 - 0.15 * under_eyes[:, None] * torch.tensor([0.8, 1.0, 0.8]))


def _total(blobs: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(blobs)).sum(0)


def _stubble(canvas: _Canvas, albedo: Tensor) -> Tensor:
    """Beard shadow along the jaw, on the chin and above the lip, of many dark points."""
    if canvas.look.stubble == 0:
        return albedo
    p, marks = canvas.points, canvas.landmarks
    jaw = smoothstep(0.026, 0.012, shapes.distance_to_line(p, marks[3:14], 0.026))
    chin = smoothstep(0.030, 0.018, shapes.distance_to_line(p, marks[[57, 8]], 0.030))
    moustache = smoothstep(0.010, 0.005, shapes.distance_to_line(p, marks[48:55] + torch.tensor([0, 0.006, 0]), 0.010))
    below_nose = smoothstep(marks[33, 1].item() + 0.002, marks[33, 1].item() - 0.006, p[:, 1])
    beside_lips = smoothstep(-0.0005, 0.0020, shapes.signed_distance_xy(p, marks[48:60], 0.012))
    area = torch.stack([jaw, chin, moustache]).amax(0) * below_nose * beside_lips
    hairs = 0.55 + 0.45 * canvas.noise(p, 0.0010, 2)
    shadow = canvas.look.stubble * area * hairs * 0.8
    beard = 0.35 * canvas.look.hair + 0.02
    return albedo + shadow[:, None] * (beard - albedo)


def _lips(canvas: _Canvas, albedo: Tensor) -> tuple[Tensor, Tensor]:
    marks = canvas.landmarks
    outline, opening = marks[48:60], marks[60:68]
    outer = shapes.signed_distance_xy(canvas.points, outline, 0.012)
    inner = shapes.signed_distance_xy(canvas.points, opening, 0.012)
    lips = smoothstep(0.0012, -0.0012, outer)
    tint = torch.tensor([0.88, 0.50, 0.52]) * (1 + 0.14 * canvas.noise(canvas.points * torch.tensor([4.0, 1.0, 1.0]), 0.006, 2))[:, None]
    albedo = albedo * (1 + (0.35 + 0.65 * canvas.look.lips) * lips[:, None] * (tint - 1))
    wet = smoothstep(0.0010, -0.0006, inner)
    return albedo * (1 - wet[:, None] * torch.tensor([0.35, 0.55, 0.5])), lips


def _lids_and_nostrils(canvas: _Canvas, albedo: Tensor) -> Tensor:
    """A dark line of lashes along the lids, thicker above, and shade inside the nostrils."""
    marks, p = canvas.landmarks, canvas.points
    lashes = torch.zeros(len(p))
    for upper, lower in (((36, 37, 38, 39), (39, 40, 41, 36)), ((42, 43, 44, 45), (45, 46, 47, 42))):
        lashes = torch.maximum(lashes, 0.85 * smoothstep(0.0026, 0.0010, shapes.distance_to_line(p, marks[list(upper)], 0.003)))
        lashes = torch.maximum(lashes, 0.45 * smoothstep(0.0018, 0.0006, shapes.distance_to_line(p, marks[list(lower)], 0.003)))
    albedo = albedo + lashes[:, None] * (color(34, 24, 22) - albedo)
    facing_down = smoothstep(0.1, -0.6, canvas.normals[:, 1])
    nostrils = _total(canvas.near(0.6 * marks[a] + 0.4 * marks[b], 0.0036) for a, b in ((32, 31), (34, 35))) * (0.3 + 0.7 * facing_down)
    return albedo * (1 - 0.75 * nostrils.clamp(0, 1)[:, None] * torch.tensor([0.9, 1.0, 1.0]))


def _brows(canvas: _Canvas, albedo: Tensor) -> Tensor:
    p, look, marks = canvas.points, canvas.look, canvas.landmarks
    hair = 0.55 * look.hair + 0.006
    for ids in (range(17, 22), range(26, 21, -1)):  # from the temple inwards
        line = marks[list(ids)]
        distance, along = shapes.nearest_on_line(p, line, 0.01)
        width = 0.0048 * look.brow_width * smoothstep(-0.25, 0.35, along) * (0.8 + 0.2 * smoothstep(1.05, 0.9, along))
        strokes = 0.75 + 0.35 * canvas.noise(p * torch.tensor([1.0, 0.45, 1.0]), 0.0011, 1) + 0.2 * canvas.noise(p, 0.004, 1)
        cover = smoothstep(1.25, 0.55, distance / width.clamp_min(1e-5)) * strokes * look.brow_density
        albedo = albedo + cover.clamp(0, 1)[:, None] * (hair - albedo)
    return albedo


def _scalp(canvas: _Canvas, albedo: Tensor, scalp: Tensor) -> Tensor:
    """Skin shows through at the roots: hair colour that fades out at the hair line, with the grain of cropped hair."""
    grain = 0.75 + 0.35 * canvas.noise(canvas.points, 0.0022, 2)
    edge = smoothstep(0.25, 0.75, scalp + 0.25 * canvas.noise(canvas.points, 0.006, 2))
    return albedo + (0.92 * edge * grain).clamp(0, 1)[:, None] * (0.8 * canvas.look.hair - albedo)


def _eyes(canvas: _Canvas, centers: Float[Tensor, "2 3"]) -> Tensor:
    """Sclera, iris with fibres and a dark rim, and pupil, by the angle from straight ahead, with 1 at the edge of the iris."""
    nearest = ((canvas.points[:, None] - centers) ** 2).sum(-1).argmin(1)
    ray = canvas.points - centers[nearest]
    radius = float(ray.norm(dim=-1).median())
    ray = torch.nn.functional.normalize(ray, dim=-1)
    angle = torch.acos(ray[:, 2].clamp(-1, 1)) / math.asin(min(_IRIS_RADIUS_M / radius, 0.9))
    around = torch.nn.functional.normalize(ray[:, :2], dim=-1)
    fibres = canvas.noise(torch.cat([around * 0.05, nearest[:, None] * 0.3 + 0.01 * angle[:, None]], -1), 0.006, 3)
    veins = smoothstep(0.25, 0.6, canvas.noise(canvas.points, 0.004, 3)) * smoothstep(1.0, 2.1, angle)
    darker = 1 - 0.25 * smoothstep(1.2, 2.3, angle)  # under the lids
    sclera = color(236, 230, 226) * (1 - veins[:, None] * torch.tensor([0.05, 0.25, 0.25])) * darker[:, None]
    ring = smoothstep(0.78, 0.94, angle)
    iris = canvas.look.iris * (1.15 + 0.22 * fibres - 0.75 * ring + 0.35 * smoothstep(0.6, 0.4, angle))[:, None]
    eye = sclera + smoothstep(1.0, 0.92, angle)[:, None] * (iris - sclera)
    return eye + smoothstep(0.39, 0.33, angle)[:, None] * (color(12, 10, 10) - eye)
