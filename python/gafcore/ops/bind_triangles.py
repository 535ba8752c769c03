"""Gaussians that ride on the triangles of a mesh (GAF, equations 1-3)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.native import check, launch
from gafcore.ops.registry import apply, define, new_like, once, ordinary

_forward_op = define(
    "bind_triangles(Tensor vertices, Tensor faces, Tensor binding, Tensor means, Tensor quats, Tensor log_scales) "
    "-> (Tensor, Tensor, Tensor)"
)
_backward_op = define(
    "bind_triangles_backward(Tensor vertices, Tensor faces, Tensor binding, Tensor means, Tensor quats, Tensor log_scales, "
    "Tensor v_means, Tensor v_quats, Tensor v_scales, bool needs_vertices) -> (Tensor, Tensor, Tensor, Tensor)"
)


def _sizes(vertices: Tensor, faces: Tensor, means: Tensor) -> dict[str, int]:
    return dict(n_batch=vertices.shape[0], n_vertices=vertices.shape[1], n_faces=faces.shape[0], n_gaussians=means.shape[0])


@_forward_op.native
def _forward(vertices, faces, binding, means, quats, log_scales):
    # Here and not in bind_triangles: what depends on values has no place in a compiled graph.
    check.index_range("faces", faces, vertices.shape[1], "vertices")
    check.index_range("binding", binding, faces.shape[0], "faces")
    vertices, faces, binding = vertices.contiguous(), faces.contiguous(), binding.contiguous()
    means, quats, log_scales = means.contiguous(), quats.contiguous(), log_scales.contiguous()
    out = _forward_fake(vertices, faces, binding, means, quats, log_scales)
    launch(
        "bind_triangles_fwd",
        vertices,
        **_sizes(vertices, faces, means),
        vertices=vertices,
        faces=faces,
        binding=binding,
        means=means,
        quats=quats,
        log_scales=log_scales,
        world_means=out[0],
        world_quats=out[1],
        world_scales=out[2],
    )
    return out


@_forward_op.fake
def _forward_fake(vertices, faces, binding, means, quats, log_scales):  # noqa: ARG001
    b, n = vertices.shape[0], means.shape[0]
    return means.new_empty(b, n, 3), means.new_empty(b, n, 4), means.new_empty(b, n, 3)


@_backward_op.native
def _backward(vertices, faces, binding, means, quats, log_scales, v_means, v_quats, v_scales, needs_vertices):
    vertices, faces, binding = vertices.contiguous(), faces.contiguous(), binding.contiguous()
    means, quats, log_scales = means.contiguous(), quats.contiguous(), log_scales.contiguous()
    v_means, v_quats, v_scales = v_means.contiguous(), v_quats.contiguous(), v_scales.contiguous()
    out = _gradients(vertices, means, quats, log_scales, needs_vertices)
    launch(
        "bind_triangles_bwd",
        vertices,
        **_sizes(vertices, faces, means),
        vertices=vertices,
        faces=faces,
        binding=binding,
        means=means,
        quats=quats,
        log_scales=log_scales,
        v_world_means=v_means,
        v_world_quats=v_quats,
        v_world_scales=v_scales,
        v_vertices=out[0],
        v_means=out[1],
        v_quats=out[2],
        v_log_scales=out[3],
    )
    return out


def _gradients(vertices, means, quats, log_scales, needs_vertices):
    return new_like(vertices) if needs_vertices else None, new_like(means), new_like(quats), new_like(log_scales)


@_backward_op.fake
def _backward_fake(vertices, faces, binding, means, quats, log_scales, v_means, v_quats, v_scales, needs_vertices):  # noqa: ARG001
    return _gradients(vertices, means, quats, log_scales, needs_vertices)


class _BindTriangles(torch.autograd.Function):
    @staticmethod
    def forward(ctx, eager, vertices, faces, binding, means, quats, log_scales):
        ctx.save_for_backward(vertices, faces, binding, means, quats, log_scales)
        ctx.eager = eager
        return _forward_op(vertices, faces, binding, means, quats, log_scales, eager=eager)

    @staticmethod
    @once
    def backward(ctx, v_means, v_quats, v_scales):
        needs_vertices, eager = ctx.needs_input_grad[1], ctx.eager and ordinary(v_means, v_quats, v_scales)
        v_vertices, *v_local = _backward_op(*ctx.saved_tensors, v_means, v_quats, v_scales, needs_vertices, eager=eager)
        return None, v_vertices if needs_vertices else None, None, None, *v_local


def bind_triangles(
    vertices: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "F 3"],
    binding: Int[Tensor, "N"],
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    log_scales: Float[Tensor, "N 3"],
) -> tuple[Float[Tensor, "B N 3"], Float[Tensor, "B N 4"], Float[Tensor, "B N 3"]]:
    """World-space Gaussians from ones given in the frames of their triangles (GAF, equations 1-3).

    The frame of a triangle has its origin at the mean of the vertices, its axes along the first edge, the normal and their cross product,
    and its unit is half the sum of the first edge's length and the triangle's height over it. A triangle without area has the world's axes.

    Args:
        vertices: Mesh vertices, metres.
        faces: Vertex numbers, int64.
        binding: The face each Gaussian rides on, int64.
        means: Local positions, in units of the triangle's scale.
        quats: Local rotations wxyz, of any length.
        log_scales: Logarithms of the local standard deviations.

    Returns:
        World means (metres), quaternions (unit length) and standard deviations (metres), differentiable in `vertices`, `means`, `quats` and
        `log_scales`.

    Raises:
        ValueError: A shape, dtype or device does not fit, or a number in `faces` or `binding` is out of range.
    """
    sizes = check.tensor("vertices", vertices, ("B", "V", 3))
    ids = (torch.int64,)
    check.tensor("faces", faces, ("F", 3), sizes, device=vertices.device, dtypes=ids)
    check.tensor("binding", binding, ("N",), sizes, device=vertices.device, dtypes=ids)
    check.tensor("means", means, ("N", 3), sizes, like=vertices)
    check.tensor("quats", quats, ("N", 4), sizes, like=vertices)
    check.tensor("log_scales", log_scales, ("N", 3), sizes, like=vertices)
    inputs = (vertices, faces, binding, means, quats, log_scales)
    eager = ordinary(*inputs)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (vertices, means, quats, log_scales)):
        return apply(_BindTriangles, eager, *inputs, eager=eager)
    return _forward_op(*inputs, eager=eager)
