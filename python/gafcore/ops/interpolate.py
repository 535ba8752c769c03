"""Vertex attributes at the pixels of a rasterized mesh."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.native import check, launch
from gafcore.ops.registry import apply, define, new_like, once, ordinary

_forward_op = define("interpolate(Tensor attributes, Tensor faces, Tensor triangle_ids, Tensor barycentrics) -> Tensor")
_backward_op = define(
    "interpolate_backward(Tensor attributes, Tensor faces, Tensor triangle_ids, Tensor barycentrics, Tensor v_image, "
    "bool needs_attributes, bool needs_barycentrics) -> (Tensor, Tensor)"
)


def _sizes(attributes: Tensor, faces: Tensor, triangle_ids: Tensor) -> dict[str, int]:
    return dict(
        n_cameras=triangle_ids.shape[0],
        n_pixels=triangle_ids.shape[1] * triangle_ids.shape[2],
        n_meshes=attributes.shape[0] if attributes.dim() == 3 else 1,
        n_vertices=attributes.shape[-2],
        n_channels=attributes.shape[-1],
        n_faces=faces.shape[0],
    )


@_forward_op.native
def _forward(attributes, faces, triangle_ids, barycentrics):
    check.index_range("faces", faces, attributes.shape[-2], "attributes")
    check.index_range("triangle_ids", triangle_ids, faces.shape[0], "faces", none=-1)
    attributes, faces = attributes.contiguous(), faces.contiguous()
    triangle_ids, barycentrics = triangle_ids.contiguous(), barycentrics.contiguous()
    image = _forward_fake(attributes, faces, triangle_ids, barycentrics)
    launch(
        "interpolate_fwd",
        attributes,
        **_sizes(attributes, faces, triangle_ids),
        attributes=attributes,
        faces=faces,
        triangle_ids=triangle_ids,
        barycentrics=barycentrics,
        image=image,
    )
    return image


@_forward_op.fake
def _forward_fake(attributes, faces, triangle_ids, barycentrics):  # noqa: ARG001
    return attributes.new_empty(*triangle_ids.shape, attributes.shape[-1])


@_backward_op.native
def _backward(attributes, faces, triangle_ids, barycentrics, v_image, needs_attributes, needs_barycentrics):
    attributes, faces, v_image = attributes.contiguous(), faces.contiguous(), v_image.contiguous()
    triangle_ids, barycentrics = triangle_ids.contiguous(), barycentrics.contiguous()
    v_attributes, v_barycentrics = _gradients(attributes, barycentrics, needs_attributes, needs_barycentrics)
    launch(
        "interpolate_bwd",
        attributes,
        **_sizes(attributes, faces, triangle_ids),
        attributes=attributes,
        faces=faces,
        triangle_ids=triangle_ids,
        barycentrics=barycentrics,
        v_image=v_image,
        v_attributes=v_attributes,
        v_barycentrics=v_barycentrics,
    )
    return v_attributes, v_barycentrics


def _gradients(attributes, barycentrics, needs_attributes, needs_barycentrics):
    return new_like(attributes) if needs_attributes else None, new_like(barycentrics) if needs_barycentrics else None


@_backward_op.fake
def _backward_fake(attributes, faces, triangle_ids, barycentrics, v_image, needs_attributes, needs_barycentrics):  # noqa: ARG001
    return _gradients(attributes, barycentrics, needs_attributes, needs_barycentrics)


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, eager, attributes, faces, triangle_ids, barycentrics):
        ctx.save_for_backward(attributes, faces, triangle_ids, barycentrics)
        ctx.eager = eager
        return _forward_op(attributes, faces, triangle_ids, barycentrics, eager=eager)

    @staticmethod
    @once
    def backward(ctx, v_image):
        needs = (ctx.needs_input_grad[1], ctx.needs_input_grad[4])
        v_attributes, v_barycentrics = _backward_op(*ctx.saved_tensors, v_image, *needs, eager=ctx.eager and ordinary(v_image))
        return None, v_attributes if needs[0] else None, None, None, v_barycentrics if needs[1] else None


def interpolate(
    attributes: Float[Tensor, "*C V A"],
    faces: Int[Tensor, "F 3"],
    triangle_ids: Int[Tensor, "C H W"],
    barycentrics: Float[Tensor, "C H W 3"],
) -> Float[Tensor, "C H W A"]:
    """Attributes at the corners of each pixel's triangle, weighted by its barycentric coordinates; 0 where there is no triangle.

    Args:
        attributes: Any number of channels: [V, A] shared by all cameras, or [C, V, A].
        faces: Rows of `attributes` at the corners of each triangle, int64. Not necessarily the faces that were rasterized: texture
            coordinates have their own.
        triangle_ids: From `rasterize_mesh`, int32; -1 = none.
        barycentrics: From `rasterize_mesh`.

    Returns:
        An image, differentiable in `attributes` and `barycentrics`.

    Raises:
        ValueError: A shape, dtype or device does not fit, or a number in `faces` or `triangle_ids` is out of range.
    """
    if isinstance(attributes, Tensor) and attributes.dim() == 2:
        sizes = check.tensor("attributes", attributes, ("V", "A"))
    else:
        sizes = check.tensor("attributes", attributes, ("C", "V", "A"))
    check.tensor("faces", faces, ("F", 3), device=attributes.device, dtypes=(torch.int64,))
    check.tensor("triangle_ids", triangle_ids, ("C", "H", "W"), sizes, device=attributes.device, dtypes=(torch.int32,))
    check.tensor("barycentrics", barycentrics, ("C", "H", "W", 3), sizes, like=attributes)
    inputs = (attributes, faces, triangle_ids, barycentrics)
    eager = ordinary(*inputs)
    if torch.is_grad_enabled() and (attributes.requires_grad or barycentrics.requires_grad):
        return apply(_Interpolate, eager, *inputs, eager=eager)
    return _forward_op(*inputs, eager=eager)
