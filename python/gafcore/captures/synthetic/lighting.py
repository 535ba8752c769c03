"""Soft light from all around as spherical harmonics, plus two lamps for highlights; and how much of it reaches each vertex."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.cameras import look_at, stack
from gafcore.captures.synthetic.noise import generator, uniform
from gafcore.ops import rasterize_mesh

# Bands of a clamped cosine (Ramamoorthi and Hanrahan 2001), over pi: light of mean radiance 1 gives irradiance 1.
_COSINE_BANDS = torch.tensor([1.0] + [2 / 3] * 3 + [1 / 4] * 5)
# Light that enters skin spreads before it leaves, red the most: it softens the higher bands, and so warms the edge of shadows.
_SCATTER = torch.tensor([[1.0, 1.0, 1.0]] + [[0.94, 0.98, 1.0]] * 3 + [[0.75, 0.92, 1.0]] * 5)

N_DIRECTIONS = 28
_DEPTH_MAP_PX = 224
_DEPTH_BIAS_M = 0.0035  # more than a pixel of the depth map on a slope, less than a lip
_FAR_M = 6.0


@dataclass(frozen=True)
class Light:
    """Coefficients of the light arriving at a surface by its normal; unit vectors towards the lamps, and their colours."""

    irradiance: Float[Tensor, "9 3"]
    lamp_directions: Float[Tensor, "L 3"]
    lamp_colors: Float[Tensor, "L 3"]


def sh_basis(n: Float[Tensor, "N 3"]) -> Float[Tensor, "N 9"]:
    """Real spherical harmonics of bands 0-2 at unit vectors."""
    x, y, z = n.unbind(-1)
    c0, c1, c2 = 0.5 / math.sqrt(math.pi), math.sqrt(3 / (4 * math.pi)), 0.5 * math.sqrt(15 / math.pi)
    band2 = [c2 * x * y, c2 * y * z, c2 / (2 * math.sqrt(3)) * (3 * z * z - 1), c2 * x * z, c2 / 2 * (x * x - y * y)]
    return torch.stack([torch.full_like(x, c0), c1 * y, c1 * z, c1 * x, *band2], -1)


def random_light(seed: int) -> Light:
    """A room lit from all sides, brighter from above and in front, with a key and a fill lamp of slightly different colour."""
    rng = generator(seed, "light")
    side = 1.0 if uniform(rng, 0, 1) < 0.5 else -1.0
    key = _direction(side * uniform(rng, 0.4, 0.9), uniform(rng, 0.35, 0.7))
    fill = _direction(-side * uniform(rng, 0.5, 1.1), uniform(rng, 0.0, 0.4))
    warmth = uniform(rng, -0.05, 0.07)
    key_color = torch.tensor([1 + warmth, 1.0, 1 - warmth]) * uniform(rng, 0.55, 0.85)
    fill_color = torch.tensor([1 - warmth, 1.0, 1 + warmth]) * uniform(rng, 0.25, 0.4)
    directions, colors = torch.stack([key, fill]), torch.stack([key_color, fill_color])
    sky = torch.zeros(9, 3)
    sky[0] = 0.45 * 2 * math.sqrt(math.pi)  # the constant 0.45
    sky[1] = 0.10  # a little more from above
    lamps = _COSINE_BANDS[:, None] * torch.einsum("lk,lc->kc", sh_basis(directions), colors) * math.pi
    return Light((sky + lamps * 0.62) * _SCATTER, directions, colors)


def irradiance(light: Light, normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Light arriving at surfaces with these unit normals, >= 0."""
    return (sh_basis(normals) @ light.irradiance).clamp_min(0)


def ambient_occlusion(
    vertices: Float[Tensor, "V 3"], normals: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], n_directions: int = N_DIRECTIONS
) -> Float[Tensor, "V"]:
    """The share of the sky, weighted by the cosine, that vertices see past the mesh, 0..1: depth maps from many directions."""
    center = (vertices.amin(0) + vertices.amax(0)) / 2
    radius = float((vertices - center).norm(dim=-1).max())
    focal = 0.5 * _DEPTH_MAP_PX * _FAR_M / radius
    seen, total = torch.zeros(len(vertices)), torch.zeros(len(vertices))
    for direction in _sphere(n_directions):
        up = (0.0, 1.0, 0.0) if abs(float(direction[1])) < 0.95 else (0.0, 0.0, 1.0)
        eye = (center + direction * _FAR_M).tolist()
        camera = look_at(eye, center.tolist(), up, focal_px=focal, width=_DEPTH_MAP_PX, height=_DEPTH_MAP_PX)
        ids, _, depth = rasterize_mesh(vertices, faces, *stack([camera]), _DEPTH_MAP_PX, _DEPTH_MAP_PX)
        nearest = torch.where(ids[0] >= 0, depth[0], torch.full_like(depth[0], math.inf))
        cam = vertices @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
        pixel = (cam[:, :2] / cam[:, 2:] * focal + _DEPTH_MAP_PX / 2).long().clamp(0, _DEPTH_MAP_PX - 1)
        visible = cam[:, 2] < nearest[pixel[:, 1], pixel[:, 0]] + _DEPTH_BIAS_M
        weight = (normals @ direction).clamp_min(0)
        seen, total = seen + weight * visible, total + weight
    return seen / total.clamp_min(1e-6)


def _direction(azimuth: float, elevation: float) -> Float[Tensor, "3"]:
    return torch.tensor([math.sin(azimuth) * math.cos(elevation), math.sin(elevation), math.cos(azimuth) * math.cos(elevation)])


def _sphere(n: int) -> Float[Tensor, "n 3"]:
    """Even directions: the golden-angle spiral."""
    i = torch.arange(n, dtype=torch.float64)
    y, angle = 1 - (2 * i + 1) / n, i * math.pi * (3 - math.sqrt(5))
    ring = (1 - y * y).sqrt()
    return torch.stack([ring * angle.sin(), y, ring * angle.cos()], -1).float()
