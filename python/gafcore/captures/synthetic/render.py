"""Pictures of a synthetic person: the mesh rasterized many times finer than the picture, shaded point by point, and averaged."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from gafcore.cameras import camera_position
from gafcore.captures.synthetic.atlas import MATERIALS
from gafcore.captures.synthetic.hair import Hair
from gafcore.captures.synthetic.lighting import Light, irradiance
from gafcore.captures.synthetic.look import linear_to_srgb
from gafcore.captures.synthetic.paint import Texture
from gafcore.captures.synthetic.skull import rigid_motion
from gafcore.mesh import antialiased, vertex_normals
from gafcore.ops.rasterize_mesh import MeshRaster
from gafcore.rigs.base import Rig
from gafcore.types import Camera

_HAIR_SHINE, _HAIR_SHARPNESS = 0.16, 40.0
_SAMPLES_AT_ONCE = 1 << 16  # intermediate values stay in the cache


@dataclass(frozen=True)
class Model:
    """A person ready to be rendered in any pose."""

    rig: Rig
    neutral: Float[Tensor, "V 3"]
    texture: Texture
    light: Light
    hair: Hair
    head_occlusion: Float[Tensor, "V"]
    hair_occlusion: Float[Tensor, "H"]
    scalp: Int[Tensor, "S"]  # rigid vertices that carry the hair


@dataclass(frozen=True)
class _Scene:
    """One timestep: the head's triangles first, then the hair's, with attributes at all vertices."""

    vertices: Float[Tensor, "M 3"]
    faces: Int[Tensor, "G 3"]
    n_head_faces: int
    head: Float[Tensor, "V 10"]  # position, normal, arriving light, occlusion
    hair: Float[Tensor, "H 15"]  # position, normal, tangent, scattered light, strength of highlights


def pose_hair(model: Model, vertices: Float[Tensor, "V 3"]) -> tuple[Float[Tensor, "H 3"], Float[Tensor, "3 3"]]:
    """The hair's vertices where the skull of a posed head carries them, and the skull's rotation."""
    rotation, translation = rigid_motion(model.neutral[model.scalp], vertices[model.scalp])
    return model.hair.vertices @ rotation.T + translation, rotation


def render(model: Model, vertices: Float[Tensor, "V 3"], camera: Camera, *, samples: int = 4) -> Float[Tensor, "H W 4"]:
    """`render_views` from one camera."""
    return render_views(model, vertices, [camera], samples=samples)[0]


def render_views(
    model: Model, vertices: Float[Tensor, "V 3"], cameras: Sequence[Camera], *, samples: int = 4
) -> list[Float[Tensor, "H W 4"]]:
    """sRGB colour on white, and coverage, each the mean of `samples` x `samples` points a pixel.

    The mean is taken over display values, not light: then colour = alpha * foreground + (1 - alpha) * background holds exactly for what is
    stored, as it does for splats and for pictures that were matted after capture.
    """
    scene = _scene(model, vertices)
    views = []
    for camera in cameras:
        shade = functools.partial(_shade, model, scene, eye=camera_position(camera))
        rgba = antialiased(shade, scene.vertices, scene.faces, camera, samples=samples)
        views.append(torch.cat([rgba[..., :3] + (1 - rgba[..., 3:]), rgba[..., 3:]], -1))
    return views


def _scene(model: Model, vertices: Tensor) -> _Scene:
    """Diffuse light is smooth over the surface, so it is worked out at vertices; texture and highlights are left to each sample point."""
    faces, hair = model.rig.faces, model.hair
    normals, shade = vertex_normals(vertices, faces), model.head_occlusion[:, None]
    head = torch.cat([vertices, normals, irradiance(model.light, normals) * shade, shade], -1)
    moved, rotation = pose_hair(model, vertices)
    normals, tangents, shade = hair.normals @ rotation.T, hair.tangents @ rotation.T, model.hair_occlusion[:, None]
    scattered = hair.albedo * irradiance(model.light, normals) * shade
    gleam = _HAIR_SHINE * hair.shine * (0.35 + hair.albedo.sqrt()) * shade
    locks = torch.cat([moved, normals, tangents, scattered, gleam], -1)
    return _Scene(torch.cat([vertices, moved]), torch.cat([faces, hair.faces + len(vertices)]), len(faces), head, locks)


def _shade(model: Model, scene: _Scene, raster: MeshRaster, eye: Tensor) -> Float[Tensor, "1 h w 4"]:
    ids, weights = raster.triangle_ids.flatten(), raster.barycentrics.view(-1, 3)
    picture = torch.zeros(len(ids), 4)
    hits = (ids >= 0).nonzero()[:, 0]
    for part in hits.split(_SAMPLES_AT_ONCE):
        face = ids[part].long()
        on_hair = face >= scene.n_head_faces
        colors = torch.empty(len(part), 3)
        for chosen, shade in ((~on_hair, _shade_head), (on_hair, _shade_hair)):
            colors[chosen] = shade(model, scene, face[chosen], weights[part[chosen]], eye)
        picture[part] = torch.cat([linear_to_srgb(_tone(colors)).clamp(0, 1), torch.ones(len(part), 1)], -1)
    return picture.view(*raster.triangle_ids.shape, 4)


def _shade_head(model: Model, scene: _Scene, face: Tensor, weights: Tensor, eye: Tensor) -> Float[Tensor, "N 3"]:
    points, normals, light, shade = _mix(scene.head, scene.faces[face], weights).split([3, 3, 3, 1], -1)
    uv = (model.texture.atlas.corners[face] * weights[..., None]).sum(1)
    maps = grid_sample(model.texture.maps[None], (2 * uv - 1)[None, None], align_corners=False, padding_mode="border")[0, :, 0]
    normals, view = normalize(normals, dim=-1), normalize(eye - points, dim=-1)
    on_eye = (model.texture.atlas.material[face] == MATERIALS.index("eye"))[:, None]
    strength, sharpness = maps[3, :, None] * torch.where(on_eye, 0.7 + 0.3 * shade, shade), torch.exp2(maps[4])
    grazing = (1 - (normals * view).sum(-1, keepdim=True).clamp(0, 1)) ** 4
    shine = torch.zeros_like(points)
    for direction, lamp in zip(model.light.lamp_directions, model.light.lamp_colors, strict=True):
        lobe = (normals * normalize(view + direction, dim=-1)).sum(-1).clamp_min(0) ** sharpness
        lit = ((normals @ direction) * 4).clamp(0, 1)
        shine += (lobe * lit)[:, None] * lamp
    return maps[:3].T * light + strength * shine * (1 + 1.5 * grazing)


def _shade_hair(model: Model, scene: _Scene, face: Tensor, weights: Tensor, eye: Tensor) -> Float[Tensor, "N 3"]:
    """Kajiya and Kay's highlight: bright where the half vector is square to the lock."""
    corners = scene.faces[face] - len(scene.head)
    points, normals, tangents, color, gleam = _mix(scene.hair, corners, weights).split([3, 3, 3, 3, 3], -1)
    normals, tangents, view = normalize(normals, dim=-1), normalize(tangents, dim=-1), normalize(eye - points, dim=-1)
    for direction, lamp in zip(model.light.lamp_directions, model.light.lamp_colors, strict=True):
        across = (tangents * normalize(view + direction, dim=-1)).sum(-1)
        lobe = (1 - across**2).clamp(0, 1) ** (_HAIR_SHARPNESS / 2)
        lit = (0.2 + normals @ direction).clamp(0, 1)
        color = color + (lobe * lit)[:, None] * lamp * gleam
    return color


def _mix(values: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """Values at points on triangles. One-dimensional gathers: on the CPU these are by far the fastest."""
    a, b, c = (values.index_select(0, corners[:, k]) * weights[:, k, None] for k in range(3))
    return a + b + c


def _tone(x: Tensor) -> Tensor:
    """Linear up to 0.7, then rolls off towards 1, so that highlights do not clip to flat patches."""
    over = (x - 0.7).clamp_min(0)
    return torch.where(x <= 0.7, x.clamp_min(0), 0.7 + 0.3 * over / (over + 0.3))
