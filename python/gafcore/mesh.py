"""Pictures of meshes: normals, masks, depth, textures, and anti-aliasing by supersampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.cameras import resize, stack
from gafcore.ops import MeshRaster, interpolate, rasterize_mesh
from gafcore.types import Camera

Cameras = Camera | Sequence[Camera]


def vertex_normals(vertices: Float[Tensor, "*B V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "*B V 3"]:
    """Unit normals: the mean over the faces around a vertex, weighted by area; outwards for counter-clockwise faces.

    A vertex without faces, or whose faces have no area, gets the zero vector. Differentiable in `vertices`.
    """
    n_vertices = vertices.shape[-2]
    flat = vertices.reshape(-1, 3)
    n_meshes = flat.shape[0] // max(n_vertices, 1)
    corners = (faces + n_vertices * torch.arange(n_meshes, device=faces.device)[:, None, None]).reshape(-1, 3)
    numbers = entries(corners, 3)
    a, b, c = flat.reshape(-1).index_select(0, numbers).reshape(-1, 3, 3).unbind(1)
    areas = torch.linalg.cross(b - a, c - a)[:, None, :].expand(-1, 3, -1).reshape(-1)
    sums = sum_at(numbers, areas, flat.numel())
    return torch.nn.functional.normalize(sums.reshape(vertices.shape), dim=-1, eps=1e-20)


def entries(rows: Int[Tensor, "*K"], width: int) -> Int[Tensor, "L"]:
    """Where the numbers of these rows of a [N, width] tensor are once it is flattened."""
    return (width * rows[..., None] + torch.arange(width, device=rows.device)).reshape(-1)


def sum_at(places: Int[Tensor, "L"], values: Float[Tensor, "L"], size: int) -> Float[Tensor, "size"]:
    """Sums of the values that share a place in 0..size-1, in a fixed order: the same bits in every run on one device.

    Of one dimension, because on the CPU such gathers and scatters alone are both fast and in a fixed order.
    """
    zeros = values.new_zeros(size)
    # On a GPU index_add uses atomics and index_put sorts; on the CPU index_put keeps no order.
    if values.device.type == "cpu":
        return zeros.index_add(0, places, values)
    return zeros.index_put((places,), values, accumulate=True)


def rasterize(vertices: Float[Tensor, "*C V 3"], faces: Int[Tensor, "F 3"], cameras: Cameras, *, near_plane: float = 0.01) -> MeshRaster:
    """`gafcore.rasterize_mesh` for `Camera`s of one image size."""
    cameras = [cameras] if isinstance(cameras, Camera) else cameras
    viewmats, Ks = (x.to(vertices) for x in stack(cameras))
    return rasterize_mesh(vertices, faces, viewmats, Ks, cameras[0].width, cameras[0].height, near_plane=near_plane)


def normal_map(
    vertices: Float[Tensor, "*C V 3"],
    faces: Int[Tensor, "F 3"],
    cameras: Cameras,
    *,
    space: Literal["camera", "world"] = "camera",
    raster: MeshRaster | None = None,
) -> Float[Tensor, "C H W 3"]:
    """Smooth unit normals in -1..1, 0 where there is no mesh.

    Args:
        vertices: World positions, metres: [V, 3], or [C, V, 3] with a mesh for each camera.
        faces: Counter-clockwise seen from outside.
        cameras: One, or several of one image size.
        space: Axes of the normals: the camera's (x right, y down, z forward, so what faces the camera has z near -1), or the world's.
        raster: Of this mesh and these cameras, where there is one already.
    """
    cameras = [cameras] if isinstance(cameras, Camera) else cameras
    raster = raster or rasterize(vertices, faces, cameras)
    normals = vertex_normals(vertices, faces)
    image = torch.nn.functional.normalize(interpolate(normals, faces, raster.triangle_ids, raster.barycentrics), dim=-1, eps=1e-20)
    if space == "world":
        return image
    rotations = stack(cameras)[0][:, :3, :3].to(image)
    return torch.einsum("cij,chwj->chwi", rotations, image)


def mask_map(
    vertices: Float[Tensor, "*C V 3"], faces: Int[Tensor, "F 3"], cameras: Cameras, *, raster: MeshRaster | None = None
) -> Float[Tensor, "C H W"]:
    """1 where a pixel's centre shows the mesh, else 0. No gradient: it is one or the other."""
    raster = raster or rasterize(vertices, faces, cameras)
    return (raster.triangle_ids >= 0).to(raster.depth.dtype)


def depth_map(
    vertices: Float[Tensor, "*C V 3"], faces: Int[Tensor, "F 3"], cameras: Cameras, *, raster: MeshRaster | None = None
) -> Float[Tensor, "C H W"]:
    """Depth along the optical axis, metres; 0 where there is no mesh."""
    return (raster or rasterize(vertices, faces, cameras)).depth


def sample_texture(texture: Float[Tensor, "Ht Wt A"], uvs: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N A"]:
    """Bilinear lookup with gradients for both; (0, 0) is the lower left corner, as in OBJ files, and the edge goes on outside 0..1."""
    u, v = uvs.reshape(1, 1, -1, 2).unbind(-1)
    grid = torch.stack([2 * u - 1, 1 - 2 * v], dim=-1)
    picture = texture.permute(2, 0, 1)[None].to(uvs.dtype)
    values = torch.nn.functional.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values[0, :, 0].T.reshape(*uvs.shape[:-1], texture.shape[-1])


def antialiased(
    shade: Callable[[MeshRaster], Float[Tensor, "1 h w A"]],
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    camera: Camera,
    *,
    samples: int = 4,
) -> Float[Tensor, "H W A"]:
    """A picture of `camera`'s size whose pixels are means over `samples` x `samples` points each.

    Args:
        shade: Gives every point of a raster `samples` times as wide and high a value; what it returns at points without a mesh counts too.
            For colour with coverage return colour times mask, and the mask as a channel more.
        vertices: World positions, metres.
        faces: Vertex numbers.
        camera: The view.
        samples: Points along each side of a pixel.
    """
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
    fine = resize(camera, camera.width * samples, camera.height * samples)
    values = shade(rasterize(vertices, faces, fine))
    n_channels = values.shape[-1]
    # Rows first: torch sums a dimension that is not the last one without strides.
    rows = values.reshape(camera.height, samples, -1).sum(1)
    return rows.reshape(camera.height, camera.width, samples, n_channels).sum(2) / samples**2
