"""Which triangle each pixel sees, where on it, and how far away."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.native import check, launch
from gafcore.ops.registry import apply, define, new_like, once, ordinary

_forward_op = define(
    "rasterize_mesh(Tensor vertices, Tensor faces, Tensor viewmats, Tensor Ks, int width, int height, float near_plane) "
    "-> (Tensor, Tensor, Tensor)"
)
_backward_op = define(
    "rasterize_mesh_backward(Tensor vertices, Tensor faces, Tensor viewmats, Tensor Ks, Tensor triangle_ids, Tensor barycentrics, "
    "Tensor v_barycentrics, Tensor v_depth) -> (Tensor, Tensor)"
)


class MeshRaster(NamedTuple):
    """What `rasterize_mesh` returns."""

    triangle_ids: Int[Tensor, "C H W"]
    barycentrics: Float[Tensor, "C H W 3"]
    depth: Float[Tensor, "C H W"]


def _sizes(vertices: Tensor, faces: Tensor, viewmats: Tensor) -> dict[str, int]:
    n_meshes = vertices.shape[0] if vertices.dim() == 3 else 1
    return dict(n_cameras=viewmats.shape[0], n_meshes=n_meshes, n_vertices=vertices.shape[-2], n_faces=faces.shape[0])


@_forward_op.native
def _forward(vertices, faces, viewmats, Ks, width, height, near_plane):
    check.index_range("faces", faces, vertices.shape[-2], "vertices")
    vertices, faces, viewmats, Ks = vertices.contiguous(), faces.contiguous(), viewmats.contiguous(), Ks.contiguous()
    triangle_ids, barycentrics, depth = _forward_fake(vertices, faces, viewmats, Ks, width, height, near_plane)
    launch(
        "rasterize_mesh_fwd",
        vertices,
        **_sizes(vertices, faces, viewmats),
        width=width,
        height=height,
        near_plane=near_plane,
        vertices=vertices,
        faces=faces,
        viewmats=viewmats,
        Ks=Ks,
        triangle_ids=triangle_ids,
        barycentrics=barycentrics,
        depth=depth,
    )
    check.trust(triangle_ids, -1, faces.shape[0])
    return triangle_ids, barycentrics, depth


@_forward_op.fake
def _forward_fake(vertices, faces, viewmats, Ks, width, height, near_plane):  # noqa: ARG001
    shape = (viewmats.shape[0], height, width)
    return vertices.new_empty(shape, dtype=torch.int32), vertices.new_empty(*shape, 3), vertices.new_empty(shape)


@_backward_op.native
def _backward(vertices, faces, viewmats, Ks, triangle_ids, barycentrics, v_barycentrics, v_depth):
    vertices, faces, viewmats, Ks = vertices.contiguous(), faces.contiguous(), viewmats.contiguous(), Ks.contiguous()
    triangle_ids, barycentrics = triangle_ids.contiguous(), barycentrics.contiguous()
    v_barycentrics, v_depth = v_barycentrics.contiguous(), v_depth.contiguous()
    v_vertices, v_viewmats = _backward_fake(vertices, faces, viewmats, Ks, triangle_ids, barycentrics, v_barycentrics, v_depth)
    launch(
        "rasterize_mesh_bwd",
        vertices,
        **_sizes(vertices, faces, viewmats),
        width=triangle_ids.shape[2],
        height=triangle_ids.shape[1],
        near_plane=0.0,
        vertices=vertices,
        faces=faces,
        viewmats=viewmats,
        Ks=Ks,
        triangle_ids=triangle_ids,
        barycentrics=barycentrics,
        v_barycentrics=v_barycentrics,
        v_depth=v_depth,
        v_vertices=v_vertices,
        v_viewmats=v_viewmats,
    )
    return v_vertices, v_viewmats


@_backward_op.fake
def _backward_fake(vertices, faces, viewmats, Ks, triangle_ids, barycentrics, v_barycentrics, v_depth):  # noqa: ARG001
    return new_like(vertices), new_like(viewmats)


class _RasterizeMesh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, eager, vertices, faces, viewmats, Ks, width, height, near_plane):
        triangle_ids, barycentrics, depth = _forward_op(vertices, faces, viewmats, Ks, width, height, near_plane, eager=eager)
        ctx.eager = eager
        ctx.save_for_backward(vertices, faces, viewmats, Ks, triangle_ids, barycentrics)
        ctx.mark_non_differentiable(triangle_ids)
        return triangle_ids, barycentrics, depth

    @staticmethod
    @once
    def backward(ctx, _, v_barycentrics, v_depth):
        eager = ctx.eager and ordinary(v_barycentrics, v_depth)
        v_vertices, v_viewmats = _backward_op(*ctx.saved_tensors, v_barycentrics, v_depth, eager=eager)
        needs = ctx.needs_input_grad
        return None, v_vertices if needs[1] else None, None, v_viewmats if needs[3] else None, None, None, None, None


def rasterize_mesh(
    vertices: Float[Tensor, "*C V 3"],
    faces: Int[Tensor, "F 3"],
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
) -> MeshRaster:
    """The nearest triangle at the centre of every pixel.

    Both sides of a triangle are seen. Pixels exactly on an edge that two triangles share belong to one of them, so a closed surface shows
    neither holes nor doubles; of equal depths the lower triangle number wins. Triangles may cross the near plane. Triangles without area,
    and those with a vertex that is not finite, are not drawn.

    Args:
        vertices: World positions, metres: [V, 3] seen by all cameras, or [C, V, 3] with a mesh for each.
        faces: Vertex numbers, int64.
        viewmats: World to camera.
        Ks: Pinhole matrices, pixels; skew is not read, and no gradient goes to them.
        width: Pixels; centres are at +0.5.
        height: Pixels.
        near_plane: Depth, metres, below which nothing is seen.

    Returns:
        `triangle_ids` int32, -1 where there is none; perspective-correct `barycentrics` and `depth` (along the optical axis, metres), both
        0 there. Barycentrics and depth are differentiable in `vertices` and `viewmats`; which triangle a pixel sees is not, so silhouettes
        pass no gradient.

    Raises:
        TypeError: An argument is not a tensor, or a size not an integer.
        ValueError: A shape, dtype or device does not fit, a number in `faces` is out of range, or a size is negative.
    """
    if isinstance(vertices, Tensor) and vertices.dim() == 2:
        sizes = check.tensor("vertices", vertices, ("V", 3))
    else:
        sizes = check.tensor("vertices", vertices, ("C", "V", 3))
    check.tensor("faces", faces, ("F", 3), device=vertices.device, dtypes=(torch.int64,))
    check.tensor("viewmats", viewmats, ("C", 4, 4), sizes, like=vertices)
    check.tensor("Ks", Ks, ("C", 3, 3), sizes, like=vertices)
    check.positive("near_plane", near_plane)
    check.integer("width", width)
    check.integer("height", height)
    if width < 0 or height < 0:
        raise ValueError(f"width and height must be >= 0, got {width} and {height}")
    args = (vertices, faces, viewmats, Ks, width, height, float(near_plane))
    eager = ordinary(vertices, faces, viewmats, Ks)
    if torch.is_grad_enabled() and (vertices.requires_grad or viewmats.requires_grad):
        return MeshRaster(*apply(_RasterizeMesh, eager, *args, eager=eager))
    return MeshRaster(*_forward_op(*args, eager=eager))
