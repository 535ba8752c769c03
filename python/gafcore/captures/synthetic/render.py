"""Pictures of a synthetic person: the mesh rasterized many times finer than the picture, shaded point by point, and averaged."""

from __future__ import annotations

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
    head: Float[Tensor, "V 4"]  # normal, occlusion
    hair: Float[Tensor, "H 10"]  # normal, tangent, occluded albedo, occlusion


def pose_hair(model: Model, vertices: Float[Tensor, "V 3"]) -> tuple[Float[Tensor, "H 3"], Float[Tensor, "3 3"]]:
    """The hair's vertices where the skull of a posed head carries them, and the skull's rotation."""
    rotation, translation = rigid_motion(model.neutral[model.scalp], vertices[model.scalp])
    return model.hair.vertices @ rotation.T + translation, rotation


def render(model: Model, vertices: Float[Tensor, "V 3"], camera: Camera, *, samples: int = 4) -> Float[Tensor, "H W 4"]:
    """sRGB colour on white, and coverage, each the mean of `samples` x `samples` points a pixel.

    The mean is taken over display values, not light: then colour = alpha * foreground + (1 - alpha) * background holds exactly for the stored
    values, as it does for splats and for pictures that were matted after capture.
    """
    scene = _scene(model, vertices)
    eye = camera_position(camera)
    rgba = antialiased(lambda raster: _shade(model, scene, raster, eye), scene.vertices, scene.faces, camera, samples=samples)
    return torch.cat([rgba[..., :3] + (1 - rgba[..., 3:]), rgba[..., 3:]], -1)


def _scene(model: Model, vertices: Tensor) -> _Scene:
    faces, hair = model.rig.faces, model.hair
    head = torch.cat([vertex_normals(vertices, faces), model.head_occlusion[:, None]], -1)
    moved, rotation = pose_hair(model, vertices)
    turned = [hair.normals @ rotation.T, hair.tangents @ rotation.T]
    attributes = torch.cat([*turned, hair.albedo, model.hair_occlusion[:, None]], -1)
    return _Scene(torch.cat([vertices, moved]), torch.cat([faces, hair.faces + len(vertices)]), len(faces), head, attributes)


def _shade(model: Model, scene: _Scene, raster: MeshRaster, eye: Tensor) -> Float[Tensor, "1 h w 4"]:
    ids, weights = raster.triangle_ids.flatten(), raster.barycentrics.view(-1, 3)
    picture = torch.zeros(len(ids), 4)
    hit = (ids >= 0).nonzero()[:, 0]
    face = ids[hit].long()
    on_hair = face >= scene.n_head_faces
    for chosen, shade in ((~on_hair, _shade_head), (on_hair, _shade_hair)):
        pixels, of = hit[chosen], face[chosen]
        points = _mix(scene.vertices, scene.faces[of], weights[pixels])
        view = normalize(eye - points, dim=-1)
        picture[pixels, :3] = linear_to_srgb(_tone(shade(model, scene, of, weights[pixels], view))).clamp(0, 1)
    picture[hit, 3] = 1
    return picture.view(*raster.triangle_ids.shape, 4)


def _shade_head(model: Model, scene: _Scene, face: Tensor, weights: Tensor, view: Tensor) -> Float[Tensor, "N 3"]:
    attributes = _mix(scene.head, scene.faces[face], weights)
    normals, occlusion = normalize(attributes[:, :3], dim=-1), attributes[:, 3:]
    uv = (model.texture.atlas.corners[face] * weights[..., None]).sum(1)
    material = grid_sample(model.texture.maps[None], (2 * uv - 1)[None, None], align_corners=False, padding_mode="border")[0, :, 0].T
    diffuse = material[:, :3] * irradiance(model.light, normals) * occlusion
    smooth = torch.where((model.texture.atlas.material[face] == MATERIALS.index("eye"))[:, None], 0.7 + 0.3 * occlusion, occlusion)
    shine = torch.zeros_like(diffuse)
    for direction, lamp in zip(model.light.lamp_directions, model.light.lamp_colors, strict=True):
        half = normalize(view + direction, dim=-1)
        lobe = (normals * half).sum(-1).clamp_min(0) ** torch.exp2(material[:, 4])
        lit = ((normals * direction).sum(-1) * 4).clamp(0, 1)
        shine += (material[:, 3] * lobe * lit)[:, None] * lamp
    grazing = (1 - (normals * view).sum(-1).clamp(0, 1)) ** 4
    return diffuse + smooth * shine * (1 + 1.5 * grazing[:, None])


def _shade_hair(model: Model, scene: _Scene, face: Tensor, weights: Tensor, view: Tensor) -> Float[Tensor, "N 3"]:
    """Kajiya and Kay's highlight: bright where the half vector is square to the lock."""
    attributes = _mix(scene.hair, scene.faces[face] - len(scene.head), weights)
    normals, tangents = normalize(attributes[:, :3], dim=-1), normalize(attributes[:, 3:6], dim=-1)
    albedo, occlusion = attributes[:, 6:9], attributes[:, 9:]
    color = albedo * irradiance(model.light, normals)
    for direction, lamp in zip(model.light.lamp_directions, model.light.lamp_colors, strict=True):
        half = normalize(view + direction, dim=-1)
        lobe = (1 - (tangents * half).sum(-1) ** 2).clamp(0, 1) ** (_HAIR_SHARPNESS / 2)
        lit = (0.2 + (normals * direction).sum(-1)).clamp(0, 1)
        color = color + (_HAIR_SHINE * lobe * lit)[:, None] * lamp * (0.35 + albedo.sqrt())
    return color * occlusion


def _mix(values: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    return (values[corners] * weights[..., None]).sum(1)


def _tone(x: Tensor) -> Tensor:
    """Linear up to 0.7, then rolls off towards 1, so that highlights do not clip to flat patches."""
    over = (x - 0.7).clamp_min(0)
    return torch.where(x <= 0.7, x.clamp_min(0), 0.7 + 0.3 * over / (over + 0.3))
