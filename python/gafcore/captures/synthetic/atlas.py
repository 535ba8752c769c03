"""Laying a rig's texture charts out in one picture, and finding the point of the surface under every texel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from gafcore.ops import rasterize_mesh
from gafcore.rigs.base import Rig

MATERIALS = ("skin", "eye", "teeth", "mouth")


@dataclass(frozen=True)
class Atlas:
    """Square pages side by side. Rigs may lay parts over one another in uv space or use several tiles; here each part has its own page."""

    page_px: int
    n_pages: int
    corners: Float[Tensor, "F 3 2"]  # each face corner in the whole picture, 0..1, y down
    material: Int[Tensor, "F"]  # index into MATERIALS


@dataclass(frozen=True)
class Texels:
    """The covered texels of an atlas: where they are in the picture and on the mesh."""

    rows: Int[Tensor, "N"]
    columns: Int[Tensor, "N"]
    faces: Int[Tensor, "N"]
    barycentrics: Float[Tensor, "N 3"]

    def interpolate(self, values: Float[Tensor, "V *A"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "N *A"]:
        corners = values[faces[self.faces]]
        weights = self.barycentrics.reshape(*self.barycentrics.shape, *[1] * (corners.ndim - 2))
        return (corners * weights).sum(1)


def lay_out(rig: Rig, page_px: int) -> Atlas:
    """One page for each combination of part (skin, either eye, teeth, mouth) and uv tile that occurs."""
    material, part = _parts(rig)
    uv = rig.uvs[rig.uv_faces]  # [F, 3, 2]
    tile = uv.mean(1).floor().long()
    key = torch.cat([part[:, None], tile], 1)
    pages, page = torch.unique(key, dim=0, return_inverse=True)
    local = uv - tile[:, None]
    corners = torch.stack([(local[..., 0] + page[:, None]) / len(pages), 1 - local[..., 1]], -1)
    return Atlas(page_px, len(pages), corners, material)


def texels(atlas: Atlas) -> Texels:
    """Rasterizes the charts: texel centres are pixel centres."""
    n_faces, width = len(atlas.corners), atlas.page_px * atlas.n_pages
    flat = torch.cat([atlas.corners.flatten(0, 1), torch.ones(3 * n_faces, 1)], -1)
    K = torch.diag(torch.tensor([float(width), float(atlas.page_px), 1.0]))
    faces = torch.arange(3 * n_faces).view(-1, 3)
    ids, barycentrics, _ = rasterize_mesh(flat, faces, torch.eye(4)[None], K[None], width, atlas.page_px)
    rows, columns = (ids[0] >= 0).nonzero(as_tuple=True)
    return Texels(rows, columns, ids[0, rows, columns].long(), barycentrics[0, rows, columns])


def nearest_covered(atlas: Atlas, covered: Texels) -> Int[Tensor, "2 H W"]:
    """Row and column of the covered texel nearest to each texel."""
    blank = torch.ones(atlas.page_px, atlas.page_px * atlas.n_pages, dtype=torch.bool)
    blank[covered.rows, covered.columns] = False
    return torch.from_numpy(distance_transform_edt(blank.numpy(), return_distances=False, return_indices=True)).long()


def fill(nearest: Int[Tensor, "2 H W"], covered: Texels, values: Float[Tensor, "N A"]) -> Float[Tensor, "A H W"]:
    """The picture with `values` at the covered texels, and the nearest covered one's elsewhere: filtering never picks up blanks."""
    picture = torch.zeros(values.shape[1], *nearest.shape[1:])
    picture[:, covered.rows, covered.columns] = values.T
    return picture[:, nearest[0], nearest[1]]


def smooth_over_mesh(faces: Int[Tensor, "F 3"], values: Float[Tensor, "V"], steps: int) -> Float[Tensor, "V"]:
    """Vertex values averaged half and half with their neighbours, `steps` times; vertices without faces keep theirs."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    a, b = torch.cat([edges, edges.flip(1)]).unbind(1)
    degree = torch.zeros_like(values).index_add_(0, a, torch.ones(len(a)))
    for _ in range(steps):
        around = torch.zeros_like(values).index_add_(0, a, values[b]) / degree.clamp_min(1)
        values = torch.where(degree > 0, 0.5 * values + 0.5 * around, values)
    return values


def _parts(rig: Rig) -> tuple[Int[Tensor, "F"], Int[Tensor, "F"]]:
    """Material of each face and a finer part number that keeps the two eyes apart."""
    none = torch.zeros(rig.n_vertices, dtype=torch.bool)
    region = {name: rig.regions.get(name, none) for name in ("left_eye", "right_eye", "teeth", "mouth", "lips")}
    inside = {name: mask[rig.faces].all(1) for name, mask in region.items()}
    material = torch.zeros(len(rig.faces), dtype=torch.long)
    material[inside["mouth"] & ~region["lips"][rig.faces].any(1)] = MATERIALS.index("mouth")
    material[inside["teeth"]] = MATERIALS.index("teeth")
    material[inside["left_eye"] | inside["right_eye"]] = MATERIALS.index("eye")
    part = material.clone()
    part[inside["right_eye"]] = len(MATERIALS)
    return material, part
